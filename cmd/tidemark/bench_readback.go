package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tidemark/internal/kwire"
)

// Reading back: each record begins with a stamp, the time when it was due, and a consumer looks at it when it has the record.

// stampBytes is the size of a stamp: ns since the load began, and one, so that it is not 0.
const stampBytes = 8

// readBack is a consumer of one leader's partitions.
type readBack struct {
	load    *load
	conn    *kwire.Conn
	fetch   fetcher
	latency *hdrhistogram.Histogram // µs; its goroutine's until the load has ended
}

// readBack opens a consumer for each leader, at the end of each partition.
func (l *load) readBack(ctx context.Context, c *BenchLoad, targets []benchTarget) error {
	admin, err := c.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	ends, err := listedOffsets(admin.ListEndOffsets(ctx, c.Topic))
	if err != nil {
		return topicError(c.Topic, err)
	}
	byLeader, err := partitionsByLeader(targets, func(partition int32) (fetched, error) {
		end, ok := ends.Lookup(c.Topic, partition)
		if !ok {
			return fetched{}, topicError(c.Topic, fmt.Errorf("partition %d: the broker gave no end offset", partition))
		}
		return fetched{partition: partition, next: end.Offset, end: -1}, nil
	})
	if err != nil {
		return err
	}
	for addr, parts := range byLeader {
		conn, err := c.dialOne(ctx, addr)
		if err != nil {
			return err
		}
		l.back = append(l.back, &readBack{
			load: l, conn: conn, latency: newLatencyHistogram(3),
			fetch: fetcher{conn: conn, topic: c.Topic, parts: parts, maxBytes: 1 << 20, maxWait: time.Second},
		})
	}
	return nil
}

// partitionsByLeader sorts partitions by where their leaders listen.
func partitionsByLeader(targets []benchTarget, from func(partition int32) (fetched, error)) (map[string][]fetched, error) {
	byLeader := make(map[string][]fetched)
	for _, t := range targets {
		p, err := from(t.partition)
		if err != nil {
			return nil, err
		}
		byLeader[t.addr] = append(byLeader[t.addr], p)
	}
	return byLeader, nil
}

// reading is the consumers at work.
type reading struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func (l *load) startReadBack(failed chan<- error) *reading {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reading{cancel: cancel}
	for _, b := range l.back {
		r.ended.Go(func() {
			if err := b.run(ctx); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	return r
}

// readBackDrain is how long the consumers go on behind the last acknowledgement.
const readBackDrain = time.Second

// stop lets the consumers have what was acknowledged last, and ends them.
func (r *reading) stop() {
	last := time.AfterFunc(readBackDrain, r.cancel)
	r.ended.Wait()
	last.Stop()
	r.cancel()
}

func (b *readBack) run(ctx context.Context) error {
	if err := b.fetch.ask(ctx); err != nil {
		return err
	}
	for {
		runs, err := b.fetch.take(ctx)
		if err != nil {
			return err
		}
		now := b.load.now()
		for _, run := range runs {
			batches, err := kwire.ParseBatches(run)
			if err != nil {
				return err
			}
			for i := range batches {
				for _, r := range batches[i].Unpacked {
					b.got(r.Value, now)
				}
			}
		}
	}
}

// got takes one record. Another producer's have no stamp that fits; one that does by chance is one of many.
func (b *readBack) got(value []byte, now int64) {
	if len(value) < stampBytes {
		return
	}
	due := int64(binary.BigEndian.Uint64(value)) - 1
	if due < 0 || due > now || !b.load.measured(due) {
		return
	}
	_ = b.latency.RecordValue(max((now-due)/1e3, 1)) // past ten minutes: not in this load's time
}

// stamp puts the time when the next request is due into its record.
func (lc *loadConn) stamp(due int64) {
	if lc.stampAt == 0 {
		return
	}
	frame := lc.tape[lc.slot*lc.frame:][:lc.frame]
	binary.BigEndian.PutUint64(frame[lc.stampAt:], uint64(due+1))
	kwire.Seal(frame[lc.batchAt:lc.batchEnd])
}

// consumed adds the consumers' figures up.
func (l *load) consumed() *hdrhistogram.Histogram {
	if len(l.back) == 0 {
		return nil
	}
	all := l.back[0].latency
	for _, b := range l.back[1:] {
		all.Merge(b.latency)
	}
	return all
}
