package pipeline

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// admission is the queue between the IO goroutines and the write goroutine: one for each client that has requests waiting, served in turns.
//
// In: push, from any goroutine. Out: peek or peekSmall, and take, by the write stage. Invariant: requests of one client leave in the order in which they came. What leaves is chosen by deficit round robin (Shreedhar and Varghese, 1995):
// in each round a client may send a quantum of bytes for each of its weight, and what it could not use of it in one round, since its next request is larger, it has in the next. So a client with little to send waits for what the others may send in a round, and not
// for all that they have queued.
//
// The queue is bounded in bytes: past the budget, Full tells the submitters to stop reading, those of clients first that have more than their share of it; past twice the budget a request is refused, since those that are read
// already must go somewhere.
type admission struct {
	budget int64                // bytes; immutable
	now    func() time.Duration // immutable
	wake   signal               // of the write goroutine

	waiting atomic.Int64 // requests in the queue; changed under mu
	bytes   atomic.Int64 // of them; changed under mu
	lent    atomic.Int64 // requests in the queue whose payloads are lent; changed under mu

	mu       sync.Mutex
	clients  map[string]*clientQueue // those with requests waiting; guarded by mu
	ring     []*clientQueue          // the same, in the order of their turns; guarded by mu
	weights  int64                   // of the ring, together; guarded by mu
	at       int                     // whose turn it is; guarded by mu
	chosen   []*Request              // what leaves next, in order; guarded by mu
	body     int                     // body bytes of chosen; guarded by mu
	spare    []*clientQueue          // to be used again; guarded by mu
	closed   error                   // guarded by mu; new requests are refused with it
	paused   []*Resume               // guarded by mu: told once when the queue has room again, the first first
	earliest time.Duration           // guarded by mu: no deadline in the queue is earlier; 0: none has one
}

// clientQueue is what one client has waiting.
type clientQueue struct {
	client  string
	reqs    []*Request // [head:] is waiting
	head    int
	bytes   int64 // of them
	weight  int   // how many quanta it has in a round
	deficit int   // body bytes that it may still send in this round
}

const (
	// admissionQuantum is what a client of weight 1 may send in a round, body bytes.
	admissionQuantum = 64 << 10
	// keptQueues is how many empty queues are kept for use again, of at most keptQueueLen requests.
	keptQueues   = 64
	keptQueueLen = 4096
)

func newAdmission(budget int64, now func() time.Duration, wake signal) *admission {
	return &admission{budget: budget, now: now, wake: wake, clients: make(map[string]*clientQueue)}
}

// turn is whose turn a request takes; those without labels share one.
func (r *Request) turn() string {
	if r.Labels == nil {
		return ""
	}
	return r.Labels.Turn
}

// Resume tells a submitter that stopped reading to look again. A submitter has one of its own.
type Resume struct {
	Wake func() // must not block

	waiting atomic.Bool // it is among the paused
}

// push queues requests, all of them or none; lent says that their payloads are not the queue's to keep. Who calls it wakes the write goroutine.
func (a *admission) push(reqs []*Request, lent bool) error {
	var n int64
	now := a.now()
	for _, r := range reqs {
		n += int64(r.Bytes)
		r.Times.submitted = now
		r.body = r.bodyBytes()
	}
	a.mu.Lock()
	err := a.closed
	if err == nil && a.bytes.Load()+n > 2*a.budget && a.waiting.Load() > 0 {
		err = ErrBusy
	}
	if err != nil {
		a.mu.Unlock()
		return err
	}
	var q *clientQueue
	for _, r := range reqs {
		if q == nil || q.client != r.turn() {
			q = a.queueOf(r)
		}
		if r.lent = lent; lent {
			a.lent.Add(1)
		}
		q.reqs = append(q.reqs, r)
		q.bytes += int64(r.Bytes)
		if r.Deadline > 0 && (a.earliest == 0 || r.Deadline < a.earliest) {
			a.earliest = r.Deadline
		}
	}
	a.bytes.Add(n)
	a.waiting.Add(int64(len(reqs)))
	a.mu.Unlock()
	return nil
}

