package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// numbered is n lines "0" to n-1, and the text that they come from.
func numbered(n int) (lines []string, text string) {
	for i := range n {
		lines = append(lines, fmt.Sprint(i))
	}
	return lines, strings.Join(lines, "\n") + "\n"
}

func TestProduceRoundTrip(t *testing.T) {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			b := newBroker(t, kfake.SeedTopics(1, "t"))
			want, text := numbered(5000)
			want = append(want, "", "carriage\r", "last")
			r := b.mustRun(t, text+"\ncarriage\r\nlast", "produce", "t", "--compression", codec, "--batch-records", "100")
			if got := b.lines(t, "t"); !reflect.DeepEqual(got, want) {
				t.Errorf("%d lines, want %d in order", len(got), len(want))
			}
			if !strings.HasPrefix(r.stderr, "5003 records, ") || !strings.Contains(r.stderr, "p99.9 ") || strings.Contains(r.stderr, "n/a") {
				t.Errorf("summary %q", r.stderr)
			}
		})
	}
}

func TestProduceFile(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	path := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(path, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.mustRun(t, "not this\n", "produce", "t", path)
	if got := b.lines(t, "t"); !reflect.DeepEqual(got, []string{"from a file"}) {
		t.Errorf("%q", got)
	}
	if r := b.run(t, "", "produce", "t", path+".missing"); r.code != exitFailure || !strings.Contains(r.stderr, ".missing") {
		t.Errorf("%+v", r)
	}
	if r := b.mustRun(t, "", "produce", "t"); !strings.HasPrefix(r.stderr, "0 records") {
		t.Errorf("nothing: %+v", r)
	}
}

func TestProduceOneWay(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	want, text := numbered(2000)
	r := b.mustRun(t, text, "produce", "t", "--qos", "one-way", "--batch-records", "50")
	if !strings.Contains(r.stderr, "p50 n/a") {
		t.Errorf("summary %q", r.stderr)
	}
	// The command has ended, so the broker has read it all.
	if got := b.lines(t, "t"); !reflect.DeepEqual(got, want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

// What goes over the wire says the level.
func TestProduceSendsLevel(t *testing.T) {
	for _, level := range qosLevels {
		b := newBroker(t, kfake.SeedTopics(1, "t"))
		acks := make(chan int16, 1)
		b.ControlKey(kmsg.Produce.Int16(), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			acks <- kreq.(*kmsg.ProduceRequest).Acks
			return nil, nil, false
		})
		r := tidemark(t, t.Context(), strings.NewReader("x\n"), nil, "produce", "t", "--qos", level.name, "--bootstrap", b.addr)
		if got := <-acks; got != level.acks {
			t.Errorf("%s: acks %d, want %d", level.name, got, level.acks)
		}
		// Kafka itself refuses the levels, which is what a user of a wrong broker sees.
		if level.acks != 0 && (r.code != exitRefused || !strings.Contains(r.stderr, "INVALID_REQUIRED_ACKS")) {
			t.Errorf("%s: %+v", level.name, r)
		}
	}
}

func TestProduceSpreads(t *testing.T) {
	const partitions = 5
	b := newBroker(t, kfake.SeedTopics(partitions, "keyed", "unkeyed", "one"))
	var text strings.Builder
	want := make([][]string, partitions)
	kafka := kgo.StickyKeyPartitioner(nil).ForTopic("keyed")
	for i := range 1000 {
		key, value := fmt.Sprintf("key-%d", i%37), fmt.Sprintf("%d:x", i)
		fmt.Fprintf(&text, "%s:%s\n", key, value)
		p := kafka.Partition(&kgo.Record{Key: []byte(key)}, partitions)
		want[p] = append(want[p], value)
	}
	b.mustRun(t, text.String(), "produce", "keyed", "--key-separator", ":", "--batch-records", "10")
	for p := range want {
		if got := b.lines(t, "keyed", "--partition", fmt.Sprint(p)); !reflect.DeepEqual(got, want[p]) {
			t.Errorf("partition %d: %d lines, want %d in order", p, len(got), len(want[p]))
		}
	}

	_, lines := numbered(100)
	b.mustRun(t, lines, "produce", "unkeyed", "--batch-records", "10")
	b.mustRun(t, lines, "produce", "one", "--partition", "3")
	for p := range int32(partitions) {
		if got := b.PartitionInfo("unkeyed", p).HighWatermark; got != 20 {
			t.Errorf("unkeyed: partition %d has %d records, want 20", p, got)
		}
		if got := b.PartitionInfo("one", p).HighWatermark; got != map[bool]int64{true: 100}[p == 3] {
			t.Errorf("--partition 3: partition %d has %d records", p, got)
		}
	}
	if r := b.run(t, "x\n", "produce", "one", "--partition", "5"); r.code != exitUsage || !strings.Contains(r.stderr, "--partition") {
		t.Errorf("%+v", r)
	}
}

// Refusals in the middle of a pipeline: all lines, once, in order.
func TestProduceKeepsOrderOverRefusals(t *testing.T) {
	for name, code := range map[string]*kerr.Error{
		"not enough replicas": kerr.NotEnoughReplicas, "storage": kerr.KafkaStorageError,
		"not leader": kerr.NotLeaderForPartition, "stored all the same": kerr.NotEnoughReplicasAfterAppend,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t, kfake.SeedTopics(2, "t"))
			var n atomic.Int64
			b.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Err: code, Count: 5,
				When: func(kmsg.Request) bool { n := n.Add(1); return n == 1 || n%7 == 0 }, // the very first one too
			})
			_, text := numbered(3000)
			b.mustRun(t, text, "produce", "t", "--batch-records", "30", "--partition", "1", "--linger", "0s")
			want, _ := numbered(3000)
			if got := b.lines(t, "t"); !reflect.DeepEqual(got, want) {
				t.Errorf("%d lines, want %d in order", len(got), len(want))
			}
		})
	}
}

