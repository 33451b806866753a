package pipeline

import (
	"sync"
	"sync/atomic"
	"time"
)

// admission is the queue between the IO goroutines and the write goroutine.
//
// In: Submit, from any goroutine. Out: take, by the write goroutine. Invariant: requests of one submitter leave in the order in which they came. The queue is bounded in bytes: past the budget, Full tells the
// submitters to stop reading; past twice the budget a request is refused, since those that are read already must go somewhere.
type admission struct {
	budget int64                // bytes; immutable
	now    func() time.Duration // immutable

	mu      sync.Mutex
	queue   []*Request // guarded by mu; [head:] is waiting
	head    int
	closed  error         // guarded by mu; new requests are refused with it
	drained []func()      // guarded by mu: told once when the queue has room again
	bytes   atomic.Int64  // of requests in the queue; changed under mu
	wake    signal        // of the write goroutine
	next    time.Duration // guarded by mu: no deadline in the queue is earlier; 0: none has one
}

func newAdmission(budget int64, now func() time.Duration, wake signal) *admission {
	return &admission{budget: budget, now: now, wake: wake}
}

// push queues requests, all of them or none; it wakes the write goroutine once.
func (a *admission) push(reqs []*Request) error {
	var n int64
	now := a.now()
	for _, r := range reqs {
		n += int64(r.Bytes)
		r.Times.submitted = now
		r.body = r.bodyBytes()
	}
	a.mu.Lock()
	err := a.closed
	if err == nil && a.bytes.Load()+n > 2*a.budget && a.head < len(a.queue) {
		err = ErrBusy
	}
	if err != nil {
		a.mu.Unlock()
		return err
	}
	a.queue = append(a.queue, reqs...)
	a.bytes.Add(n)
	for _, r := range reqs {
		if r.Deadline > 0 && (a.next == 0 || r.Deadline < a.next) {
			a.next = r.Deadline
		}
	}
	a.mu.Unlock()
	a.wake.set()
	return nil
}

// full says that submitters should stop reading. If so, resume is called once when there is room again.
func (a *admission) full(resume func()) bool {
	if a.bytes.Load() < a.budget {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bytes.Load() < a.budget || a.closed != nil {
		return false
	}
	a.drained = append(a.drained, resume)
	return true
}

// peek returns the body bytes of the requests that take would return.
func (a *admission) peek(target, limit int) (body, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.queue[a.head:] {
		b := r.body
		if n > 0 && (body >= target || body+b > limit) {
			break
		}
		body += b
		n++
	}
	return body, n
}

// take moves requests to dst: at most n, and no more than body bytes of records, but the first in any case.
func (a *admission) take(dst []*Request, body, n int) []*Request {
	a.mu.Lock()
	for len(dst) < n && a.head < len(a.queue) {
		r := a.queue[a.head]
		b := r.body
		if len(dst) > 0 && b > body {
			break
		}
		body -= b
		dst = append(dst, r)
		a.queue[a.head] = nil
		a.head++
		a.bytes.Add(-int64(r.Bytes))
	}
	if a.head == len(a.queue) {
		a.queue, a.head, a.next = a.queue[:0], 0, 0
	} else if a.head > 1024 && a.head > len(a.queue)/2 {
		a.queue = append(a.queue[:0], a.queue[a.head:]...)
		a.head = 0
	}
	resume := a.takeDrained()
	a.mu.Unlock()
	for _, fn := range resume {
		fn()
	}
	return dst
}

// takeDrained returns who is to be told that there is room: at half the budget, so that readers do not stop and go with every request.
func (a *admission) takeDrained() []func() {
	if len(a.drained) == 0 || (a.bytes.Load() > a.budget/2 && a.closed == nil) {
		return nil
	}
	fns := a.drained
	a.drained = nil
	return fns
}

// expire takes out the requests whose deadline has passed: while the write goroutine is held up, nobody else would answer them.
func (a *admission) expire(now time.Duration) []*Request {
	a.mu.Lock()
	if a.next == 0 || a.next > now {
		a.mu.Unlock()
		return nil
	}
	var late []*Request
	keep := a.queue[:0]
	a.next = 0
	for _, r := range a.queue[a.head:] {
		if r.Deadline > 0 && r.Deadline <= now {
			late = append(late, r)
			a.bytes.Add(-int64(r.Bytes))
			continue
		}
		keep = append(keep, r)
		if r.Deadline > 0 && (a.next == 0 || r.Deadline < a.next) {
			a.next = r.Deadline
		}
	}
	clear(a.queue[len(keep):])
	a.queue, a.head = keep, 0
	resume := a.takeDrained()
	a.mu.Unlock()
	for _, fn := range resume {
		fn()
	}
	return late
}

// close refuses what comes from now on; what is queued stays.
func (a *admission) close(err error) {
	a.mu.Lock()
	if a.closed == nil {
		a.closed = err
	}
	resume := a.takeDrained()
	a.mu.Unlock()
	for _, fn := range resume {
		fn()
	}
	a.wake.set()
}

func (a *admission) empty() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head == len(a.queue)
}
