package pipeline

import (
	"context"
	"sync/atomic"
	"time"

	"tidemark/journal"
)

// flusher is the flush stage: it makes the stream durable.
//
// In: written. Out: flushed and, on one node, committed. Invariant: one synced write at a time, and flushed never passes a byte that such a write has not covered.
// A flush is demanded when somebody waits for one: then flushes follow one another without a pause, each taking what was written meanwhile (group commit). A waiting reader alone gets one at most every
// readerFlushInterval. Otherwise bytes wait for flush.interval or flush.bytes.
type flusher struct {
	p      *Pipeline
	wake   signal
	labels context.Context // of its goroutine

	demand atomic.Int64 // end of the bytes that somebody waits for; raised by the write goroutine, and by demandAll

	armed atomic.Bool // the interval is running. Flush goroutine writes

	// flush goroutine only
	last time.Duration // when the last flush ended
}

// readerFlushInterval is the shortest time between flushes that only readers wait for.
const readerFlushInterval = 2 * time.Millisecond

// written is told by the write goroutine that the stream has grown to end. Without a demand the flush goroutine is woken only to start its interval, for a waiting
// reader, or when flush.bytes is reached.
func (f *flusher) written(end journal.Offset, demanded bool) {
	if demanded {
		f.demand.Store(int64(end))
	} else if f.armed.Load() && f.p.readers.Load() == 0 && int64(end-f.p.flushed.Load()) < f.p.opts.FlushBytes {
		return
	}
	f.wake.set()
}

// demanded says whether somebody waits for bytes that are not flushed.
func (f *flusher) demanded() bool { return journal.Offset(f.demand.Load()) > f.p.flushed.Load() }

// demandAll asks for everything that is written now.
func (f *flusher) demandAll() {
	to := int64(f.p.written.Load())
	for {
		old := f.demand.Load()
		if old >= to || f.demand.CompareAndSwap(old, to) {
			break
		}
	}
	f.wake.set()
}

// due says how long the bytes above flushed may wait; 0 or less: not at all.
func (f *flusher) due() time.Duration {
	p := f.p
	flushed, written := p.flushed.Load(), p.written.Load()
	if f.demanded() || int64(written-flushed) >= p.opts.FlushBytes {
		return 0
	}
	wait := p.opts.FlushInterval
	if p.readers.Load() > 0 {
		wait = min(wait, readerFlushInterval)
	}
	return wait - (p.Now() - f.last)
}

// step does one flush. It returns false after a disk error, which is final.
func (f *flusher) step() bool {
	p := f.p
	start := p.Now()
	n, flushed, err := p.journal.Flush.Step(p.written.Load())
	f.last = p.Now()
	if err != nil {
		p.fatal(err)
		return false
	}
	p.stats.flushed(n, f.last-start)
	if flushed == p.flushed.Load() {
		return true // inside a frame: the next step goes on
	}
	p.flushes.add(flushTime{end: flushed, began: start, ended: f.last})
	p.marker.moved(p.journal.Flush.Mark())
	p.flushed.Advance(flushed)
	p.committed.Advance(p.replicator.Synced(flushed))
	p.follow.wake.set()
	p.write.moved()
	return true
}

// answer has the requests answered that the last flush was for: beside the next flush, or here if there is none.
func (f *flusher) answer() {
	if f.demanded() {
		f.p.respond.wake.set()
	} else {
		f.p.respond.onFlush()
	}
}

// run flushes what is due and sleeps until something is. It ends when stop is closed and everything is flushed, or at once after a disk error.
func (f *flusher) run(stop <-chan struct{}) {
	p := f.p
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	stopping := false
	for {
		if p.flushed.Load() == p.written.Load() {
			if stopping {
				return
			}
			f.last = p.Now()
			select {
			case <-f.wake:
			case <-stop:
				stopping = true
			}
			if p.readers.Load() == 0 {
				f.last = p.Now() // the first byte on an idle node begins its interval now
			}
			continue
		}
		if wait := f.due(); wait > 0 && !stopping {
			timer.Reset(wait)
			f.armed.Store(true)
			select {
			case <-f.wake:
			case <-timer.C:
			case <-stop:
				stopping = true
			}
			f.armed.Store(false)
			timer.Stop()
			continue
		}
		before := p.flushed.Load()
		if !f.step() {
			return
		}
		if p.flushed.Load() > before {
			f.answer()
		}
	}
}
