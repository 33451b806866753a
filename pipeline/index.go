package pipeline

import (
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
	part := f.p.catalog.ByID(r.Partition)
	if part == nil {
		return nil
	}
	f.indexBatch(r, &i)
	if f.p.catalog.AppliedBatch(part, &i, r.Base, frameEnd, frameMs) {
		f.touched = append(f.touched, part)
	}
	return nil
}

func (f *follower) indexBatch(r journal.Record, i *batch.Info) {
	f.p.index.Add(r.Partition, indexEntry(r, i))
}

// indexEntry describes a batch for the index.
func indexEntry(r journal.Record, i *batch.Info) index.Entry {
	return index.Entry{Base: r.Base, At: r.At, Bytes: uint32(len(r.Payload)), Records: uint32(i.Count), MaxTimestamp: i.MaxTimestamp}
}
