// Command clients sends a file's lines to a topic, or reads a topic back and checks it, with one of several Kafka clients.
//
// The lines start with their number and a space, which is how the reader knows order, loss and repetition. It is a module of its own so
// that the clients, one of which is C, are no dependency of the broker's.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags that a client may look at.
type options struct {
	bootstrap  string
	topic      string
	codec      string // none, gzip, snappy, lz4, zstd; default leaves the client its own choice
	idempotent bool
	autoCreate bool
}

// client is one Kafka client library.
type client interface {
	// produce sends the lines in order, each as the value of one record without a key, and returns when all are acknowledged with acks=all.
	produce(ctx context.Context, o options, lines iter.Seq[[]byte]) error
	// consume reads every partition without a group from its first offset to where it ended at the start, one call of each per record.
	// The value may be reused after the call.
	consume(ctx context.Context, o options, each func(partition int32, offset int64, value []byte) error) error
}

var clients = map[string]client{
	"franz":     franz{},
	"confluent": confluent{},
	"sarama":    saramaClient{},
	"segmentio": segmentio{},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	var name, mode, input, group, kind string
	names := strings.Join(slices.Sorted(maps.Keys(clients)), ", ")
	flags := flag.NewFlagSet("clients", flag.ContinueOnError)
	flags.StringVar(&name, "client", "", "one of "+names)
	flags.StringVar(&mode, "mode", "", "produce, consume, or member: print what a member of --group reads until it is interrupted")
	flags.StringVar(&kind, "member", "", "what kind of member: the client's name, or with -848 the one of the protocol in which the broker assigns")
	flags.StringVar(&group, "group", "", "consumer group")
	flags.StringVar(&input, "input", "", "file whose lines to produce")
	flags.StringVar(&o.bootstrap, "bootstrap", "", "broker, host:port")
	flags.StringVar(&o.topic, "topic", "", "topic")
	flags.StringVar(&o.codec, "codec", "default", "none, gzip, snappy, lz4 or zstd; default: the client's own choice")
	flags.BoolVar(&o.idempotent, "idempotent", false, "produce with idempotence, if the client has it")
	flags.BoolVar(&o.autoCreate, "auto-create", false, "ask the broker to create the topic while producing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, ok := clients[name]
	if !ok {
		return fmt.Errorf("--client: %q, must be one of %s", name, names)
	}
	begin := time.Now()
	switch mode {
	case "produce":
		data, err := os.ReadFile(input)
		if err != nil {
			return err
		}
		if err := c.produce(ctx, o, linesOf(data)); err != nil {
			return fmt.Errorf("%s, produce: %w", name, err)
		}
		fmt.Printf("records=%d %.2fs\n", bytes.Count(data, []byte("\n")), time.Since(begin).Seconds())
	case "consume":
		check := newChecker()
		if err := c.consume(ctx, o, check.record); err != nil {
			return fmt.Errorf("%s, consume: %w", name, err)
		}
		sum, err := check.sum()
		if err != nil {
			return fmt.Errorf("%s, consume: %w", name, err)
		}
		fmt.Printf("records=%d partitions=%d %.2fs sha256=%s\n", len(check.lines), len(check.last), time.Since(begin).Seconds(), sum)
	case "member":
		m, ok := members[kind]
		if !ok {
			return fmt.Errorf("--member: %q, must be one of %s", kind, strings.Join(slices.Sorted(maps.Keys(members)), ", "))
		}
		return m(ctx, o, group, printRecord)
	default:
		return fmt.Errorf("--mode: %q, must be produce, consume or member", mode)
	}
	return nil
}

// linesOf yields data's lines without their newline. Other line ends, such as a carriage return, are content.
func linesOf(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for line := range bytes.Lines(data) {
			if !yield(bytes.TrimSuffix(line, []byte("\n"))) {
				return
			}
		}
	}
}
