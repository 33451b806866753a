package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"tidemark/internal/planted"
	"tidemark/internal/vfs"
)

const (
	segmentSuffix = ".journal"
	indexSuffix   = ".index"
	sparePrefix   = "spare-"
	zeroingPrefix = "zeroing-"
)

func segmentName(start Offset) string { return fmt.Sprintf("%020d%s", start, segmentSuffix) }

// IndexName is the name of the index file of the segment that begins at start.
func IndexName(start Offset) string { return fmt.Sprintf("%020d%s", start, indexSuffix) }

// IndexSegment is the start of the segment that an index file of this name, or path, belongs to.
func IndexSegment(name string) (Offset, bool) { return parseStart(path.Base(name), indexSuffix) }

// parseStart returns the start offset in a file name with this suffix.
func parseStart(name, suffix string) (Offset, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return Offset(n), err == nil
}

// segmentStart is parseStart of a segment's name, which has to be a multiple of the segment size.
func segmentStart(name string, bytes int64) (start Offset, ok bool, err error) {
	start, ok = parseStart(name, segmentSuffix)
	if ok && int64(start)%bytes != 0 {
		err = &CorruptError{Segment: start, Offset: start, Cause: fmt.Sprintf("its name is not a multiple of the segment size %d", bytes)}
	}
	return start, ok, err
}

// segment is one file of the stream. Everything but holders is immutable.
type segment struct {
	start   Offset
	file    vfs.File     // direct: flushes, and reads of what may still be written
	cold    vfs.File     // through the page cache: reads once the segment is full
	holders atomic.Int32 // readers and the flusher; taken under segments.mu, given back freely
}

func (s *segment) release() { s.holders.Add(-1) }

func (s *segment) close() error { return errors.Join(s.file.Close(), s.cold.Close()) }

// segments is the ordered set of segment files and the pool of spares behind them.
//
// What a crash leaves: a segment gets its name by rename and a sync of the directory before a frame is placed in it, so a named segment is
// always whole. A spare whose name was not yet durable is lost or found again; both are fine, since nothing in it counts. A file
// still named zeroing-N was not finished and is removed.
type segments struct {
	// immutable after open
	fsys  vfs.FS
	dir   string
	bytes int64 // of every segment and spare

	readOnly bool // opened for a look: no file is opened for writing
	mu       sync.RWMutex
	list     []*segment // ascending, without gaps; guarded by mu

	readyTo atomic.Int64 // end of the last named segment: frames are placed below it. Maintenance writes, anyone reads

	// maintenance goroutine only
	spares  []string // names of spare files, ready for use
	counter int      // of spare names
	zeroing *zeroing // a spare in the making
}

// openSegments finds the files of a journal. Unknown files are left alone. With readOnly nothing at all is changed, and there are no spares.
func openSegments(fsys vfs.FS, dir string, bytes int64, readOnly bool) (*segments, error) {
	s := &segments{fsys: fsys, dir: dir, bytes: bytes, readOnly: readOnly}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var starts []Offset
	for _, name := range names {
		switch start, ok, err := segmentStart(name, bytes); {
		case err != nil:
			return nil, err
		case ok:
			starts = append(starts, start)
		case readOnly:
		case strings.HasPrefix(name, sparePrefix):
			s.adoptSpare(name)
		case strings.HasPrefix(name, zeroingPrefix):
			if err := fsys.Remove(path.Join(dir, name)); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(starts)
	for i, start := range starts {
		if i > 0 && start != starts[i-1]+Offset(bytes) {
			return nil, &CorruptError{Segment: starts[i-1] + Offset(bytes), Offset: starts[i-1] + Offset(bytes),
				Cause: fmt.Sprintf("the file is missing, the next one is %s", segmentName(start))}
		}
		seg, err := s.open(start)
		if err != nil {
			s.close()
			return nil, err
		}
		s.list = append(s.list, seg)
		s.readyTo.Store(int64(start) + bytes)
	}
	if readOnly {
		return s, nil
	}
	// A process that died may have left names that are in memory alone: what is built on them now must not go with the power.
	if err := syncError("sync of the journal's directory", fsys.SyncDir(dir)); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// adoptSpare takes a spare of an earlier run into the pool if it has the right size. That size, too, may be in memory alone.
func (s *segments) adoptSpare(name string) {
	if n, err := strconv.Atoi(strings.TrimPrefix(name, sparePrefix)); err == nil {
		s.counter = max(s.counter, n+1)
	}
	f, err := s.fsys.Open(path.Join(s.dir, name), vfs.ReadWrite)
	if err == nil {
		size, serr := f.Size()
		if serr == nil && size == s.bytes {
			serr = f.Sync()
		}
		f.Close()
		if serr == nil && size == s.bytes {
			s.spares = append(s.spares, name)
			return
		}
	}
	s.fsys.Remove(path.Join(s.dir, name))
}

func (s *segments) open(start Offset) (*segment, error) {
	name := path.Join(s.dir, segmentName(start))
	mode := vfs.ReadWrite | vfs.Direct
	if s.readOnly {
		mode = vfs.ReadOnly
	}
	f, err := s.fsys.Open(name, mode)
	if err != nil {
		return nil, err
	}
	cold, err := s.fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		f.Close()
		return nil, err
	}
	seg := &segment{start: start, file: f, cold: cold}
	size, err := f.Size()
	if err == nil && size != s.bytes {
		err = &CorruptError{Segment: start, Offset: start + Offset(size), Cause: fmt.Sprintf("the file has %d bytes, a segment has %d", size, s.bytes)}
	}
	if err != nil {
		seg.close()
		return nil, err
	}
	return seg, nil
}

// acquire returns the segment that holds the byte at o; the caller releases it.
func (s *segments) acquire(o Offset) (*segment, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i := sort.Search(len(s.list), func(i int) bool { return s.list[i].start > o }) - 1
	if i < 0 || o >= s.list[i].start+Offset(s.bytes) {
		return nil, fmt.Errorf("offset %d: %w", o, ErrGone)
	}
	s.list[i].holders.Add(1)
	return s.list[i], nil
}

// ErrGone says that no segment holds an offset: it lies below log start, or past the end.
var ErrGone = errors.New("journal: no segment holds the offset")

func (s *segments) bounds() (first, end Offset) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.list) == 0 {
		return 0, 0
	}
	return s.list[0].start, s.list[len(s.list)-1].start + Offset(s.bytes)
}

