package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// BenchCmd groups the measurements.
type BenchCmd struct {
	Produce BenchProduceCmd `cmd:"" help:"Measure produce requests: throughput, and latency to the acknowledgement."`
}

// BenchProduceCmd is `tidemark bench produce`.
type BenchProduceCmd struct {
	ClientFlags
	Topic           string        `help:"Topic to write to; created if it is not there." default:"bench"`
	Connections     int           `help:"TCP connections." default:"64"`
	InFlight        int           `help:"Requests without an answer on each connection." default:"1"`
	RecordBytes     int           `help:"Bytes of a record's value, random." default:"1024"`
	RecordsPerBatch int           `help:"Records a request." default:"1"`
	Partitions      int32         `help:"Partitions to write to, and to create the topic with." default:"4"`
	QoS             string        `name:"qos" help:"Level: one-way, receive, persistence, replication or all." default:"persistence"`
	Duration        time.Duration `help:"How long to measure." default:"10s"`
	Warmup          time.Duration `help:"How long to run before that." default:"2s"`
	JSON            bool          `name:"json" help:"Print one JSON object instead of a table."`

	acksOverride *int16 // tests run against brokers that know no levels
}

const (
	benchConnectionsMax = 10_000
	benchInFlightMax    = 10_000
	benchTapeBytesMax   = 1 << 30 // prepared requests of all connections
	benchTimeout        = 30 * time.Second
)

// Help is kong's detailed help.
func (BenchProduceCmd) Help() string {
	return `A closed loop: each connection keeps --in-flight requests unanswered, one batch each, and sends a new one for every answer. Requests are
encoded beforehand, so the client costs little; it shares the machine with the broker if both run on one. Only what is answered between the
end of the warm-up and the end of the measurement counts. MB are 10^6 bytes of record values.

One-way requests are never answered: the client sends as fast as TCP takes them, there is no latency, and a request counts when the
kernel has it.

Levels:

` + qosHelp() + `
Examples:

    tidemark bench produce
    tidemark bench produce --connections 8 --in-flight 64 --json
    tidemark bench produce --connections 8 --in-flight 5 --record-bytes 1000 --records-per-batch 100 --qos all`
}

func (c *BenchProduceCmd) validate() (acks int16, err error) {
	acks, ok := acksOf(c.QoS)
	switch {
	case !ok:
		return 0, usageErrorf("--qos: %q, must be one of %s", c.QoS, qosNames())
	case c.Connections < 1 || c.Connections > benchConnectionsMax:
		return 0, usageErrorf("--connections: %d, must be 1 to %d", c.Connections, benchConnectionsMax)
	case c.InFlight < 1 || c.InFlight > benchInFlightMax:
		return 0, usageErrorf("--in-flight: %d, must be 1 to %d", c.InFlight, benchInFlightMax)
	case c.RecordBytes < 0 || c.RecordBytes > 64<<20:
		return 0, usageErrorf("--record-bytes: %d, must be 0 to %d", c.RecordBytes, 64<<20)
	case c.RecordsPerBatch < 1 || c.RecordsPerBatch > 1_000_000:
		return 0, usageErrorf("--records-per-batch: %d, must be 1 to 1000000", c.RecordsPerBatch)
	case c.Partitions < 1:
		return 0, usageErrorf("--partitions: %d, must be at least 1", c.Partitions)
	case c.Duration < time.Millisecond:
		return 0, usageErrorf("--duration: %s, must be at least 1ms", c.Duration)
	case c.Warmup < 0:
		return 0, usageErrorf("--warmup: %s, must not be negative", c.Warmup)
	}
	request := int64(c.RecordBytes+16) * int64(c.RecordsPerBatch)
	if total := request * int64(c.slots()) * int64(c.Connections); total > benchTapeBytesMax {
		return 0, usageErrorf("--connections %d times --in-flight %d times %d bytes: %d MiB of prepared requests, at most %d; lower one of them",
			c.Connections, c.InFlight, request, total>>20, benchTapeBytesMax>>20)
	}
	if c.acksOverride != nil {
		acks = *c.acksOverride
	}
	return acks, nil
}

