package pipeline

import (
	"fmt"
	"path"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/journal"
)

// Repair makes a stopped node's damaged data directory one that starts, or, without write, says what that would take. What is lost for good is in the Losses. The caller holds the directory's lock.
//
// Identity and catalog come from their copies, the catalog else from a whole journal; the rest is journal.Repair's. What cannot be repaired is an error, a journal.CorruptError, and nothing was changed then: one look without writing
// goes before all writing.
func Repair(fsys vfs.FS, dataDir string, write bool) (journal.Repaired, error) {
	var mended []string
	meta, metaErr := journal.LoadMeta(fsys, dataDir)
	if metaErr != nil { // a newer build would have written the copy first: one that can be read says that the version, which no checksum covers, is not sound either
		var err error
		if meta, err = journal.LoadMetaCopy(fsys, dataDir); err != nil {
			return journal.Repaired{}, &journal.CorruptError{Segment: -1, File: path.Join(dataDir, "meta"), Cause: fmt.Sprintf("%v; its copy: %v", metaErr, err)}
		}
		mended = append(mended, fmt.Sprintf("meta is taken from its copy: %v", metaErr))
	}
	if len(meta.Journals) != 1 {
		return journal.Repaired{}, fmt.Errorf("%s holds %d journals; this build repairs one", dataDir, len(meta.Journals))
	}
	jm := meta.Journals[0]
	dir := journal.JournalDir(dataDir, jm.ID)
	whole := journal.Whole(fsys, dir, jm)
	cat, restored, err := catalog.Repair(fsys, dataDir, whole, false)
	if err != nil {
		return journal.Repaired{Mended: mended}, err
	}
	if restored != "" {
		mended = append(mended, restored)
	}
	r, err := journal.Repair(fsys, dir, jm, cat.Offset(), madeBehindALoss, false)
	if err == nil && len(r.Losses) > 0 && restored != "" && cat.Offset() == 0 {
		err = &journal.CorruptError{Segment: -1, File: path.Join(dataDir, "catalog.snapshot"), Cause: "it is lost, and so are parts of the journal that it would be made anew from"}
	}
	if err == nil && write && metaErr != nil {
		err = journal.SaveMeta(fsys, dataDir, meta)
	}
	if err == nil && write {
		if _, _, err = catalog.Repair(fsys, dataDir, whole, true); err == nil {
			r, err = journal.Repair(fsys, dir, jm, cat.Offset(), madeBehindALoss, true)
		}
	}
	r.Mended = append(mended, r.Mended...)
	return r, err
}

// madeBehindALoss refuses commands that make partitions: partitions are numbered in the order in which they are made, so if others were made in what is lost, these would get their numbers, and with them their records.
func madeBehindALoss(r journal.Record) error {
	cmd, err := catalog.DecodeCommand(r.Payload)
	if err == nil && (cmd.CreateTopic != nil || cmd.CreatePartitions != nil) {
		err = &journal.CorruptError{Segment: -1, Offset: r.At, File: "the journal", Cause: "partitions are made here, behind lost bytes that no snapshot of the catalog covers: nobody can tell any more which records are whose"}
	}
	return err
}
