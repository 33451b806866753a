package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/scripts/node"
	"tidemark/server/kafka"
)

// groups tortures consumer groups: in memory, the power fails while offsets are committed; then a real server is killed, and members with it or alone, while they share what a producer writes. A committed offset that was acknowledged is there
// afterwards, and no acknowledged record is missed.
func groups(f *flag.FlagSet) func(*run) error {
	cuts := f.Int("cuts", 0, "power failures in memory; default 500, long 50,000")
	rounds := f.Int("rounds", 0, "rounds with a real server, -1 for none; default 15, long 500")
	return func(r *run) error {
		pick(r, cuts, 500, 50_000)
		pick(r, rounds, 15, 500)
		for life := uint64(0); *cuts > 0 && r.failures() <= maxSaid; life++ {
			n := min(*cuts, cutsALife)
			*cuts -= n
			if err := guard(func() error { return commitLife(r, life, n) }); err != nil {
				r.fail("life %d: %v", life, err)
			}
		}
		if *rounds < 0 {
			return nil
		}
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		return memberRounds(r, binary, *rounds)
	}
}

const (
	cutsALife  = 100
	committers = 6
)

// committer commits one offset of its own group after another.
type committer struct {
	group       string
	sent, acked atomic.Int64
}

// commitLife has committers at work on a disk in memory that takes its time, and looks at what a power failure would leave, n times.
func commitLife(r *run, life uint64, n int) error {
	rng := r.rng(1<<40 + life)
	mem := vfs.NewMem()
	var slow sync.Mutex
	sleep := rand.New(rand.NewPCG(rng.Uint64(), life))
	disk := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpWriteSync && strings.HasSuffix(op.Name, ".journal") {
			slow.Lock()
			d := time.Duration(sleep.IntN(400)) * time.Microsecond
			slow.Unlock()
			time.Sleep(d) // a disk takes its time
		}
		return nil
	})
	p, err := pipeline.Open(torturedOptions(disk))
	if err != nil {
		return err
	}
	broker := kafka.New(kafka.Config{Acks: qos.DefaultAcks, MaxMessageBytes: 1 << 10, RequestMaxBytes: 1 << 12, FetchMemoryBytes: 1, CommandTimeout: clientTimeout,
		Group: kafka.GroupConfig{MaxSession: time.Hour, Members: 10, MemoryBytes: 1 << 20}}, p)
	ctx, cancel := context.WithCancel(context.Background())
	id := catalog.TopicID{1}
	if res := p.Command(ctx, catalog.Command{CreateTopic: &catalog.CreateTopic{Name: toldTopic, ID: id, Partitions: 1}}, nil, clientTimeout); res.Err != nil {
		cancel()
		return errors.Join(res.Err, p.Close())
	}
	all := make([]*committer, committers)
	var work sync.WaitGroup
	failed := make(chan error, committers)
	for i := range all {
		c := &committer{group: fmt.Sprintf("g%d", i)}
		all[i] = c
		work.Go(func() {
			if err := c.work(ctx, broker); err != nil {
				failed <- fmt.Errorf("%s: %w", c.group, err)
			}
		})
	}
	for cut := 0; cut < n && r.failures() <= maxSaid; {
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Microsecond) // when to strike
		var acked [committers]int64
		flying := 0
		for i, c := range all {
			acked[i] = c.acked.Load()
			if c.sent.Load() > acked[i] {
				flying++
			}
		}
		after := mem.Crash(rng)
		if flying == 0 {
			continue
		}
		cut++
		r.count("commits in flight at power failures in memory", int64(flying))
		r.check(commitsAfter(after, id, all, acked), "life %d, power failure %d", life, cut)
	}
	cancel()
	work.Wait()
	broker.Close()
	err = p.Close()
	select {
	case ferr := <-failed:
		err = errors.Join(ferr, err)
	default:
	}
	return err
}

// work commits until ctx ends. An answer that comes then may be that it ended.
func (c *committer) work(ctx context.Context, broker *kafka.Broker) error {
	for n := int64(1); ctx.Err() == nil; n++ {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Offset = n
		req := &kmsg.OffsetCommitRequest{Version: 8, Group: c.group, Generation: -1, Topics: []kmsg.OffsetCommitRequestTopic{{Topic: toldTopic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{rp}}}}
		c.sent.Store(n)
		resp, _, err := broker.Handle(ctx, &kafka.Client{ID: c.group, Turn: c.group}, kafka.Header{Key: req.Key(), Version: req.Version, Body: req.AppendTo(nil)})
		if err != nil {
			return err
		}
		if code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
			if ctx.Err() == nil {
				return fmt.Errorf("offset %d: error %d", n, code)
			}
			break
		}
		c.acked.Store(n)
	}
	return nil
}

// commitsAfter compares what a disk has with what was acknowledged before it was left to itself, and with what was ever sent.
func commitsAfter(disk vfs.FS, id catalog.TopicID, all []*committer, acked [committers]int64) error {
	p, err := pipeline.Open(torturedOptions(disk))
	if err != nil {
		return fmt.Errorf("it does not start: %w", err)
	}
	for i, c := range all {
		at, _ := p.Groups().Of(c.group, id, 0)
		if sent := c.sent.Load(); at.Offset < acked[i] || at.Offset > sent {
			err = errors.Join(err, fmt.Errorf("group %s stands at %d: %d was acknowledged, %d sent", c.group, at.Offset, acked[i], sent))
		}
	}
	return errors.Join(err, p.Close())
}
