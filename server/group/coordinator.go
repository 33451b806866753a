package group

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Config is what a Coordinator is told. All fields are set.
type Config struct {
	Limits
	Bytes int64                  // of members, of all groups
	Now   func() time.Duration   // a clock that does not jump
	Keeps func(name string) bool // there are offsets that the group committed: it is remembered when its members are gone
}

// Coordinator has the groups of a node. All methods may be called from any goroutine.
//
// Each group has a lock, under which its events are taken one by one. All timeouts are in one heap with one timer: a heartbeat makes a group's next one later and touches neither; a group whose time has come says then when it is due again.
type Coordinator struct {
	cfg Config

	mu     sync.Mutex // taken behind an entry's, never before
	groups map[string]*entry
	due    dueHeap
	timer  *time.Timer
	armed  time.Duration // when timer fires; 0: not at all
	bytes  int64
	last   Ref
	closed bool
}

// entry is a group and who waits for its answers.
type entry struct {
	name string

	mu    sync.Mutex
	group machine
	waits map[Ref]chan any
	empty time.Duration // since when it has no members
	gone  bool          // from the coordinator: look it up again

	// guarded by Coordinator.mu
	bytes int64
	at    time.Duration // in due
	index int           // in due; −1: it is not
}

// machine is a group of either protocol.
type machine interface {
	Step(now time.Duration, ref Ref, e Event) []Answer
	Next() time.Duration
	Idle() bool
	Gone() bool
	Bytes() int64
	Describe() Description
}

// fit is the machine for an event: a group without members becomes one of the protocol of who joins.
func (c *Coordinator) fit(m machine, ev Event) machine {
	if !m.Idle() {
		return m
	}
	switch ev.(type) {
	case Join:
		if _, is := m.(*Group); !is {
			return New(c.cfg.Limits)
		}
	case ConsumerHeartbeat:
		if _, is := m.(*Consumer); !is {
			return NewConsumer(c.cfg.Limits)
		}
	}
	return m
}

// NewCoordinator has no groups.
func NewCoordinator(cfg Config) *Coordinator {
	c := &Coordinator{cfg: cfg, groups: make(map[string]*entry)}
	c.timer = time.AfterFunc(time.Hour, c.fire)
	c.timer.Stop()
	return c
}

// Close stops the timer. Events are still answered; nothing times out any more.
func (c *Coordinator) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.timer.Stop()
}

// locked returns the group's entry, locked; it is made when there is none.
func (c *Coordinator) locked(name string) *entry {
	for {
		c.mu.Lock()
		e := c.groups[name]
		if e == nil {
			e = &entry{name: name, group: New(c.cfg.Limits), waits: make(map[Ref]chan any), index: -1}
			c.groups[name] = e
		}
		c.mu.Unlock()
		if e.mu.Lock(); !e.gone {
			return e
		}
		e.mu.Unlock()
	}
}

// ask has an event taken and waits for its answer; not ok: ctx ended before. If then is not nil, it is called with an answer that came at once, before the group takes another event.
func ask[R any](c *Coordinator, ctx context.Context, name string, ev Event, then func(R)) (r R, ok bool) {
	e := c.locked(name)
	ref, answer := c.ref(), make(chan any, 1)
	e.waits[ref] = answer
	c.step(e, ref, ev)
	if then != nil {
		then((<-answer).(R))
		e.mu.Unlock()
		return r, true
	}
	e.mu.Unlock()
	select {
	case got := <-answer:
		return got.(R), true
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waits[ref] == nil { // it came meanwhile
		return (<-answer).(R), true
	}
	delete(e.waits, ref)
	c.step(e, 0, Gone{ref})
	return r, false
}

func (c *Coordinator) ref() Ref {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	return c.last
}

// step has the group of a locked entry take an event, and hands the answers out.
func (c *Coordinator) step(e *entry, ref Ref, ev Event) {
	now := c.cfg.Now()
	e.group = c.fit(e.group, ev)
	had := e.group.Idle()
	for _, a := range e.group.Step(now, ref, ev) {
		if answer := e.waits[a.To]; answer != nil {
			delete(e.waits, a.To)
			answer <- a.Body
		}
	}
	switch ev.(type) {
	case Heartbeat, Commit, CommitTxn:
		if !e.group.Idle() {
			return // it is due later than it was, or when it was
		}
	}
	if e.group.Idle() && !had {
		e.empty = now
	}
	c.settle(e)
}

// settle notes when a locked entry is due and what it holds, and drops it when nothing of it has to be remembered.
func (c *Coordinator) settle(e *entry) {
	next, bytes := e.group.Next(), e.group.Bytes()+int64(len(e.name))
	drop := e.group.Gone() || e.group.Idle() && !c.cfg.Keeps(e.name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if drop {
		e.gone = true
		delete(c.groups, e.name)
		next, bytes = 0, 0
	}
	c.bytes += bytes - e.bytes
	e.bytes = bytes
	switch {
	case next == 0 && e.index >= 0:
		heap.Remove(&c.due, e.index)
	case next == 0:
	case e.index >= 0:
		e.at = next
		heap.Fix(&c.due, e.index)
	default:
		e.at = next
		heap.Push(&c.due, e)
	}
	c.arm()
}

// arm sets the timer to the earliest timeout. c.mu is held.
func (c *Coordinator) arm() {
	if len(c.due) == 0 || c.closed || c.armed != 0 && c.armed <= c.due[0].at {
		return // one that fires too early looks and goes on
	}
	c.armed = c.due[0].at
	c.timer.Reset(max(c.armed-c.cfg.Now(), 0))
}

// fire has the groups look at their timeouts whose time has come.
func (c *Coordinator) fire() {
	now := c.cfg.Now()
	var ready []*entry
	c.mu.Lock()
	c.armed = 0
	for len(c.due) > 0 && c.due[0].at <= now {
		ready = append(ready, heap.Pop(&c.due).(*entry))
	}
	c.arm()
	c.mu.Unlock()
	for _, e := range ready {
		if e.mu.TryLock() {
			c.tick(e)
		} else { // one that is busy does not hold up the others
			go func() {
				e.mu.Lock()
				c.tick(e)
			}()
		}
	}
}

// tick has the group of a locked entry look at its timeouts, and unlocks it.
func (c *Coordinator) tick(e *entry) {
	defer e.mu.Unlock()
	if !e.gone {
		c.step(e, 0, Tick{})
	}
}

// Sweep forgets groups that have no members and nothing committed any more: their topics were deleted.
func (c *Coordinator) Sweep() {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.groups))
	c.mu.Unlock()
	for _, e := range all {
		e.mu.Lock()
		if !e.gone && e.group.Idle() {
			c.settle(e)
		}
		e.mu.Unlock()
	}
}