// slots is the number of prepared requests a connection: all that may be in flight, and enough to reach several partitions in turn.
func (c *BenchProduceCmd) slots() int {
	return max(c.InFlight, min(int(c.Partitions), 8))
}

// Run measures and prints.
func (c *BenchProduceCmd) Run(e *env) error {
	acks, err := c.validate()
	if err != nil {
		return err
	}
	var targets []benchTarget
	err = withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		targets, err = c.prepareTopic(ctx, admin)
		return err
	})
	if err != nil {
		return err
	}
	l, err := newLoad(e.ctx, c, acks, targets)
	if err != nil {
		if e.ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	stopProgress := c.progress(e, l)
	err = l.run(e.ctx, c.Warmup, c.Duration)
	stopProgress()
	if err != nil {
		return err
	}
	report := newBenchReport(c, acks, l)
	if err := report.write(e.stdout, c.JSON); err != nil {
		return err
	}
	if e.ctx.Err() != nil {
		return errInterrupted
	}
	if report.Requests == 0 && report.Errors > 0 {
		return fmt.Errorf("every request was refused: %w", kerr.ErrorForCode(l.anyError()))
	}
	return nil
}

// benchTarget is one partition and where its leader listens.
type benchTarget struct {
	partition int32
	leader    int32
	addr      string
}

// prepareTopic creates the topic if it is missing and waits until its partitions have leaders.
func (c *BenchProduceCmd) prepareTopic(ctx context.Context, admin *kadm.Client) ([]benchTarget, error) {
	if _, err := admin.CreateTopic(ctx, c.Partitions, -1, nil, c.Topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return nil, topicError(c.Topic, err)
	}
	for backoff := backoffMin; ; backoff = min(2*backoff, backoffMax) {
		meta, err := admin.Metadata(ctx, c.Topic)
		if err != nil {
			return nil, topicError(c.Topic, err)
		}
		targets, err := c.targets(meta)
		if err == nil {
			return targets, nil
		}
		if exit := (*exitError)(nil); errors.As(err, &exit) {
			return nil, err
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil, topicError(c.Topic, err)
		}
	}
}

func (c *BenchProduceCmd) targets(meta kadm.Metadata) ([]benchTarget, error) {
	topic := meta.Topics[c.Topic]
	if topic.Err != nil {
		return nil, topic.Err
	}
	if n := len(topic.Partitions); n < int(c.Partitions) {
		return nil, usageErrorf("--partitions: %d, but topic %q is there already and has %d; name another with --topic", c.Partitions, c.Topic, n)
	}
	addrs := make(map[int32]string, len(meta.Brokers))
	for _, b := range meta.Brokers {
		addrs[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	var targets []benchTarget
	for id := range c.Partitions {
		p := topic.Partitions[id]
		addr, ok := addrs[p.Leader]
		if p.Err != nil || !ok {
			return nil, fmt.Errorf("partition %d has no leader: %w", id, kerr.LeaderNotAvailable)
		}
		targets = append(targets, benchTarget{partition: id, leader: p.Leader, addr: addr})
	}
	return targets, nil
}

// progress shows a line while the load runs, if someone sees it. The returned func ends it.
func (c *BenchProduceCmd) progress(e *env, l *load) (stop func()) {
	if !e.stderrIsTerminal() {
		return func() {}
	}
	total := c.Warmup + c.Duration
	bar := progressbar.NewOptions64(total.Milliseconds(),
		progressbar.OptionSetWriter(e.stderr),
		progressbar.OptionSetWidth(30),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionClearOnFinish(),
	)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		begin, last, lastAt := time.Now(), int64(0), time.Now()
		for {
			select {
			case <-done:
				bar.Clear()
				return
			case now := <-tick.C:
				sum := l.answered()
				phase := "measuring"
				if now.Sub(begin) < c.Warmup {
					phase = "warming up"
				}
				bar.Describe(fmt.Sprintf("%s, %.0f requests/s", phase, float64(sum-last)/now.Sub(lastAt).Seconds()))
				bar.Set64(min(now.Sub(begin).Milliseconds(), total.Milliseconds()-1))
				last, lastAt = sum, now
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
