package pipeline

import (
	"context"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/internal/planted"
	"tidemark/journal"
	"tidemark/qos"
)

// responder is the respond stage: it holds the pending callbacks, requests that were serialized and not yet answered, and answers each when its own watermarks have passed its end.
//
// In: requests from the write goroutine, and every move of a watermark. Out: Owner.Answer, exactly once for each request, and one Wake a turn for each connection.
// Invariant: FIFO for each set of marks, so that looking at a queue's head is enough; an end that is lower than the one before it (a retry's original) waits
// for that one, which is late by one turn at most and never early. Deadlines are swept on a coarse tick, not by a timer for each request.
// It has a goroutine; when nothing more waits for a flush, the flush goroutine runs the turn itself, which saves a wake-up (ADR 10).
type responder struct {
	p      *Pipeline
	wake   signal
	labels context.Context // of a goroutine that runs it

	running sync.Mutex // held during step and sweep

	mu       sync.Mutex
	incoming []*Request // guarded by mu
	refused  []*Request // guarded by mu; Err is set
	pending  atomic.Int64
	tickAt   atomic.Int64 // when deadlines are looked at next; 0: not at all. Respond goroutine writes
	watching atomic.Bool  // the admission queue's deadlines are looked at too: its taker is held up

	// guarded by running
	queues   [1 << 5]queue // by marks
	spare    []*Request
	spare2   []*Request
	dirty    []Waker
	turn     turn // answers of this turn, by level
	times    timer
	answered int64         // requests answered in this turn
	deadline time.Duration // no pending deadline is earlier; 0: none
}

// queue is a FIFO of callbacks.
type queue struct {
	reqs []*Request
	head int
}

// deadlineTick is how late a deadline may be noticed.
const deadlineTick = 10 * time.Millisecond

// add takes requests over from the write goroutine, before written moves past them. It returns true if the respond goroutine has to look at them before the next flush: some can be
// answered without one, or have a deadline that it is not awake for, or there is no next flush: the disk failed while the write goroutine had them.
func (s *responder) add(reqs []*Request) bool {
	now := false
	s.pending.Add(int64(len(reqs)))
	flushed, tickAt := s.p.flushed.Load(), time.Duration(s.tickAt.Load())
	for _, r := range reqs {
		now = now || r.Marks&(qos.Flushed|qos.Committed|qos.Applied) == 0 || r.end <= flushed ||
			r.Deadline > 0 && (tickAt == 0 || r.Deadline < tickAt)
	}
	s.mu.Lock()
	s.incoming = append(s.incoming, reqs...)
	s.mu.Unlock()
	return now || s.p.failed.Load() // looked at last: who fails later wakes the respond goroutine, and it finds them
}

// refuse answers requests with err: nothing of them was written, or nothing more can be said of them.
func (s *responder) refuse(reqs []*Request, err error) {
	if len(reqs) == 0 {
		return
	}
	for _, r := range reqs {
		r.Err = err
	}
	s.pending.Add(int64(len(reqs)))
	s.mu.Lock()
	s.refused = append(s.refused, reqs...)
	s.mu.Unlock()
	s.wake.set()
}

// watchAdmission makes the next sweeps look at the admission queue: the write goroutine is held up.
func (s *responder) watchAdmission() {
	if !s.watching.Swap(true) {
		s.wake.set()
	}
}

// reached is the lowest of the watermarks in marks.
func (s *responder) reached(marks qos.Marks) journal.Offset {
	p := s.p
	at := p.written.Load()
	if planted.Is(planted.AckBeforeSync) {
		return at
	}
	if marks&qos.Flushed != 0 {
		at = min(at, p.flushed.Load())
	}
	if marks&qos.Replicated != 0 {
		at = min(at, p.replicated.Load())
	}
	if marks&qos.Committed != 0 {
		at = min(at, p.committed.Load())
	}
	if marks&qos.Applied != 0 {
		at = min(at, p.applied.Load())
	}
	return at
}

// step answers everything that can be answered now.
func (s *responder) step() {
	failed := s.p.failed.Load()
	if failed { // the write goroutine takes no more
		s.refuse(s.p.admit.takeAll(nil), ErrFailed)
	}
	s.mu.Lock()
	in, refused := s.incoming, s.refused
	s.incoming, s.refused = s.spare[:0], s.spare2[:0]
	s.mu.Unlock()
	for _, r := range in {
		q := &s.queues[r.Marks]
		q.reqs = append(q.reqs, r)
		if r.Deadline > 0 && (s.deadline == 0 || r.Deadline < s.deadline) {
			s.deadline = r.Deadline
		}
	}
	for _, r := range refused {
		s.answer(r)
	}
	clear(in)
	clear(refused)
	s.spare, s.spare2 = in, refused
	for marks := range s.queues {
		q := &s.queues[marks]
		if q.head == len(q.reqs) {
			continue
		}
		reached := s.reached(qos.Marks(marks))
		for q.head < len(q.reqs) {
			r := q.reqs[q.head]
			if failed {
				r.Err = ErrFailed
			} else if r.end > reached {
				break
			}
			q.reqs[q.head] = nil
			q.head++
			s.answer(r)
		}
		q.compact()
	}
	s.endTurn()
}

