package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"tidemark/internal/vfs"
)

// hollowFile is a segment file that is missing or cut short, as Repair reads it: zeros stand for what is not there.
type hollowFile struct {
	vfs.File        // nil when it is missing
	has, size int64 // bytes that are there, and that should be
}

func (h *hollowFile) ReadAt(b []byte, at int64) (n int, err error) {
	if at < h.has {
		n, err = h.File.ReadAt(b[:min(int64(len(b)), h.has-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
	}
	whole := int(min(int64(len(b)), max(h.size-at, 0)))
	clear(b[n:max(n, whole)])
	if whole < len(b) {
		return whole, io.EOF
	}
	return whole, nil
}

func (h *hollowFile) Close() error {
	if h.File == nil {
		return nil
	}
	return h.File.Close()
}

// openHollow opens the segments for a look, from the log start to the last file or the last byte that was synced, whichever is later: what is missing or cut short as a hollowFile.
func (r *repair) openHollow(fsys vfs.FS, dir string, bytes int64) (*segments, error) {
	s := &segments{fsys: fsys, dir: dir, bytes: bytes, readOnly: true}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	from := Offset(-1)
	if !r.noMark {
		from = roundDown(r.mark.First, bytes)
	}
	for _, name := range names {
		if start, ok := IndexSegment(name); ok && r.noMark { // it was full, and synced
			r.proven = max(r.proven, start+Offset(bytes))
		}
	}
	to := max(from, roundDown(max(r.proven-1, 0), bytes))
	for _, name := range names {
		start, ok, err := segmentStart(name, bytes)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if from < 0 || start < from {
			from = start
		}
		to = max(to, start)
	}
	if from < 0 {
		return nil, &CorruptError{Segment: -1, File: dir, Cause: "neither the mark nor a segment file is left"}
	}
	if n := (to-from)/Offset(bytes) + 1; n > maxHollow+Offset(len(names)) {
		return nil, &CorruptError{Segment: from, Offset: from, Cause: fmt.Sprintf("more than %d segment files are missing from here to %d", maxHollow, to)}
	}
	for start := from; start <= to; start += Offset(bytes) {
		seg, err := s.open(start)
		if errors.Is(err, fs.ErrNotExist) {
			h := &hollowFile{size: bytes}
			seg, err = &segment{start: start, file: h, cold: h}, nil
			r.hollow = append(r.hollow, start)
			r.Mended = append(r.Mended, fmt.Sprintf("%s is missing: it is made anew, with zeros", path.Join(dir, segmentName(start))))
		} else if errors.As(err, new(*CorruptError)) {
			seg, err = r.openShort(s, start, err)
		}
		if err != nil {
			s.close()
			return nil, err
		}
		s.list = append(s.list, seg)
	}
	return s, nil
}

// maxHollow bounds how many missing segments are made anew: a wrong offset makes no disk full.
const maxHollow = 64

// openShort opens a segment file whose size is wrong, as wrong says; one that is too long is not repaired.
func (r *repair) openShort(s *segments, start Offset, wrong error) (*segment, error) {
	name := path.Join(s.dir, segmentName(start))
	f, err := s.fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size > s.bytes {
		err = wrong
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	h := &hollowFile{File: f, has: size, size: s.bytes}
	r.hollow = append(r.hollow, start)
	r.Mended = append(r.Mended, fmt.Sprintf("%s has %d bytes, a segment has %d: the rest is filled with zeros", name, size, s.bytes))
	return &segment{start: start, file: h, cold: h}, nil
}

// fill makes hollow segments whole. What was lost stays damaged until its gap is put there.
func (r *repair) fill(fsys vfs.FS, dir string) error {
	for _, start := range r.hollow {
		f, err := fsys.Open(path.Join(dir, segmentName(start)), vfs.ReadWrite|vfs.Create)
		if err != nil {
			return err
		}
		if err = f.Allocate(r.segs.bytes); err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if len(r.hollow) == 0 {
		return nil
	}
	return fsys.SyncDir(dir)
}

// syncAll makes durable what a server that was killed may have left in the page cache, for a mark that says so.
func (r *repair) syncAll(fsys vfs.FS, dir string) error {
	for _, start := range r.segs.starts() {
		f, err := fsys.Open(path.Join(dir, segmentName(start)), vfs.ReadWrite)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Whole says that nothing of a journal was dropped: so says the mark, or, if that is lost, the first file is there.
func Whole(fsys vfs.FS, dir string, meta JournalMeta) bool {
	if salt, err := meta.SaltBytes(); err == nil {
		if mark, _, err := readMark(fsys, dir, salt); err == nil {
			return mark.First == 0
		}
	}
	f, err := fsys.Open(path.Join(dir, segmentName(0)), vfs.ReadOnly)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
