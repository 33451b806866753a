//go:build !race

package server

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"tidemark/catalog"
	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/kafka"
)

// producePath is the way of a Produce request without sockets: decode, submit, serialize, flush, respond, lay out. The race detector makes pools forget, so this is not built with it.
type producePath struct {
	p      *pipeline.Pipeline
	broker *kafka.Broker
	header kafka.Header
	reqs   [1]*pipeline.Request
	done   chan struct{}
	out    []byte
	failed bool
}

// Complete and Wake make it the sink of its one request.
func (s *producePath) Complete(c *kafka.Produce) bool {
	s.failed = s.failed || c.Failed()
	s.out = c.AppendResponse(s.out[:0])
	c.Recycle()
	s.done <- struct{}{}
	return false
}

func (s *producePath) Wake() {}

func newProducePath(t testing.TB, acks int16, records, recordBytes int) *producePath {
	t.Helper()
	p, err := pipeline.Open(pipeline.Options{FS: forgetful{vfs.NewMem()}, DataDir: "data", SegmentBytes: 256 << 20, CacheBytes: 64 << 20, Spares: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &producePath{p: p, done: make(chan struct{}, 1)}
	s.broker = kafka.New(kafka.Config{Acks: qos.DefaultAcks, MaxMessageBytes: 1 << 20, RequestMaxBytes: 2 << 20, FetchMemoryBytes: 1}, p)
	create := &createTopic{done: make(chan struct{})}
	create.req = pipeline.Request{Marks: qos.All.Marks() | qos.Applied, Level: qos.All, Owner: create, Records: []pipeline.Record{{
		Kind: journal.RecordCommand, Payload: catalog.Command{CreateTopic: &catalog.CreateTopic{Name: "t", ID: catalog.TopicID{1}, Partitions: 1}}.Encode(),
	}}}
	if err := p.Submit([]*pipeline.Request{&create.req}); err != nil {
		t.Fatal(err)
	}
	<-create.done
	var batch []kwire.Record
	for range records {
		batch = append(batch, kwire.Record{Value: bytes.Repeat([]byte("x"), recordBytes)})
	}
	b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, batch...)
	if err != nil {
		t.Fatal(err)
	}
	s.header = kafka.Header{Version: 11, Body: produceTo("t", 0, acks, b).AppendTo(nil)}
	return s
}

type createTopic struct {
	req  pipeline.Request
	done chan struct{}
}

func (c *createTopic) Serialized(*pipeline.Request) {}

func (c *createTopic) Answer(*pipeline.Request) pipeline.Waker {
	close(c.done)
	return nil
}

// once takes one request the whole way.
func (s *producePath) once() {
	c := kafka.NewProduce()
	if err := s.broker.DecodeProduce(&s.header, c, &kafka.Client{}, s.p.Now()); err != nil {
		panic(err)
	}
	c.Sink, c.Request.Bytes = s, len(s.header.Body)
	s.reqs[0] = &c.Request
	if err := s.p.Submit(s.reqs[:]); err != nil {
		panic(err)
	}
	<-s.done
}

// forgetful is a disk whose journal takes writes and keeps none, since vfs.Mem allocates for every block that it keeps. Readers find all in the cache.
type forgetful struct{ vfs.FS }

func (f forgetful) Open(name string, mode vfs.Mode) (vfs.File, error) {
	file, err := f.FS.Open(name, mode)
	if err == nil && strings.HasSuffix(name, ".journal") {
		file = forgetfulFile{file}
	}
	return file, err
}

type forgetfulFile struct{ vfs.File }

func (f forgetfulFile) WriteSync(bufs [][]byte, _ int64) (n int, err error) {
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

// batchSizes are the batches whose requests have to cost the same number of allocations.
var batchSizes = []struct{ records, bytes int }{{1, 100}, {1000, 100}}

var pathLevels = []struct {
	name string
	acks int16
}{{"receive", 101}, {"persistence", 102}, {"all", -1}}

func BenchmarkProducePath(b *testing.B) {
	for _, level := range pathLevels {
		for _, size := range batchSizes {
			b.Run(fmt.Sprintf("%s/records=%d", level.name, size.records), func(b *testing.B) {
				s := newProducePath(b, level.acks, size.records, size.bytes)
				s.once()
				b.SetBytes(int64(len(s.header.Body)))
				b.ReportAllocs()
				for b.Loop() {
					s.once()
				}
			})
		}
	}
}

// TestAllocationsDoNotDependOnRecords is the promise that the benchmark shows: batches are never unpacked on the way.
func TestAllocationsDoNotDependOnRecords(t *testing.T) {
	for _, level := range pathLevels {
		var allocs []float64
		for _, size := range batchSizes {
			s := newProducePath(t, level.acks, size.records, size.bytes)
			for range 100 {
				s.once()
			}
			allocs = append(allocs, testing.AllocsPerRun(2000, s.once))
			if s.failed {
				t.Fatalf("%s: %d records were refused", level.name, size.records)
			}
		}
		t.Logf("%s: %.0f allocations a request of 1 record, %.0f of 1000", level.name, allocs[0], allocs[1])
		if math.Abs(allocs[0]-allocs[1]) > 1 || allocs[1] > 5 {
			t.Errorf("%s: %.0f allocations a request of 1 record, %.0f of 1000: want the same number, 5 at most", level.name, allocs[0], allocs[1])
		}
	}
}