// keepLent calls keep with those of reqs that were lent and still wait.
func (a *admission) keepLent(reqs []*Request, keep func(*Request)) {
	if a.lent.Load() == 0 { // others may be at work on them by now
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range reqs {
		if a.unlend(r) {
			keep(r)
		}
	}
}

// unlend ends a loan, and says whether there was one.
func (a *admission) unlend(r *Request) bool {
	if !r.lent {
		return false
	}
	r.lent = false
	a.lent.Add(-1)
	return true
}

// queueOf finds the queue of a request's client, or gives it one, whose turn is the last.
func (a *admission) queueOf(r *Request) *clientQueue {
	client, weight := r.turn(), 0 // a command says nothing of it
	if r.Labels != nil {
		weight = r.Labels.Weight
	}
	q := a.clients[client]
	if q != nil {
		if weight > 0 { // it may change at any time
			a.weights += int64(weight - q.weight)
			q.weight = weight
		}
		return q
	}
	weight = max(weight, 1)
	if last := len(a.spare) - 1; last >= 0 {
		q, a.spare = a.spare[last], a.spare[:last]
	} else {
		q = new(clientQueue)
	}
	q.client, q.weight, q.deficit = client, weight, weight*admissionQuantum
	a.weights += int64(weight)
	a.clients[client] = q
	a.ring = slices.Insert(a.ring, a.at, q) // behind all others
	if a.at++; a.at == len(a.ring) {
		a.at = 0
	}
	return q
}

// leave takes an empty queue, the i-th of the ring, out.
func (a *admission) leave(i int) {
	q := a.ring[i]
	delete(a.clients, q.client)
	a.weights -= int64(q.weight)
	a.ring = slices.Delete(a.ring, i, i+1)
	if a.at > i {
		a.at--
	}
	if a.at == len(a.ring) {
		a.at = 0
	}
	if len(a.spare) < keptQueues && cap(q.reqs) <= keptQueueLen {
		*q = clientQueue{reqs: q.reqs[:0]}
		a.spare = append(a.spare, q)
	}
}

// full says that the submitters of a client should stop reading: the queue has used up its budget, and the client its share. If so, resume is woken once when there is room again.
func (a *admission) full(client string, resume *Resume) bool {
	if a.bytes.Load() < a.budget {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bytes.Load() < a.budget || a.closed != nil {
		return false
	}
	mine, share := int64(0), a.budget
	if q := a.clients[client]; q != nil {
		mine, share = q.bytes, a.budget*int64(q.weight)/a.weights
	}
	if mine <= share && a.bytes.Load() < a.budget+a.budget/2 {
		return false
	}
	if resume.waiting.CompareAndSwap(false, true) {
		a.paused = append(a.paused, resume)
	}
	return true
}

// peek chooses what leaves next, until it has target body bytes, and at most limit of them but for the first request, and returns its body bytes and number.
func (a *admission) peek(target, limit int) (body, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.ring) > 0 && (len(a.chosen) == 0 || a.body < target) {
		q := a.ring[a.at]
		r := q.reqs[q.head]
		if len(a.chosen) > 0 && a.body+r.body > limit {
			break
		}
		if q.deficit < r.body && len(a.ring) > 1 { // the next one's turn
			q.deficit += q.weight * admissionQuantum
			a.at = (a.at + 1) % len(a.ring)
			continue
		}
		a.choose(a.at)
	}
	return a.body, len(a.chosen)
}

// peekSmall chooses one request of each client, if its first has at most each body bytes, until it has target: what may leave while larger ones are held up. It returns 0 if something was chosen before.
func (a *admission) peekSmall(each, target int) (body, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.chosen) > 0 {
		return 0, 0
	}
	i := a.at
	for range a.ring {
		if a.body >= target {
			break
		}
		clients := len(a.ring)
		if q := a.ring[i]; q.reqs[q.head].body <= each {
			a.choose(i)
		}
		if len(a.ring) == clients { // else the next one has come to i
			i++
		}
		if i >= len(a.ring) {
			i = 0
		}
	}
	return a.body, len(a.chosen)
}

// choose takes the first request of the i-th queue of the ring.
func (a *admission) choose(i int) {
	q := a.ring[i]
	r := q.reqs[q.head]
	q.deficit = max(q.deficit-r.body, 0)
	a.chosen = append(a.chosen, r)
	a.body += r.body
	q.reqs[q.head] = nil
	q.head++
	q.bytes -= int64(r.Bytes)
	switch {
	case q.head == len(q.reqs):
		a.leave(i)
	case q.head > 1024 && q.head > len(q.reqs)/2:
		n := copy(q.reqs, q.reqs[q.head:])
		clear(q.reqs[n:])
		q.reqs, q.head = q.reqs[:n], 0
	}
}