// A connection that breaks after the broker has stored a batch: its lines go out again and are stored once.
func TestProduceOverBrokenConnection(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	var n atomic.Int64
	b.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1,
		When: func(kmsg.Request) bool {
			if n.Add(1)%20 == 0 {
				b.cutNext.Store(true)
			}
			return true
		},
	})
	want, text := numbered(3000)
	b.mustRun(t, text, "produce", "t", "--batch-records", "30")
	if got := b.lines(t, "t"); !reflect.DeepEqual(got, want) {
		t.Errorf("%d lines, want %d in order", len(got), len(want))
	}
	if n.Load() <= 100 {
		t.Errorf("%d requests: nothing was sent again", n.Load())
	}
}

func TestProduceGivesUp(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	r := b.run(t, "a\nb\n", "produce", "t", "--timeout", "300ms")
	if r.code != exitRefused || !strings.Contains(r.stderr, "NOT_ENOUGH_REPLICAS") || !strings.Contains(r.stderr, "lines 1 to 2") || !strings.Contains(r.stderr, "2 lines read and not delivered") {
		t.Errorf("%+v", r)
	}
}

// Timed out means possibly stored: said, and not sent again.
func TestProduceReportsTimeout(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 1})
	r := b.run(t, "a\nb\nc\n", "produce", "t", "--batch-records", "2")
	if r.code != exitRefused || !strings.Contains(r.stderr, "REQUEST_TIMED_OUT") || !strings.Contains(r.stderr, "lines 1 to 2 possibly stored") || !strings.Contains(r.stderr, "; 2 possibly stored") {
		t.Errorf("%+v", r)
	}
	if got := b.PartitionInfo("t", 0).HighWatermark; got != 2 {
		t.Errorf("%d records, want 2", got)
	}
}

func TestProduceLongLine(t *testing.T) {
	b := newBroker(t)
	b.mustRun(t, "", "topic", "create", "t", "--config", "max.message.bytes=1000")
	fits := strings.Repeat("x", 1000-61-9) // a batch header, and a record's own ten bytes or so
	for name, long := range map[string]string{"as a batch": strings.Repeat("x", 960), "as a line": strings.Repeat("x", 5000)} {
		r := b.run(t, "a\nb\n"+fits+"\nd\n"+long+"\ne\n", "produce", "t", "--partition", "0", "--linger", "1h")
		if r.code != exitFailure || !strings.Contains(r.stderr, "line 5 makes a record larger than the 1000 bytes") || !strings.Contains(r.stderr, "max.message.bytes") {
			t.Errorf("%s: %+v", name, r)
		}
		if !strings.Contains(r.stderr, "nor were 1 lines before it that waited for their batches, from line 4 on") {
			t.Errorf("%s: %s", name, r.stderr)
		}
	}
}

func TestProduceUnknownTopic(t *testing.T) {
	b := newBroker(t)
	r := b.run(t, "x\n", "produce", "nowhere")
	if r.code != exitRefused || !strings.Contains(r.stderr, `topic "nowhere"`) || !strings.Contains(r.stderr, "tidemark topic create nowhere") {
		t.Errorf("%+v", r)
	}
}

// SIGINT: what is in flight is finished and reported.
func TestProduceInterrupted(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1, When: func(kmsg.Request) bool { cancel(); return true }})
	go io.WriteString(w, "a\nb\n") // and then nothing, without an end
	res := tidemark(t, ctx, r, leader, "produce", "t", "--bootstrap", b.addr, "--batch-records", "2")
	if res.code != exitInterrupted || !strings.HasPrefix(res.stderr, "2 records") {
		t.Errorf("%+v", res)
	}
}