func (s *segments) starts() []Offset {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]Offset, len(s.list))
	for i, seg := range s.list {
		out[i] = seg.start
	}
	return out
}

// addNext gives the next segment its name. It takes a spare, else an unzeroed allocated file. Maintenance goroutine only.
func (s *segments) addNext() error {
	_, start := s.bounds()
	var from string
	if n := len(s.spares); n > 0 {
		from = s.spares[n-1]
	} else {
		var err error
		if from, err = s.allocate(sparePrefix); err != nil {
			return err
		}
		s.spares = append(s.spares, from)
	}
	if err := s.fsys.Rename(path.Join(s.dir, from), path.Join(s.dir, segmentName(start))); err != nil {
		return err
	}
	s.spares = s.spares[:len(s.spares)-1]
	if !planted.Is(planted.NoDirectorySync) {
		if err := syncError("sync of the journal's directory", s.fsys.SyncDir(s.dir)); err != nil {
			return err
		}
	}
	seg, err := s.open(start)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.list = append(s.list, seg)
	s.mu.Unlock()
	s.readyTo.Store(int64(start) + s.bytes)
	return nil
}

// reserveShare is the part of a segment that a new one has to leave free on the disk: for index files, snapshots and whatever else is to be written when appends are refused already.
const reserveShare = 8

// allocate makes a new file of segment size, unzeroed, and returns its name. ENOSPC comes before the disk is full.
func (s *segments) allocate(prefix string) (string, error) {
	if free, err := s.fsys.Free(s.dir); err == nil && free < s.bytes+s.bytes/reserveShare {
		return "", fmt.Errorf("%s has %d bytes free, a new segment needs %d and %d in reserve: %w", s.dir, free, s.bytes, s.bytes/reserveShare, syscall.ENOSPC)
	}
	name := fmt.Sprintf("%s%d", prefix, s.counter)
	full := path.Join(s.dir, name)
	f, err := s.fsys.Open(full, vfs.ReadWrite|vfs.Create|vfs.Exclusive)
	if err != nil {
		return "", err
	}
	s.counter++
	if err = f.Allocate(s.bytes); err == nil {
		err = syncError("sync of a new segment file", f.Sync())
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.fsys.Remove(full)
		return "", err
	}
	return name, nil
}

// dropHead takes the oldest segment out of the stream, and recycles its file while the pool has fewer than most files. It returns false when a
// reader holds the segment. Maintenance goroutine only.
func (s *segments) dropHead(most int) (bool, error) {
	s.mu.Lock()
	if len(s.list) < 2 || s.list[0].holders.Load() > 0 {
		s.mu.Unlock()
		return false, nil
	}
	seg := s.list[0]
	s.list = slices.Delete(s.list, 0, 1)
	s.mu.Unlock()
	if err := seg.close(); err != nil {
		return true, err
	}
	full := path.Join(s.dir, segmentName(seg.start))
	if err := s.fsys.Remove(path.Join(s.dir, IndexName(seg.start))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	if len(s.spares) >= most {
		if err := s.fsys.Remove(full); err != nil {
			return true, err
		}
	} else {
		name := fmt.Sprintf("%s%d", sparePrefix, s.counter)
		s.counter++
		if err := s.fsys.Rename(full, path.Join(s.dir, name)); err != nil {
			return true, err
		}
		s.spares = append(s.spares, name)
	}
	return true, syncError("sync of the journal's directory", s.fsys.SyncDir(s.dir))
}

func (s *segments) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, seg := range s.list {
		err = errors.Join(err, seg.close())
	}
	s.list = nil
	return err
}

// FatalError is a failed write or sync of the journal or its mark. Nothing may be acknowledged after it and nothing is tried again: the process stops.
type FatalError struct {
	Op  string
	Err error
}

func (e *FatalError) Error() string { return fmt.Sprintf("fatal disk error: %s: %v", e.Op, e.Err) }
func (e *FatalError) Unwrap() error { return e.Err }

// syncError makes a failed sync fatal, unless the disk was full.
func syncError(op string, err error) error {
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &FatalError{Op: op, Err: err}
}
