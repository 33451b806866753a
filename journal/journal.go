package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync/atomic"

	"tidemark/internal/vfs"
)

// Options of a journal. Zero values mean the default named.
type Options struct {
	FS  vfs.FS // default vfs.OS
	Dir string // the journal's own directory, as JournalDir names it

	Salt Salt

	// SegmentBytes is the size of a segment file: a power-of-two multiple of 64 KiB. It is fixed when the journal is created. Default 256 MiB. Larger ones roll
	// more seldom; retention and recovery work in units of it.
	SegmentBytes int64
	// CacheBytes is the size of the JournalCache: a multiple of 64 KiB. Default 256 MiB. Readers within it do not touch the disk.
	CacheBytes int64
	// Spares is how many zeroed segments are kept ahead of need. Default 2; a negative value means none. Of those that retention let go of twice as many are kept.
	Spares int
	// CatalogOffset is where the catalog's snapshot stands: committed once, so damage below it is damage to acknowledged bytes.
	CatalogOffset Offset
	// OnDropped is told, by Maintain's goroutine, of the new first offset when a segment was dropped.
	OnDropped func(first Offset)
}

// Defaults, and the smallest segment and cache, in bytes.
const (
	DefaultSegmentBytes = 256 << 20
	DefaultCacheBytes   = 256 << 20
	DefaultSpares       = 2
	MinSegmentBytes     = 64 << 10
	MaxSegmentBytes     = 1 << 30
)

// SetDefaults fills the zero fields in and refuses what cannot be.
func (o *Options) SetDefaults() error {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	switch {
	case o.Spares == 0:
		o.Spares = DefaultSpares
	case o.Spares < 0:
		o.Spares = 0
	}
	if o.SegmentBytes < MinSegmentBytes || o.SegmentBytes > MaxSegmentBytes || o.SegmentBytes&(o.SegmentBytes-1) != 0 {
		return fmt.Errorf("journal: segment of %d bytes: it must be a power of two from %d to %d", o.SegmentBytes, MinSegmentBytes, MaxSegmentBytes)
	}
	if o.CacheBytes < MinSegmentBytes || o.CacheBytes%MinSegmentBytes != 0 {
		return fmt.Errorf("journal: cache of %d bytes: it must be a multiple of %d", o.CacheBytes, MinSegmentBytes)
	}
	return nil
}

// FrameMax is the most bytes that a frame may have, header counted.
func (o *Options) FrameMax() int { return int(min(o.SegmentBytes, o.CacheBytes) / 4) }

// Journal is one contiguous byte stream on disk with its cache. It starts no goroutine and reads no clock. Each of its parts has one owner:
// Append the write goroutine, Flush the flush goroutine, Maintain and the mark one goroutine each; reading is for anyone.
type Journal struct {
	// immutable after Open
	opts     Options
	saltSeed uint32
	segs     *segments
	cache    *Cache
	mark     *marker
	first    Offset // log start as the mark had it at Open

	Append Appender // write goroutine only
	Flush  Flusher  // flush goroutine only

	sealedTo atomic.Int64 // segments that end at or below it are full and synced: read through the page cache. Flush goroutine writes
}

// Create makes an empty journal in opts.Dir: its mark and its first segment, zeroed if spares are kept, since nobody waits for it yet. It can be called again after a crash in the middle.
func Create(opts Options) error {
	if err := opts.SetDefaults(); err != nil {
		return err
	}
	if err := opts.FS.MkdirAll(opts.Dir); err != nil {
		return err
	}
	if err := writeMark(opts.FS, opts.Dir, Mark{Cut: NoCut}, opts.Salt.seed()); err != nil {
		return err
	}
	segs, err := openSegments(opts.FS, opts.Dir, opts.SegmentBytes, false)
	if err != nil {
		return err
	}
	defer segs.close()
	if len(segs.list) > 0 {
		return nil
	}
	for more := opts.Spares > 0; more; {
		if more, err = segs.spareStep(1); err != nil {
			return err
		}
	}
	return segs.addNext()
}

// Open recovers the journal in opts.Dir and makes it ready for appends. What recovery did is in the report, also when it fails.
func Open(opts Options) (*Journal, Recovered, error) {
	var report Recovered
	if err := opts.SetDefaults(); err != nil {
		return nil, report, err
	}
	segs, err := openSegments(opts.FS, opts.Dir, opts.SegmentBytes, false)
	if err != nil {
		return nil, report, err
	}
	j := &Journal{opts: opts, saltSeed: opts.Salt.seed(), segs: segs}
	var mark Mark
	j.mark, mark, err = openMark(opts.FS, opts.Dir, opts.Salt)
	if err == nil {
		j.first = mark.First
		report, err = j.recover(mark)
	}
	if err != nil {
		j.Close()
		return nil, report, err
	}
	return j, report, nil
}

