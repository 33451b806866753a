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
// Identity and catalog come from their copies, the catalog else from a whole journal; the rest is journal.Repair's. What cannot be repaired is an error: a journal.CorruptError.
func Repair(fsys vfs.FS, dataDir string, write bool) (journal.Repaired, error) {
	var mended []string
	meta, err := journal.LoadMeta(fsys, dataDir)
	if err != nil {
		var cerr error
		if meta, cerr = journal.LoadMetaCopy(fsys, dataDir); cerr != nil {
			return journal.Repaired{}, &journal.CorruptError{Segment: -1, File: path.Join(dataDir, "meta"), Cause: fmt.Sprintf("%v; its copy: %v", err, cerr)}
		}
		mended = append(mended, fmt.Sprintf("meta is taken from its copy: %v", err))
	}
	if len(meta.Journals) != 1 {
		return journal.Repaired{}, fmt.Errorf("%s holds %d journals; this build repairs one", dataDir, len(meta.Journals))
	}
	if err != nil && write {
		if err := journal.SaveMeta(fsys, dataDir, meta); err != nil {
			return journal.Repaired{}, err
		}
	}
	dir := journal.JournalDir(dataDir, meta.Journals[0].ID)
	cat, restored, err := catalog.Repair(fsys, dataDir, journal.Whole(fsys, dir, meta.Journals[0]), write)
	if err != nil {
		return journal.Repaired{Mended: mended}, err
	}
	if restored != "" {
		mended = append(mended, restored)
	}
	r, err := journal.Repair(fsys, dir, meta.Journals[0], cat.Offset(), write)
	r.Mended = append(mended, r.Mended...)
	return r, err
}
