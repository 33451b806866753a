package pipeline

import (
	"fmt"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/internal/planted"
	"tidemark/journal"
)

// follower is the stage behind committed: it takes each record once, and hands it to the index (index.go) or to the catalog (apply.go).
//
// In: committed. Out: indexed (what readers see) and applied (what the catalog has acted on). Invariant: both stay at or below committed, in the stream's order, so neither is ever rolled back. It is one
// goroutine for both, since both walk the same frames; index.go and apply.go have what each does with a record.
type follower struct {
	p    *Pipeline
	wake signal

	// follow goroutine only
	at       journal.Offset // end of the last frame that was walked
	scratch  []byte
	known    map[uint32]followed  // partitions that were met, so that a batch costs one look-up
	touched  []*catalog.Partition // with fetches to wake
	snapshot journal.Offset       // segment of the last snapshot
	live     bool                 // what is applied was not applied before the start

	asks asks // to look at what is applied
}

// followBytes bounds one step.
const followBytes = 4 << 20

// step follows committed, a few MiB at the most, and returns whether there is more.
func (f *follower) step() (more bool, err error) {
	f.asks.answer()
	p := f.p
	committed := p.committed.Load()
	if planted.Is(planted.IndexAhead) {
		committed = p.written.Load()
	}
	commands := false
	for limit := f.at + followBytes; f.at < limit; {
		frame, readBack := p.placed.next(committed)
		if frame != nil {
			f.enter(frame)
			f.at = frame.end
		} else if readBack > f.at {
			commands = true
			if err := f.readBack(readBack, limit); err != nil {
				return false, err
			}
		} else { // the next frame is not committed; what is between may be a segment's remainder
			f.at = committed
			break
		}
		p.placed.pop(f.at)
	}
	p.catalog.Advance(f.at)
	p.indexed.Advance(f.at)
	p.applied.Advance(f.at)
	p.catchUp.wake()
	if commands {
		p.respond.wake.set()
	}
	for i, part := range f.touched {
		part.WakeAll()
		f.touched[i] = nil
	}
	f.touched = f.touched[:0]
	p.write.moved()
	f.maybeSnapshot()
	return f.at < committed, nil
}

// readBack walks the frames of the stream from where the stage stands to to, or to the first behind limit.
func (f *follower) readBack(to, limit journal.Offset) error {
	p := f.p
	for f.at < min(to, limit) {
		next := p.journal.NextFrame(f.at)
		if next >= to { // to stands behind a segment's remainder: the frame there is another one's
			f.at = to
			return nil
		}
		frame, err := p.journal.FrameAt(next, &f.scratch)
		if err != nil {
			return err
		}
		if frame.Type == journal.FrameFiller {
			f.at = frame.End()
			continue
		}
		err = frame.EachRecord(func(r journal.Record) error {
			if r.Kind == journal.RecordCommand {
				return f.apply(r)
			}
			return f.index(r, frame.End(), frame.TimestampMs)
		})
		if err != nil {
			return fmt.Errorf("frame at %d: %w", frame.Start, err)
		}
		f.at = frame.End()
	}
	return nil
}

// maybeSnapshot encodes the catalog when the stream has entered a new segment, and leaves the writing to the upkeep goroutine.
func (f *follower) maybeSnapshot() {
	segment := f.at - f.at%journal.Offset(f.p.journal.SegmentBytes())
	if segment == f.snapshot {
		return
	}
	f.snapshot = segment
	f.p.upkeep.offer(f.encode())
}

// encode takes the catalog's snapshot. Follow goroutine, or after it has ended.
func (f *follower) encode() encodedSnapshot {
	b, err := f.p.catalog.Encode(f.p.wallMs() - f.p.opts.ProducerExpiry.Milliseconds())
	return encodedSnapshot{bytes: b, offset: f.p.catalog.Offset(), err: err}
}

// run follows committed. It ends when stop is closed and it has caught up, or when it cannot read what was committed, which is fatal.
func (f *follower) run(stop <-chan struct{}) {
	for {
		more, err := f.step()
		if err != nil {
			f.p.fatal(&journal.FatalError{Op: "index and catalog", Err: err})
			return
		}
		if more {
			continue
		}
		select {
		case <-f.wake:
		case <-f.p.dead:
			return
		case <-stop:
			if f.at == f.p.committed.Load() {
				return
			}
		}
	}
}

// replay does what step does, at start, for a frame that was read back. Records below the catalog's offset are in it already, and those below
// indexFrom have their index file.
func (f *follower) replay(frame journal.Frame, indexFrom, catalogFrom journal.Offset) error {
	return frame.EachRecord(func(r journal.Record) error {
		toCatalog, toIndex := frame.Start >= catalogFrom, frame.Start >= indexFrom
		if r.Kind == journal.RecordCommand {
			if !toCatalog {
				return nil
			}
			return f.apply(r)
		}
		i, err := batchHead(r)
		if err != nil {
			return err
		}
		if toIndex {
			f.p.index.Add(r.Partition, indexEntry(r, &i))
		}
		if part := f.p.catalog.ByID(r.Partition); part == nil && toCatalog {
			f.p.catalog.Seen(r.Partition) // what made it may lie in a gap
			f.transaction(nil, r, &i, frame.TimestampMs)
		} else if toCatalog {
			f.transaction(part, r, &i, frame.TimestampMs)
			part.AppliedBatch(&i, r.Base, frame.End(), frame.TimestampMs)
		}
		return nil
	})
}

// batchHead reads the header of a batch that was checked before it was accepted, and by its frame's checksum since.
func batchHead(r journal.Record) (batch.Info, error) {
	if len(r.Payload) < batch.HeaderBytes {
		return batch.Info{}, fmt.Errorf("record at %d: a batch of %d bytes", r.At, len(r.Payload))
	}
	return batch.Head(r.Payload), nil
}
