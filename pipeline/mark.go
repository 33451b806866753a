package pipeline

import (
	"sync"
	"sync/atomic"
	"time"

	"tidemark/journal"
)

// marker writes the mark: where flushed stands, remembered outside of the journal.
//
// In: flushed. Out: the mark file, and marked, below which retention may go. Invariant: what it writes was flushed before. It is off the acknowledgement path: the file is written within markWithin after flushed
// moved, or once it has rested for markIdle.
type marker struct {
	p      *Pipeline
	wake   signal
	marked Watermark // flushed, as the mark file has it. Mark goroutine writes
	first  Watermark // log start, as the mark file has it. Mark goroutine writes

	armed atomic.Bool // the goroutine is looking by itself

	mu     sync.Mutex
	mark   journal.Mark   // newest; guarded by mu
	dropTo journal.Offset // log start that is wanted; guarded by mu
}

const (
	markWithin = 100 * time.Millisecond
	markIdle   = 10 * time.Millisecond
)

// moved is told by the flush goroutine, before flushed moves for everyone else.
func (k *marker) moved(m journal.Mark) {
	m.Term = k.p.replicator.Term()
	k.mu.Lock()
	k.mark = m
	k.mu.Unlock()
	if !k.armed.Load() {
		k.wake.set()
	}
}

func (k *marker) newest() journal.Mark {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.mark
	m.First = k.dropTo
	return m
}

// raise asks for a new log start in the mark; upkeep is woken when it is there, and may drop the segments below then.
func (k *marker) raise(to journal.Offset) {
	k.mu.Lock()
	k.dropTo = max(k.dropTo, to)
	k.mu.Unlock()
	k.wake.set()
}

// step writes the newest mark. It returns false after a disk error, which is final.
func (k *marker) step() bool {
	m := k.newest()
	if m.Flushed == k.marked.Load() && m.First == k.first.Load() {
		return true
	}
	if err := k.p.journal.WriteMark(m); err != nil {
		k.p.fatal(err)
		return false
	}
	k.marked.Advance(m.Flushed)
	if m.First > k.first.Load() {
		k.first.Advance(m.First)
		k.p.upkeep.wake.set()
	}
	return true
}

// run writes marks until stop is closed, and a last one then.
func (k *marker) run(stop <-chan struct{}) {
	rest := time.NewTimer(time.Hour)
	rest.Stop()
	defer rest.Stop()
	for {
		select {
		case <-k.wake:
		case <-k.p.dead:
			return
		case <-stop:
			k.step()
			return
		}
		k.armed.Store(true)
		first := k.p.Now()
		for last := journal.Offset(-1); ; {
			flushed := k.newest().Flushed
			if flushed == last || k.p.Now()-first >= markWithin {
				break
			}
			last = flushed
			rest.Reset(markIdle)
			select {
			case <-rest.C:
			case <-k.p.dead:
				return
			case <-stop:
				k.step()
				return
			}
		}
		k.armed.Store(false)
		if !k.step() {
			return
		}
		if k.newest().Flushed != k.marked.Load() {
			k.wake.set()
		}
	}
}
