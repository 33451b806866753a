package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tidemark/catalog"
	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
)

// told is what a pipeline under test has told its clients: what counts after a crash. Records are numbered per partition, in the order in which they are submitted.
type told struct {
	mu      sync.Mutex
	parts   [toldPartitions]toldPart // guarded by mu
	pending int                      // requests without an answer; guarded by mu
	twice   int                      // answers too many; guarded by mu
	topic   bool                     // its creation was answered; guarded by mu
}

const (
	toldPartitions = 3
	toldTopic      = "t"
)

// toldPart is a partition. It is copied to remember a moment: acked only grows.
type toldPart struct {
	acked    []ack
	next     uint64                // first number never submitted
	seen     journal.LogicalOffset // the highest high watermark that a reader saw
	producer kwire.Producer        // of the idempotent partitions; Sequence is the next one's
	last     *sentBatch            // the newest one that was acknowledged, for a retry
}

// ack is an acknowledgement at a level that outlives the process.
type ack struct {
	base  int64
	id    uint64
	count int
}

// sentBatch is a batch as it was sent.
type sentBatch struct {
	ack
	producer kwire.Producer
}

// moment is a told at one moment.
type moment struct {
	parts   [toldPartitions]toldPart
	pending int
	topic   bool
}

func (t *told) now() moment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return moment{parts: t.parts, pending: t.pending, topic: t.topic}
}

// value is the content of record id: its number, and bytes that follow from it.
func value(id uint64) []byte {
	x := id*0x9e3779b97f4a7c15 + 1
	b := make([]byte, 8+int(x>>40%1500))
	binary.BigEndian.PutUint64(b, id)
	for i := 8; i < len(b); i++ {
		b[i] = byte(x >> (i % 8 * 8))
	}
	return b
}

func makeBatch(b sentBatch) []byte {
	records := make([]kwire.Record, b.count)
	for i := range records {
		records[i] = kwire.Record{Value: value(b.id + uint64(i)), Timestamp: 1}
	}
	out, err := kwire.AppendBatch(nil, b.producer, nil, records...)
	if err != nil {
		panic(err)
	}
	return out
}

// toldRequest is one produce request on its way; it is the pipeline's owner of it.
type toldRequest struct {
	pipeline.Request
	told    *told
	part    int
	sent    sentBatch
	answers int // guarded by told.mu
	done    chan struct{}
}

func (r *toldRequest) Serialized(*pipeline.Request) {
	for i := range r.Records {
		p := r.Records[i].Payload // ours again: whoever still reads it reads rubbish
		for k := range p {
			p[k] = 0xee
		}
	}
}

func (r *toldRequest) Answer(*pipeline.Request) pipeline.Waker {
	t := r.told
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.answers++; r.answers > 1 {
		t.twice++
		return nil
	}
	t.pending--
	if rec := &r.Records[0]; r.Err == nil && rec.Err == nil && r.Level.Marks()&qos.Flushed != 0 {
		p := &t.parts[r.part]
		a := r.sent
		a.base = int64(rec.Base)
		p.acked = append(p.acked, a.ack)
		if p.producer.ID >= 0 && (p.last == nil || a.id > p.last.id) {
			p.last = &a
		}
	}
	close(r.done)
	return nil
}

// submit sends a batch, at a level.
func (t *told) submit(p *pipeline.Pipeline, part *catalog.Partition, sent sentBatch, level qos.Level) (*toldRequest, error) {
	return t.submitBy(p, part, sent, level, 0)
}

// submitBy is submit with a deadline from now; 0: none.
func (t *told) submitBy(p *pipeline.Pipeline, part *catalog.Partition, sent sentBatch, level qos.Level, deadline time.Duration) (*toldRequest, error) {
	b := makeBatch(sent)
	r := &toldRequest{told: t, part: int(part.Index), sent: sent, done: make(chan struct{})}
	rec := pipeline.Record{Kind: journal.RecordBatch, Partition: part, Payload: b}
	if err := rec.Info.Accept(b); err != nil {
		return nil, err
	}
	r.Request = pipeline.Request{Marks: level.Marks(), Level: level, Bytes: len(b), Records: []pipeline.Record{rec}, Owner: r}
	if deadline > 0 {
		r.Deadline = p.Now() + deadline
	}
	t.mu.Lock()
	t.pending++
	t.mu.Unlock()
	if err := p.Submit([]*pipeline.Request{&r.Request}); err != nil {
		t.mu.Lock()
		t.pending--
		t.mu.Unlock()
		return nil, err
	}
	return r, nil
}

// fresh numbers a new batch of count records for a partition.
func (t *told) fresh(part, count int) sentBatch {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &t.parts[part]
	b := sentBatch{ack: ack{id: p.next, count: count}, producer: p.producer}
	p.next += uint64(count)
	if p.producer.ID >= 0 {
		p.producer = p.producer.Advance(count)
	}
	return b
}

// createTopic makes the topic, or finds it.
func (t *told) createTopic(p *pipeline.Pipeline) ([]*catalog.Partition, error) {
	if topic := p.View().Topics[toldTopic]; topic != nil {
		return topic.Partitions, nil
	}
	cmd := catalog.Command{CreateTopic: &catalog.CreateTopic{Name: toldTopic, ID: catalog.TopicID{1}, Partitions: toldPartitions}}
	result := p.Command(context.Background(), cmd, nil, 0)
	if result.Err != nil {
		return nil, result.Err
	}
	t.mu.Lock()
	t.topic = true
	t.mu.Unlock()
	return result.Topic.Partitions, nil
}

