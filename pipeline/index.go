package pipeline

import (
	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
	"tidemark/journal/index"
)

// index enters a committed batch into the index and moves its partition's high watermark, in this order: a reader that sees the high watermark finds the entry.
// Records of deleted partitions are skipped.
func (f *follower) index(r journal.Record, frameEnd journal.Offset, frameMs int64) error {
	i, err := batchHead(r)
	if err != nil {
		return err
	}
	to, ok := f.known[r.Partition]
	if !ok {
		to.part = f.p.catalog.ByID(r.Partition)
		if to.part == nil {
			return nil
		}
		to.index = f.p.index.Partition(r.Partition)
		f.known[r.Partition] = to
	}
	f.p.index.AddTo(to.index, indexEntry(r, &i))
	if f.p.catalog.AppliedBatch(to.part, &i, r.Base, frameEnd, frameMs) {
		f.touched = append(f.touched, to.part)
	}
	return nil
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