func (j *Journal) segmentEnd(o Offset) Offset {
	return roundDown(o, j.opts.SegmentBytes) + Offset(j.opts.SegmentBytes)
}

// First is log start: the first offset that is still on disk.
func (j *Journal) First() Offset {
	first, _ := j.segs.bounds()
	return first
}

// MarkedFirst is the log start that the mark named at Open.
func (j *Journal) MarkedFirst() Offset { return j.first }

// Segments returns the start offsets of all segment files, ascending; the last ones may be empty.
func (j *Journal) Segments() []Offset { return j.segs.starts() }

// SegmentBytes is the size of every segment.
func (j *Journal) SegmentBytes() int64 { return j.opts.SegmentBytes }

// Dir is where the journal's files are, and FS the file system that they are on.
func (j *Journal) Dir() string { return j.opts.Dir }

// FS is the file system that the journal's files are on.
func (j *Journal) FS() vfs.FS { return j.opts.FS }

// Cache is the JournalCache.
func (j *Journal) Cache() *Cache { return j.cache }

// CacheBytes is the size of the JournalCache.
func (j *Journal) CacheBytes() int64 { return j.opts.CacheBytes }

// FrameMax is the most bytes that a frame may have, header counted.
func (j *Journal) FrameMax() int { return j.opts.FrameMax() }

// WriteMark makes m durable. One goroutine at a time. An error is a FatalError.
func (j *Journal) WriteMark(m Mark) error {
	if err := j.mark.write(m); err != nil {
		return &FatalError{Op: "write and sync of the mark", Err: err}
	}
	return nil
}

// Maintain does one bounded piece of the work that keeps segments ahead of need: it names the next segment when fewer than one is empty behind written, then, if idle, works on the
// spares. While idle, and written in the first half of its segment, the next segment waits for a zeroed spare. more says that calling again would do more. Maintenance goroutine only. Errors that are not a FatalError leave everything as it was: try again later.
func (j *Journal) Maintain(written Offset, idle bool) (more bool, err error) {
	end := j.segmentEnd(written)
	canWait := idle && j.opts.Spares > 0 && len(j.segs.spares) == 0 && end-written > Offset(j.opts.SegmentBytes/2)
	if Offset(j.segs.readyTo.Load()) <= end && !canWait {
		err := j.segs.addNext()
		if err != nil && j.segs.zeroing != nil && !errors.As(err, new(*FatalError)) { // what was set aside for a spare is needed now
			j.segs.abandonZeroing()
			err = j.segs.addNext()
		}
		return err == nil, err
	}
	if !idle {
		return false, nil
	}
	return j.segs.spareStep(j.opts.Spares)
}

// ReadyTo is the end of the last named segment: frames can be placed below it without waiting.
func (j *Journal) ReadyTo() Offset { return Offset(j.segs.readyTo.Load()) }

// keptSpares is how many times Options.Spares the pool keeps of segments that retention let go of. Retention lets go of some at a time, and a pool that kept no more of them than it wants would make new ones in between, only to remove as many files: and
// where a file system discards the blocks of a removed file, as with ext4's option discard, flushes stand still meanwhile, 10 to 20 ms for 64 MiB.
const keptSpares = 2

// DropHead drops the oldest segment if it ends at or below limit, which is not above the log start that the mark names. It returns false when it does not, or when a reader holds it. Maintenance goroutine only.
func (j *Journal) DropHead(limit Offset) (bool, error) {
	first := j.First()
	if first+Offset(j.opts.SegmentBytes) > limit {
		return false, nil
	}
	dropped, err := j.segs.dropHead(keptSpares * j.opts.Spares)
	if dropped && j.opts.OnDropped != nil {
		j.opts.OnDropped(j.First())
	}
	return dropped, err
}

// Close gives the files and the cache's memory back. All users of the journal have ended.
func (j *Journal) Close() error {
	j.segs.abandonZeroing()
	err := j.segs.close()
	if j.mark != nil {
		err = errors.Join(err, j.mark.close())
	}
	if j.cache != nil {
		err = errors.Join(err, freeRing(j.cache.mem))
	}
	return err
}

// Used says whether dir holds a journal in which something was written, as opposed to none, or one whose creation a crash cut off.
func Used(fsys vfs.FS, dir string) (bool, error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if _, ok := parseStart(name, segmentSuffix); !ok {
			continue
		}
		f, err := fsys.Open(path.Join(dir, name), vfs.ReadOnly)
		if err != nil {
			return false, err
		}
		head := make([]byte, FrameHeaderBytes)
		_, err = f.ReadAt(head, 0)
		f.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		return binary.LittleEndian.Uint32(head) == frameMagic, nil // names are sorted: the lowest segment is the one that is written first
	}
	return false, nil
}

// HasIndex says whether the segment that begins at start has its index file.
func HasIndex(fsys vfs.FS, dir string, start Offset) (bool, error) {
	f, err := fsys.Open(path.Join(dir, IndexName(start)), vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
