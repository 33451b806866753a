package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	recordbatch "tidemark/internal/batch"
	"tidemark/internal/kwire"
)

// fetcher reads partitions of one leader over one connection. The next fetch is asked for as soon as it is known where it begins, so that the broker works while the answer is looked at.
type fetcher struct {
	conn  *kwire.Conn
	topic string
	parts []fetched
	last  *kmsg.FetchRequest // asked for, and its answer not taken

	maxBytes int32
	maxWait  time.Duration

	bufs [2][]byte // in turns: an answer, and the one before it
	turn int
}

// fetched is how far a partition is read.
type fetched struct {
	partition int32
	next, end int64 // [next, end) is to be read; end −1: whatever comes
}

func (p *fetched) done() bool { return p.end >= 0 && p.next >= p.end }

// fetchedVersionMax is the newest version of Fetch that knows topics by their names.
const fetchedVersionMax = 12

// ask sends the next fetch.
func (f *fetcher) ask(ctx context.Context) error {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(f.maxWait.Milliseconds()), 1, f.maxBytes
	req.SessionEpoch = -1 // no session
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = f.topic
	for i := range f.parts {
		if f.parts[i].done() {
			continue
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = f.parts[i].partition, f.parts[i].next, f.maxBytes
		topic.Partitions = append(topic.Partitions, p)
	}
	f.last = nil
	if len(topic.Partitions) == 0 {
		return nil
	}
	req.Topics = append(req.Topics, topic)
	if err := f.conn.Negotiate(req, fetchedVersionMax); err != nil {
		return err
	}
	_, err := f.conn.Send(ctx, req)
	f.last = req
	return err
}

// take receives the answer to the last fetch, asks for the next, and returns the answer's batches: whole, unchecked, one run for each partition, valid until the next but one take.
func (f *fetcher) take(ctx context.Context) ([][]byte, error) {
	f.turn = 1 - f.turn
	if f.bufs[f.turn] == nil { // a batch comes whole, and what is around it is little
		f.bufs[f.turn] = make([]byte, 0, int(f.maxBytes)+int(f.maxBytes)/4+64<<10)
	}
	resp, err := f.conn.ReceiveInto(ctx, f.bufs[f.turn])
	if err != nil {
		return nil, err
	}
	kresp, err := kwire.Decode(f.last, resp.Body)
	if err != nil {
		return nil, err
	}
	answer := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, err
	}
	var runs [][]byte
	for _, t := range answer.Topics {
		for _, rp := range t.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return nil, fmt.Errorf("partition %d: %w", rp.Partition, err)
			}
			p := f.part(rp.Partition)
			if p == nil {
				return nil, fmt.Errorf("%s: %w: an answer for partition %d, which was not asked for", f.conn.Addr(), kwire.ErrFrame, rp.Partition)
			}
			run, err := p.advance(rp.RecordBatches)
			if err != nil {
				return nil, fmt.Errorf("partition %d: %w", rp.Partition, err)
			}
			if len(run) > 0 {
				runs = append(runs, run)
			}
		}
	}
	return runs, f.ask(ctx)
}

func (f *fetcher) part(id int32) *fetched {
	for i := range f.parts {
		if f.parts[i].partition == id {
			return &f.parts[i]
		}
	}
	return nil
}

// advance moves next past the whole batches at the start of b, and returns them; Kafka may cut the last one off.
func (p *fetched) advance(b []byte) ([]byte, error) {
	at := 0
	for {
		one := nextBatch(b[at:])
		if one == nil {
			return b[:at], nil
		}
		if len(one) < recordbatch.HeaderBytes {
			return nil, recordbatch.ErrLength
		}
		head := recordbatch.Head(one)
		end := head.Base + int64(head.LastOffsetDelta) + 1
		if end <= p.next {
			return nil, fmt.Errorf("a batch that ends at offset %d where %d was asked for", end, p.next)
		}
		p.next = end
		at += len(one)
	}
}

// nextBatch is the batch at the start of b, nil when it is not there as a whole.
func nextBatch(b []byte) []byte {
	if len(b) < 12 {
		return nil
	}
	n := 12 + int64(binary.BigEndian.Uint32(b[8:]))
	if n > int64(len(b)) {
		return nil
	}
	return b[:n]
}
