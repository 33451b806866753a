package main

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"tidemark/internal/vfs"
	"tidemark/pipeline"
	"tidemark/qos"
)

// slowDisk stalls the disk for 10 ms to 5 s under load. RECEIVE goes on until too much is unflushed; then submitters are told to stop, and what is held stays bounded; deadlines are kept; and when the disk comes back
// everything is answered, once, without another push.
func slowDisk(*flag.FlagSet) func(*run) error {
	return func(r *run) error {
		stalls := []time.Duration{10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond}
		rounds := 20
		if r.long {
			rounds = 200
		}
		for range rounds {
			for _, stall := range stalls {
				r.check(guard(func() error { return r.stalled(stall) }), "a stall of %v", stall)
			}
		}
		for _, stall := range []time.Duration{time.Second, 5 * time.Second} {
			r.check(guard(func() error { return r.stalled(stall) }), "a stall of %v", stall)
		}
		return nil
	}
}

const (
	slowCache     = 1 << 20
	slowAdmission = 256 << 10
	slowDirty     = 128 << 10
	// slowGrace is what a busy machine may add to a deadline: the pipeline notices one within 10 ms.
	slowGrace = 200 * time.Millisecond
	// slowAnswer is how soon everything is answered once the disk is back.
	slowAnswer = 5 * time.Second
)

func (r *run) stalled(stall time.Duration) (err error) {
	gate := vfs.NewGate(".journal")
	faulty := vfs.NewFaulty(vfs.NewMem(), gate.Hook)
	opts := torturedOptions(faulty)
	opts.SegmentBytes, opts.CacheBytes, opts.RetentionBytes = slowCache, slowCache, 4*slowCache
	opts.AdmissionBytes, opts.DirtyBytes = slowAdmission, slowDirty
	p, err := pipeline.Open(opts)
	if err != nil {
		return err
	}
	t := &told{}
	for i := range t.parts {
		t.parts[i].producer.ID = -1
	}
	defer func() {
		gate.Release()
		err = errors.Join(err, p.Close())
	}()
	parts, err := t.createTopic(p)
	if err != nil {
		return err
	}
	gate.Hold()
	begin := time.Now()
	var reqs []*toldRequest
	send := func(level qos.Level, deadline time.Duration) (*toldRequest, error) {
		q, err := t.submitBy(p, parts[0], t.fresh(0, 1), level, deadline)
		if err == nil {
			reqs = append(reqs, q)
		}
		return q, err
	}
	// RECEIVE waits for no disk.
	first, err := send(qos.Receive, 0)
	if err != nil {
		return err
	}
	if err := within(first, slowGrace); err != nil {
		return fmt.Errorf("receive during the stall: %w", err)
	}
	// One request that cannot be answered in time, and one that has the time.
	late, err := send(qos.Persistence, stall/2)
	if err != nil {
		return err
	}
	if _, err := send(qos.All, stall+time.Minute); err != nil {
		return err
	}
	// A flood, until it is told to stop.
	resumed := make(chan struct{}, 1)
	resume := &pipeline.Resume{Wake: func() { resumed <- struct{}{} }}
	var flood int64
	for flood < 16<<20 && !p.Full("", resume) {
		q, err := send(qos.Receive, 0)
		if err != nil {
			break
		}
		flood += int64(q.Bytes)
	}
	const bound = slowCache/2 + 2*slowAdmission + slowDirty
	if flood > bound+64<<10 {
		return fmt.Errorf("%d bytes were taken in during the stall, the bound is %d", flood, bound)
	}
	r.count("bytes taken in during stalls", flood)
	r.count("unanswered requests during stalls", int64(t.now().pending))
	if rest := stall - time.Since(begin); rest > 0 {
		time.Sleep(rest) // the stall itself
	}
	if stall > 2*slowGrace {
		if err := within(late, 0); err != nil {
			return fmt.Errorf("a request whose deadline was half the stall: %w", err)
		}
		if !errors.Is(late.Err, pipeline.ErrTimedOut) && !errors.Is(late.Err, pipeline.ErrExpired) {
			return fmt.Errorf("a request whose deadline was half the stall is answered with %w", late.Err)
		}
	}
	gate.Release()
	end := time.Now().Add(slowAnswer)
	for i, q := range reqs {
		if err := within(q, time.Until(end)); err != nil {
			return fmt.Errorf("request %d of %d, at %s, after the stall: %w", i, len(reqs), q.Level, err)
		}
	}
	if now := t.now(); now.pending != 0 || t.twice != 0 {
		return fmt.Errorf("%d unanswered, %d answers too many", now.pending, t.twice)
	}
	r.count("stalls", 1)
	return nil
}

// within waits for a request's answer.
func within(q *toldRequest, d time.Duration) error {
	timer := time.NewTimer(max(d, time.Millisecond))
	defer timer.Stop()
	select {
	case <-q.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("no answer within %v", d)
	}
}