// take moves what peek chose, less what has expired since, to dst.
func (a *admission) take(dst []*Request) []*Request {
	a.mu.Lock()
	dst = a.takeChosen(dst)
	resumed := a.takePaused()
	a.mu.Unlock()
	for _, r := range resumed {
		r.Wake()
	}
	return dst
}

// takeAll moves everything to dst.
func (a *admission) takeAll(dst []*Request) []*Request {
	a.mu.Lock()
	dst = a.takeChosen(dst)
	for len(a.ring) > 0 {
		q := a.ring[0]
		for _, r := range q.reqs[q.head:] {
			dst = a.took(dst, r)
		}
		clear(q.reqs)
		a.leave(0)
	}
	resumed := a.takePaused()
	a.mu.Unlock()
	for _, r := range resumed {
		r.Wake()
	}
	return dst
}

func (a *admission) takeChosen(dst []*Request) []*Request {
	var bytes int64
	for _, r := range a.chosen {
		a.unlend(r)
		bytes += int64(r.Bytes)
	}
	a.bytes.Add(-bytes)
	a.waiting.Add(-int64(len(a.chosen)))
	dst = append(dst, a.chosen...)
	clear(a.chosen)
	a.chosen, a.body = a.chosen[:0], 0
	if a.waiting.Load() == 0 {
		a.earliest = 0
	}
	return dst
}

func (a *admission) took(dst []*Request, r *Request) []*Request {
	a.unlend(r)
	a.bytes.Add(-int64(r.Bytes))
	a.waiting.Add(-1)
	return append(dst, r)
}

// resumedAtOnce is how many paused submitters look again with each turn of the write stage while the queue is between half its budget and all of it.
const resumedAtOnce = 16

// takePaused returns who is to look again: all at half the budget, so that readers do not stop and go with every request, and a few at a time above it, so that nobody is forgotten while others keep the queue full.
func (a *admission) takePaused() []*Resume {
	n := len(a.paused)
	if a.closed == nil {
		switch bytes := a.bytes.Load(); {
		case bytes >= a.budget:
			return nil
		case bytes > a.budget/2:
			n = min(n, resumedAtOnce)
		}
	}
	if n == 0 {
		return nil
	}
	out := slices.Clone(a.paused[:n])
	a.paused = slices.Delete(a.paused, 0, n)
	for _, r := range out {
		r.waiting.Store(false)
	}
	return out
}

// expire takes out the requests whose deadline has passed: while the write goroutine is held up, nobody else would answer them.
func (a *admission) expire(now time.Duration) []*Request {
	a.mu.Lock()
	if a.earliest == 0 || a.earliest > now {
		a.mu.Unlock()
		return nil
	}
	var late []*Request
	a.earliest = 0
	isLate := func(r *Request) bool {
		if r.Deadline > 0 && r.Deadline <= now {
			late = a.took(late, r)
			return true
		}
		if r.Deadline > 0 && (a.earliest == 0 || r.Deadline < a.earliest) {
			a.earliest = r.Deadline
		}
		return false
	}
	a.chosen = slices.DeleteFunc(a.chosen, isLate)
	a.body = 0
	for _, r := range a.chosen {
		a.body += r.body
	}
	for i := len(a.ring) - 1; i >= 0; i-- {
		q := a.ring[i]
		q.reqs = slices.DeleteFunc(q.reqs[q.head:], isLate)
		q.head, q.bytes = 0, 0
		for _, r := range q.reqs {
			q.bytes += int64(r.Bytes)
		}
		if len(q.reqs) == 0 {
			a.leave(i)
		}
	}
	resumed := a.takePaused()
	a.mu.Unlock()
	for _, r := range resumed {
		r.Wake()
	}
	return late
}

// close refuses what comes from now on; what is queued stays.
func (a *admission) close(err error) {
	a.mu.Lock()
	if a.closed == nil {
		a.closed = err
	}
	resumed := a.takePaused()
	a.mu.Unlock()
	for _, r := range resumed {
		r.Wake()
	}
	a.wake.set()
}

// clientCount is how many clients have requests waiting.
func (a *admission) clientCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.clients)
}

func (a *admission) empty() bool { return a.waiting.Load() == 0 }