// knownMemberBytes is what a member that has an id may hold though the groups hold all they may: else a full node could not rebalance.
const knownMemberBytes = 64 << 10

// Join takes a member in. Not ok: ctx ended before the generation began.
func (c *Coordinator) Join(ctx context.Context, name string, j Join) (JoinReply, bool) {
	size := int64((&member{protocols: j.Protocols, clientID: j.ClientID, host: j.Host, instance: j.Instance}).bytes())
	c.mu.Lock()
	full := c.bytes+size > c.cfg.Bytes
	c.mu.Unlock()
	if full && (j.Member == "" || size > knownMemberBytes) {
		return JoinReply{Err: kerr.GroupMaxSizeReached, Generation: -1, Member: j.Member}, true
	}
	return ask[JoinReply](c, ctx, name, j, nil)
}

// Sync fetches a member's part. Not ok: ctx ended before the leader said which.
func (c *Coordinator) Sync(ctx context.Context, name string, s Sync) (SyncReply, bool) {
	size := int64(0)
	for _, part := range s.Assignments {
		size += int64(len(part))
	}
	c.mu.Lock()
	full := size > knownMemberBytes && c.bytes+size > c.cfg.Bytes
	c.mu.Unlock()
	if full {
		return SyncReply{Err: kerr.GroupMaxSizeReached}, true
	}
	return ask[SyncReply](c, ctx, name, s, nil)
}

// Heartbeat says that a member lives.
func (c *Coordinator) Heartbeat(name string, w Who) *kerr.Error {
	return c.now(name, Heartbeat{w}, nil)
}

// TryHeartbeat is Heartbeat for who may not wait; not ok: the group is busy.
func (c *Coordinator) TryHeartbeat(name string, w Who) (err *kerr.Error, ok bool) {
	c.mu.Lock()
	e := c.groups[name]
	c.mu.Unlock()
	if e == nil || !e.mu.TryLock() {
		return nil, false
	}
	defer e.mu.Unlock()
	if e.gone || e.group.Idle() {
		return nil, false
	}
	answers := e.group.Step(c.cfg.Now(), 1, Heartbeat{w}) // which has no other answer than its own, and makes nothing due earlier
	return answers[0].Body.(Reply).Err, true
}

// ConsumerHeartbeat is all that a member of a group of KIP-848 says.
func (c *Coordinator) ConsumerHeartbeat(name string, h ConsumerHeartbeat) (r ConsumerReply) {
	c.mu.Lock()
	full := (h.Generation == 0 || h.size() > knownMemberBytes) && c.bytes+h.size() > c.cfg.Bytes
	c.mu.Unlock()
	if full {
		return ConsumerReply{Err: kerr.GroupMaxSizeReached}
	}
	ask(c, context.Background(), name, h, func(got ConsumerReply) { r = got })
	return r
}

// Leave takes members out, and returns an error for each.
func (c *Coordinator) Leave(name string, members []Who) (errs []*kerr.Error) {
	ask(c, context.Background(), name, Event(Leave{members}), func(r LeaveReply) { errs = r.Errs })
	return errs
}

// Commit calls submit if the member may commit now, before the group takes another event: of two commits, the one that was let through first is submitted first.
func (c *Coordinator) Commit(name string, w Who, of []Partition, submit func()) *kerr.Error {
	return c.now(name, Commit{w, of}, submit)
}

// CommitTxn is Commit for offsets of a transaction.
func (c *Coordinator) CommitTxn(name string, w Who, of []Partition, submit func()) *kerr.Error {
	return c.now(name, CommitTxn{w, of}, submit)
}

// Delete calls submit if the group has no members, and forgets it.
func (c *Coordinator) Delete(name string, submit func()) *kerr.Error {
	return c.now(name, Delete{}, submit)
}

// now is for events that are answered at once.
func (c *Coordinator) now(name string, ev Event, then func()) (err *kerr.Error) {
	ask(c, context.Background(), name, ev, func(r Reply) {
		if err = r.Err; err == nil && then != nil {
			then()
		}
	})
	return err
}

// dueHeap is container/heap's, by when a group is due.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	e.index, (*h)[last] = -1, nil
	*h = (*h)[:last]
	return e
}
