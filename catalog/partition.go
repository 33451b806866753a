package catalog

import (
	"sync"
	"sync/atomic"

	"tidemark/internal/batch"
	"tidemark/journal"
)

// Partition is what the stages share of one partition.
type Partition struct {
	// immutable
	ID      uint32 // in the journal's records; never used again
	TopicID TopicID
	Topic   string
	Index   int32 // in its topic

	logStart atomic.Int64 // written under mu, anyone reads

	// atomic: the apply goroutine writes, anyone reads
	deleted       atomic.Bool
	highWatermark atomic.Int64 // end of what readers see
	unstable      atomic.Int64 // first offset of the oldest open transaction; −1: none is open

	// write goroutine only: the partition as it is up to written
	Next journal.LogicalOffset
	Seq  Sequences

	// apply goroutine only: the partition as it is up to applied
	appliedSeq  Sequences
	newestEpoch int32 // of epochs, so that a batch in it needs no lock; 0: none yet, terms begin at 1

	mu      sync.Mutex
	epochs  []EpochStart  // ascending; guarded by mu
	txns    partitionTxns // guarded by mu
	waiters []Waiter      // fetches that wait for data; guarded by mu
	waiting atomic.Int32  // len(waiters), so that the index stage need not lock
}

// Waiter is told once that a partition's high watermark moved, or that the partition is gone. Wake must not block.
type Waiter interface{ Wake() }

// EpochStart says at which logical offset a leader epoch begins.
type EpochStart struct {
	Epoch int32                 `cbor:"1,keyasint"`
	Start journal.LogicalOffset `cbor:"2,keyasint"`
}

// maxEpochs bounds what is remembered of a partition's leader epochs; the oldest go first, as they do when log start passes them.
const maxEpochs = 256

// Deleted says that the topic is gone.
func (p *Partition) Deleted() bool { return p.deleted.Load() }

// LogStart is the first logical offset that a reader can have.
func (p *Partition) LogStart() journal.LogicalOffset {
	return journal.LogicalOffset(p.logStart.Load())
}

// HighWatermark is the end of what readers see: committed and indexed.
func (p *Partition) HighWatermark() journal.LogicalOffset {
	return journal.LogicalOffset(p.highWatermark.Load())
}

// RaiseLogStart moves log start forward, never back. Any goroutine: retention and DeleteRecords both do.
func (p *Partition) RaiseLogStart(to journal.LogicalOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int64(to) <= p.logStart.Load() {
		return
	}
	p.logStart.Store(int64(to))
	for len(p.epochs) > 1 && p.epochs[1].Start <= to {
		p.epochs = p.epochs[1:]
	}
}

// AppliedBatch takes a batch that was committed and indexed, in a frame that ends at frameEnd and has the time frameMs. Apply goroutine only. It returns true if someone waits for it.
func (p *Partition) AppliedBatch(i *batch.Info, base journal.LogicalOffset, frameEnd journal.Offset, frameMs int64) bool {
	if i.Idempotent() {
		p.AppliedSequence(i, base, frameEnd, frameMs)
	}
	return p.Appended(base, base+journal.LogicalOffset(i.Count), i.LeaderEpoch)
}

// AppliedSequence is the part of AppliedBatch that an idempotent batch has beside the others.
func (p *Partition) AppliedSequence(i *batch.Info, base journal.LogicalOffset, frameEnd journal.Offset, frameMs int64) {
	p.appliedSeq.Record(i, Placed{Sequence: i.BaseSequence, Count: i.Count, Base: base, End: frameEnd}, frameMs)
}

// Appended moves the high watermark over committed and indexed batches [from, to) of one leader epoch. Apply goroutine only. It returns true if someone waits.
func (p *Partition) Appended(from, to journal.LogicalOffset, leaderEpoch int32) bool {
	if p.newestEpoch < leaderEpoch {
		p.beginEpoch(leaderEpoch, from)
	}
	p.highWatermark.Store(int64(to))
	return p.waiting.Load() > 0
}

func (p *Partition) beginEpoch(epoch int32, at journal.LogicalOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.epochs); n == 0 || p.epochs[n-1].Epoch < epoch {
		if n == maxEpochs {
			p.epochs = append(p.epochs[:0], p.epochs[1:]...)
		}
		p.epochs = append(p.epochs, EpochStart{Epoch: epoch, Start: at})
	}
	p.newestEpoch = epoch
}

// EpochEnd is the end of the newest leader epoch that is at most epoch, and that epoch; −1, −1 when none is known.
// The current epoch ends at the high watermark.
func (p *Partition) EpochEnd(epoch, current int32) (int32, journal.LogicalOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch > current {
		return -1, -1
	}
	if epoch == current {
		return current, p.HighWatermark()
	}
	for i := len(p.epochs) - 1; i >= 0; i-- {
		if p.epochs[i].Epoch > epoch {
			continue
		}
		if i+1 < len(p.epochs) {
			return p.epochs[i].Epoch, p.epochs[i+1].Start
		}
		return p.epochs[i].Epoch, p.HighWatermark()
	}
	return -1, -1
}

// EpochAt is the leader epoch of the record at logical offset o, −1 when it is not known.
func (p *Partition) EpochAt(o journal.LogicalOffset) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.epochs) - 1; i >= 0; i-- {
		if p.epochs[i].Start <= o {
			return p.epochs[i].Epoch
		}
	}
	return -1
}

// Wait registers w for the next move of the high watermark past seen. It returns false, and does not register, when that has happened already or the partition is gone.
//
// The index stage stores the high watermark and then looks at waiting; Wait raises waiting and then looks at the high watermark. One of the two sees the other.
func (p *Partition) Wait(w Waiter, seen journal.LogicalOffset) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting.Add(1)
	if p.HighWatermark() > seen || p.deleted.Load() {
		p.waiting.Add(-1)
		return false
	}
	p.waiters = append(p.waiters, w)
	return true
}

// Unwait takes w out, if it is still there.
func (p *Partition) Unwait(w Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, have := range p.waiters {
		if have == w {
			last := len(p.waiters) - 1
			p.waiters[i] = p.waiters[last]
			p.waiters[last] = nil
			p.waiters = p.waiters[:last]
			p.waiting.Add(-1)
			return
		}
	}
}

// WakeAll tells everyone who waits.
func (p *Partition) WakeAll() {
	p.mu.Lock()
	waiters := p.waiters
	p.waiters = nil
	p.waiting.Add(-int32(len(waiters)))
	p.mu.Unlock()
	for _, w := range waiters {
		w.Wake()
	}
}