func (q *queue) compact() {
	switch {
	case q.head == len(q.reqs):
		q.reqs, q.head = q.reqs[:0], 0
	case q.head > 1024 && q.head > len(q.reqs)/2:
		n := copy(q.reqs, q.reqs[q.head:])
		clear(q.reqs[n:])
		q.reqs, q.head = q.reqs[:n], 0
	}
}

func (s *responder) answer(r *Request) {
	if r.Err != nil {
		s.p.commands.forget(r)
	} else {
		s.times.answered(r)
	}
	s.p.stats.answered(&s.turn, r)
	s.answered++
	if w := r.Owner.Answer(r); w != nil {
		s.dirty = append(s.dirty, w)
	}
	if planted.Is(planted.AnsweredTwice) && r.end%64 == 0 {
		r.Owner.Answer(r)
	}
}

// endTurn wakes whoever asked for it.
func (s *responder) endTurn() {
	s.pending.Add(-s.answered)
	s.answered = 0
	s.p.stats.endTurn(&s.turn)
	s.times.endRun()
	for i, o := range s.dirty {
		o.Wake()
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
}

// sweep answers what has passed its deadline, in the admission queue too if that is watched.
func (s *responder) sweep(now time.Duration, watched bool) {
	if watched {
		s.refuse(s.p.admit.expire(now), ErrExpired)
	}
	if s.deadline == 0 || s.deadline > now {
		return
	}
	s.deadline = 0
	for marks := range s.queues {
		q := &s.queues[marks]
		keep := q.reqs[:0]
		for _, r := range q.reqs[q.head:] {
			if r.Deadline > 0 && r.Deadline <= now {
				r.Err = ErrTimedOut
				s.answer(r)
				continue
			}
			if r.Deadline > 0 && (s.deadline == 0 || r.Deadline < s.deadline) {
				s.deadline = r.Deadline
			}
			keep = append(keep, r)
		}
		clear(q.reqs[len(keep):])
		q.reqs, q.head = keep, 0
	}
	s.endTurn()
}

// run answers and sweeps until stop is closed; then what is left is failed with ErrClosed.
func (s *responder) run(stop <-chan struct{}) {
	tick := time.NewTimer(time.Hour)
	tick.Stop()
	defer tick.Stop()
	for {
		s.running.Lock()
		s.step()
		deadline := s.deadline
		s.running.Unlock()
		now := s.p.Now()
		var due time.Duration
		if s.watching.Load() {
			due = now + deadlineTick
		} else if deadline > 0 {
			due = max(deadline, now+deadlineTick)
		}
		if armed := time.Duration(s.tickAt.Load()); due > 0 && (armed == 0 || due < armed) {
			tick.Reset(due - now)
			s.tickAt.Store(int64(due))
		}
		select {
		case <-s.wake:
		case <-tick.C:
			s.tickAt.Store(0)
			// Lowered first and raised again if the write goroutine is still held up: if it is not, it raises the flag itself when it is next.
			watched := s.watching.Swap(false)
			if s.p.write.blocked.Load() {
				s.watching.Store(true)
			}
			s.running.Lock()
			s.sweep(s.p.Now(), watched)
			s.running.Unlock()
		case <-stop:
			s.running.Lock()
			s.step()
			s.abandon()
			s.running.Unlock()
			return
		}
	}
}

// onFlush runs a turn on the flush goroutine. If a turn is under way, the respond goroutine looks again behind it.
func (s *responder) onFlush() {
	if !s.running.TryLock() {
		s.wake.set()
		return
	}
	pprof.SetGoroutineLabels(s.labels)
	s.step()
	pprof.SetGoroutineLabels(s.p.flush.labels)
	unarmed := s.deadline > 0 && s.tickAt.Load() == 0
	s.running.Unlock()
	if unarmed { // the deadline of a request that this turn was the first to see: the tick is the respond goroutine's
		s.wake.set()
	}
}

// abandon answers whatever is still pending at the end.
func (s *responder) abandon() {
	for marks := range s.queues {
		q := &s.queues[marks]
		for _, r := range q.reqs[q.head:] {
			r.Err = ErrClosed
			s.answer(r)
		}
		q.reqs, q.head = nil, 0
	}
	s.endTurn()
}