// found is what a partition holds: the number of each record from the log start on.
type found struct {
	start journal.LogicalOffset
	ids   []uint64
}

// readBack reads a whole partition and checks every batch.
func readBack(p *pipeline.Pipeline, part *catalog.Partition) (found, error) {
	p.CatchUp()
	f := found{start: part.LogStart()}
	for from := f.start; from < part.HighWatermark(); {
		b, err := p.Read(part, from, part.HighWatermark(), 1<<20, true, nil)
		if errors.Is(err, pipeline.ErrOutOfRange) && part.LogStart() > from { // retention has moved on meanwhile
			f = found{start: part.LogStart()}
			from = f.start
			continue
		}
		if err != nil {
			return f, fmt.Errorf("read at %d: %w", from, err)
		}
		batches, err := kwire.ParseBatches(b)
		if err != nil {
			return f, fmt.Errorf("read at %d: %w", from, err)
		}
		if len(batches) == 0 {
			return f, fmt.Errorf("read at %d: nothing, and the high watermark is %d", from, part.HighWatermark())
		}
		if batches[0].FirstOffset != int64(from) && part.LogStart() > from { // so it has
			f = found{start: part.LogStart()}
			from = f.start
			continue
		}
		for _, bt := range batches {
			if bt.FirstOffset != int64(from) {
				return f, fmt.Errorf("a batch at %d says %d", from, bt.FirstOffset)
			}
			for _, r := range bt.Unpacked {
				if len(r.Value) < 8 {
					return f, fmt.Errorf("a record of %d bytes at %d", len(r.Value), from)
				}
				id := binary.BigEndian.Uint64(r.Value)
				if !slices.Equal(r.Value, value(id)) {
					return f, fmt.Errorf("record %d at %d does not hold what was sent", id, from)
				}
				f.ids = append(f.ids, id)
				from++
			}
		}
	}
	return f, nil
}

// verify compares what a recovered pipeline holds with what was told before. It returns what is there.
func (m *moment) verify(p *pipeline.Pipeline) (all [toldPartitions]found, err error) {
	topic := p.View().Topics[toldTopic]
	if topic == nil {
		if m.topic {
			return all, fmt.Errorf("the topic was created and is gone")
		}
		return all, nil
	}
	for i, part := range topic.Partitions {
		f, err := readBack(p, part)
		if err == nil {
			err = m.parts[i].verify(f)
		}
		if err != nil {
			return all, fmt.Errorf("partition %d: %w", i, err)
		}
		all[i] = f
	}
	return all, nil
}

func (t *toldPart) verify(f found) error {
	for i, id := range f.ids {
		if i > 0 && id <= f.ids[i-1] {
			return fmt.Errorf("record %d comes after %d: twice, or out of order", id, f.ids[i-1])
		}
		if id >= t.next {
			return fmt.Errorf("record %d was never sent", id)
		}
	}
	end := int64(f.start) + int64(len(f.ids))
	for _, a := range t.acked {
		for k := range a.count {
			at := a.base + int64(k)
			if at < int64(f.start) {
				continue // retention dropped it
			}
			if at >= end {
				return fmt.Errorf("record %d was acknowledged at offset %d and is gone: the partition ends at %d", a.id+uint64(k), at, end)
			}
			if got := f.ids[at-int64(f.start)]; got != a.id+uint64(k) {
				return fmt.Errorf("record %d was acknowledged at offset %d, where %d is", a.id+uint64(k), at, got)
			}
		}
	}
	if int64(t.seen) > end {
		return fmt.Errorf("a reader saw records up to %d, and the partition ends at %d", t.seen, end)
	}
	return nil
}

// adopt makes all that was found count as acknowledged: readers have seen it.
func (t *told) adopt(all [toldPartitions]found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range all {
		p := &t.parts[i]
		p.acked = nil
		for k, id := range all[i].ids {
			p.acked = append(p.acked, ack{base: int64(all[i].start) + int64(k), id: id, count: 1})
		}
		p.seen = 0
	}
}

// restore is a told that begins where a moment ended.
func (m *moment) restore() *told { return &told{parts: m.parts, topic: m.topic} }

const torturedSegment = 64 << 10

func torturedOptions(fsys vfs.FS) pipeline.Options {
	return pipeline.Options{FS: fsys, DataDir: "data", SegmentBytes: torturedSegment, CacheBytes: 64 << 10, Spares: 1, RetentionBytes: 2 * torturedSegment}
}

// errHole says that a read was given what comes next: there is nothing at its offset.
var errHole = errors.New("nothing is there")

// sameBatch compares a batch that was read with what was acknowledged.
func sameBatch(b []byte, a ack) error {
	batches, err := kwire.ParseBatches(b)
	if err != nil {
		return err
	}
	if len(batches) == 1 && batches[0].FirstOffset > a.base {
		return errHole
	}
	if len(batches) != 1 || batches[0].FirstOffset != a.base || len(batches[0].Unpacked) != a.count {
		return fmt.Errorf("not the batch that was acknowledged there")
	}
	for k, r := range batches[0].Unpacked {
		if !slices.Equal(r.Value, value(a.id+uint64(k))) {
			return fmt.Errorf("record %d does not hold what was sent", a.id+uint64(k))
		}
	}
	return nil
}
