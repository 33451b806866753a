package pipeline

import (
	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
	"tidemark/journal/index"
)

// enter puts the batches of a committed frame into the index and then moves their partitions' high watermarks, in this order: a reader that sees the high watermark finds the entry.
// Batches of deleted partitions are skipped.
func (f *follower) enter(frame *placed) {
	at, sequences := 0, frame.sequences
	for _, r := range frame.runs {
		entries := frame.entries[at : at+r.count]
		at += r.count
		to, ok := f.follow(r.part.ID)
		if ok {
			f.p.index.AddTo(to.index, entries...)
		}
		for len(sequences) > 0 && sequences[0].entry < at {
			s, e := &sequences[0], &frame.entries[sequences[0].entry]
			sequences = sequences[1:]
			if ok {
				i := batch.Info{ProducerID: s.producer, ProducerEpoch: s.producerEpoch, BaseSequence: s.base, Count: int32(e.Records)}
				to.part.AppliedSequence(&i, e.Base, frame.end, frame.ms)
				if s.transactional {
					f.p.catalog.AppliedTransactional(to.part, &i, e.Base, frame.ms)
				}
			} else if s.transactional { // its partition is gone
				f.p.catalog.AppliedTransactional(nil, &batch.Info{ProducerID: s.producer}, e.Base, frame.ms)
			}
		}
		if last := &entries[len(entries)-1]; ok && to.part.Appended(entries[0].Base, last.Next(), frame.epoch) {
			f.touched = append(f.touched, to.part)
		}
	}
}

// index is enter for one batch that was read back.
func (f *follower) index(r journal.Record, frameEnd journal.Offset, frameMs int64) error {
	i, err := batchHead(r)
	if err != nil {
		return err
	}
	to, ok := f.follow(r.Partition)
	if !ok {
		f.transaction(nil, r, &i, frameMs)
		return nil
	}
	f.p.index.AddTo(to.index, indexEntry(r, &i))
	f.transaction(to.part, r, &i, frameMs)
	if to.part.AppliedBatch(&i, r.Base, frameEnd, frameMs) {
		f.touched = append(f.touched, to.part)
	}
	return nil
}

// follow finds where a partition's batches go; false: it was deleted.
func (f *follower) follow(id uint32) (followed, bool) {
	to, ok := f.known[id]
	if !ok {
		to.part = f.p.catalog.ByID(id)
		if to.part == nil {
			return to, false
		}
		to.index = f.p.index.Partition(id)
		f.known[id] = to
	}
	return to, true
}

// followed is where a partition's batches go.
type followed struct {
	part  *catalog.Partition
	index *index.Partition
}

// indexEntry describes a batch for the index.
func indexEntry(r journal.Record, i *batch.Info) index.Entry {
	return index.Entry{Base: r.Base, At: r.At, Bytes: uint32(len(r.Payload)), Records: uint32(i.Count), MaxTimestamp: i.MaxTimestamp}
}

// transaction notes what a batch says of its producer's transaction, before readers see it. part is nil if it is gone.
func (f *follower) transaction(part *catalog.Partition, r journal.Record, i *batch.Info, frameMs int64) {
	switch {
	case i.Control():
		if part == nil {
			return
		}
		f.p.catalog.Ended(part, i, r.Base, r.Payload)
	case i.Transactional():
		f.p.catalog.AppliedTransactional(part, i, r.Base, frameMs)
	}
}
