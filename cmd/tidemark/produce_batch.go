package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/internal/kwire"
)

// batchBytesTarget closes a batch that would grow past it, if the topic's max.message.bytes does not do so earlier. A single record may be larger.
const batchBytesTarget = 1 << 20

// batch is one record batch of one partition, from its first line to its acknowledgement.
type batch struct {
	part      *partition
	firstLine int64
	lastLine  int64
	records   int
	payload   int // bytes of keys and values

	// while open
	builder  kwire.BatchBuilder
	openedAt time.Time

	// once closed
	wire        []byte
	firstSend   time.Time // of the first attempt; starts the clock of --timeout and of the latency
	sentAt      time.Time // of the last attempt
	maybeStored bool      // an attempt ended without saying
}

func (b *batch) lines() string {
	if b.firstLine == b.lastLine {
		return fmt.Sprintf("line %d", b.firstLine)
	}
	if b.lastLine-b.firstLine+1 > int64(b.records) { // keyed lines go to several partitions
		return fmt.Sprintf("%d of the lines %d to %d", b.records, b.firstLine, b.lastLine)
	}
	return fmt.Sprintf("lines %d to %d", b.firstLine, b.lastLine)
}

// batcher puts lines into open batches, at most one a partition, and hands closed ones to their partition's queue.
type batcher struct {
	// immutable
	parts      []*partition
	fixed      *partition // --partition; nil spreads
	separator  []byte     // between key and value; empty: no keys
	recordsMax int
	bytesMax   int // the topic's max.message.bytes
	linger     time.Duration
	compressor kgo.Compressor
	producer   kwire.Producer // NoProducer for one-way
	hasher     kgo.TopicPartitioner

	sticky int // index in parts of the unkeyed lines' current partition
	spare  []kwire.BatchBuilder
	keyed  kgo.Record // for the hasher
}

// errOversize is the cause when a record alone would pass max.message.bytes.
var errOversize = errors.New("too long for the topic")

// add puts one line into a batch. On errOversize nothing was added.
func (b *batcher) add(number int64, line []byte, now time.Time) error {
	rec := kwire.Record{Value: line, Timestamp: now.UnixMilli()}
	if len(b.separator) > 0 {
		if key, value, found := bytes.Cut(line, b.separator); found {
			rec.Key, rec.Value = key, value
		}
	}
	if rec.Value == nil {
		rec.Value = []byte{} // an empty line is an empty value, not a tombstone
	}
	part := b.partitionFor(rec)
	if part.open != nil && part.open.builder.BytesWith(rec) > min(b.bytesMax, batchBytesTarget) {
		var empty kwire.BatchBuilder
		if empty.BytesWith(rec) > b.bytesMax {
			return errOversize
		}
		if err := b.close(part); err != nil {
			return err
		}
		part = b.partitionFor(rec)
	}
	if part.open == nil {
		part.open = &batch{part: part, firstLine: number, openedAt: now}
		if n := len(b.spare); n > 0 {
			part.open.builder, b.spare = b.spare[n-1], b.spare[:n-1]
		}
		if part.open.builder.BytesWith(rec) > b.bytesMax {
			part.open = nil
			return errOversize
		}
	}
	open := part.open
	open.builder.Append(rec)
	open.lastLine = number
	open.records++
	open.payload += len(rec.Key) + len(rec.Value)
	if open.records >= b.recordsMax {
		return b.close(part)
	}
	return nil
}

// partitionFor is --partition, else the key's murmur2 hash as Kafka's default partitioner has it, else the sticky one.
func (b *batcher) partitionFor(rec kwire.Record) *partition {
	switch {
	case b.fixed != nil:
		return b.fixed
	case rec.Key != nil:
		b.keyed.Key = rec.Key
		return b.parts[b.hasher.Partition(&b.keyed, len(b.parts))]
	}
	return b.parts[b.sticky]
}

// close encodes a partition's open batch, with its sequence, and queues it. Unkeyed lines then go on with the next partition.
func (b *batcher) close(part *partition) error {
	open := part.open
	part.open = nil
	producer := kwire.NoProducer
	if b.producer != kwire.NoProducer {
		producer = b.producer
		producer.Sequence = part.sequence
		part.sequence = producer.Advance(open.records).Sequence
	}
	var err error
	if open.wire, err = open.builder.AppendTo(nil, producer, b.compressor); err != nil {
		return fmt.Errorf("%s: %w", open.lines(), err)
	}
	if len(open.wire) > b.bytesMax { // incompressible, just below the limit
		if open.wire, err = open.builder.AppendTo(nil, producer, nil); err != nil {
			return err
		}
	}
	open.builder.Reset()
	b.spare = append(b.spare, open.builder)
	open.builder = kwire.BatchBuilder{}
	part.queue = append(part.queue, open)
	if part == b.parts[b.sticky] {
		b.sticky = (b.sticky + 1) % len(b.parts)
	}
	return nil
}

// closeDue closes the batches that have lingered long enough, unless their partition has others to send first: then there is time to fill them.
func (b *batcher) closeDue(now time.Time) error {
	for _, part := range b.parts {
		if part.open != nil && part.unsent() == 0 && !now.Before(part.open.openedAt.Add(b.linger)) {
			if err := b.close(part); err != nil {
				return err
			}
		}
	}
	return nil
}

// closeAll closes every open batch.
func (b *batcher) closeAll() error {
	for _, part := range b.parts {
		if part.open != nil {
			if err := b.close(part); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropOpen forgets the open batches and returns their first line and number of lines.
func (b *batcher) dropOpen() (first, lines int64) {
	for _, part := range b.parts {
		if part.open == nil {
			continue
		}
		if first == 0 || part.open.firstLine < first {
			first = part.open.firstLine
		}
		lines += int64(part.open.records)
		part.open = nil
	}
	return first, lines
}
