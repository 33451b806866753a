package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path"
	"slices"
	"sort"
	"sync/atomic"

	"tidemark/internal/vfs"
	"tidemark/journal"
)

// An index file is a row of 4 KiB pages, each with a CRC-32C in its last four bytes: pages of entries, in order of partition and then of logical offset; pages of
// the directory, one row a partition; and one last page, the footer. All little-endian. docs/format.md has the tables.
const (
	pageBytes       = 4096
	entryBytes      = 32
	entriesPerPage  = (pageBytes - 4) / entryBytes // 127
	rowBytes        = 40
	rowsPerPage     = (pageBytes - 4) / rowBytes // 102
	footerMagic     = "TDMI"
	footerVersion   = 1
	maxEntriesLimit = 1 << 31
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sealPage(p []byte) {
	binary.LittleEndian.PutUint32(p[pageBytes-4:], crc32.Checksum(p[:pageBytes-4], castagnoli))
}

func soundPage(p []byte) bool {
	return binary.LittleEndian.Uint32(p[pageBytes-4:]) == crc32.Checksum(p[:pageBytes-4], castagnoli)
}

func putEntry(b []byte, e Entry) {
	le := binary.LittleEndian
	le.PutUint64(b, uint64(e.Base))
	le.PutUint64(b[8:], uint64(e.At))
	le.PutUint32(b[16:], e.Bytes)
	le.PutUint32(b[20:], e.Records)
	le.PutUint64(b[24:], uint64(e.MaxTimestamp))
}

func getEntry(b []byte) Entry {
	le := binary.LittleEndian
	return Entry{
		Base: journal.LogicalOffset(le.Uint64(b)), At: journal.Offset(le.Uint64(b[8:])),
		Bytes: le.Uint32(b[16:]), Records: le.Uint32(b[20:]), MaxTimestamp: int64(le.Uint64(b[24:])),
	}
}

// pageWriter writes pages one behind the other, a piece of many at a time.
type pageWriter struct {
	f    vfs.File
	buf  []byte // aligned; a multiple of pageBytes
	used int
	at   int64
}

// pieceBytes is how much of an index file is written at once: small, so that a flush beside it waits little.
const pieceBytes = 256 << 10

// page returns the next page, zeroed.
func (w *pageWriter) page() ([]byte, error) {
	if w.used == len(w.buf) {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	p := w.buf[w.used : w.used+pageBytes]
	clear(p)
	w.used += pageBytes
	return p, nil
}

// flush seals and writes the pages that were handed out.
func (w *pageWriter) flush() error {
	for p := 0; p < w.used; p += pageBytes {
		sealPage(w.buf[p : p+pageBytes])
	}
	n, err := w.f.WriteAt(w.buf[:w.used], w.at)
	w.at += int64(n)
	w.used = 0
	return err
}

// rows writes n rows of size bytes each, perPage of them in a page.
func (w *pageWriter) rows(n, size, perPage int, put func(i int, b []byte)) error {
	var p []byte
	for i := range n {
		if i%perPage == 0 {
			var err error
			if p, err = w.page(); err != nil {
				return err
			}
		}
		put(i, p[i%perPage*size:])
	}
	return nil
}

// writeFile writes a segment's index file. buf is where pages are laid out: aligned, a multiple of pageBytes. It goes past the page cache, as the journal does: it is large when batches are small, and hardly ever read.
func writeFile(fsys vfs.FS, dir string, segment journal.Offset, entries map[uint32][]Entry, buf []byte) error {
	return journal.ReplaceFile(fsys, path.Join(dir, journal.IndexName(segment)), vfs.Direct, func(f vfs.File) error {
		return writePages(&pageWriter{f: f, buf: buf}, segment, entries)
	})
}

func writePages(w *pageWriter, segment journal.Offset, entries map[uint32][]Entry) error {
	le := binary.LittleEndian
	ids := slices.Sorted(maps.Keys(entries))
	total := 0
	for _, id := range ids {
		total += len(entries[id])
	}
	var rest []Entry // of the partition before left
	left := ids
	err := w.rows(total, entryBytes, entriesPerPage, func(_ int, b []byte) {
		for len(rest) == 0 {
			rest, left = entries[left[0]], left[1:]
		}
		putEntry(b, rest[0])
		rest = rest[1:]
	})
	if err != nil {
		return err
	}
	first := 0
	err = w.rows(len(ids), rowBytes, rowsPerPage, func(i int, b []byte) {
		es := entries[ids[i]]
		le.PutUint32(b, ids[i])
		le.PutUint32(b[4:], uint32(first))
		le.PutUint32(b[8:], uint32(len(es)))
		le.PutUint64(b[16:], uint64(es[0].Base))
		le.PutUint64(b[24:], uint64(es[len(es)-1].Next()))
		le.PutUint64(b[32:], uint64(es[len(es)-1].MaxTimestamp))
		first += len(es)
	})
	if err != nil {
		return err
	}
	foot, err := w.page()
	if err != nil {
		return err
	}
	copy(foot, footerMagic)
	le.PutUint32(foot[4:], footerVersion)
	le.PutUint64(foot[8:], uint64(segment))
	le.PutUint32(foot[16:], uint32(total))
	le.PutUint32(foot[20:], uint32(len(ids)))
	return w.flush()
}

// file is an open index file.
type file struct {
	name    string
	segment journal.Offset
	f       vfs.File
	holders atomic.Int32 // 1 for the index and one for each reader; the last one closes it
}

func (f *file) release() {
	if f.holders.Add(-1) == 0 {
		f.f.Close()
	}
}

// openFile checks the footer and the directory and returns a run for each partition.
func openFile(fsys vfs.FS, dir string, segment journal.Offset) (*file, map[uint32]run, error) {
	name := path.Join(dir, journal.IndexName(segment))
	h, err := fsys.Open(name, vfs.ReadOnly)
	if err != nil {
		return nil, nil, err
	}
	f := &file{name: name, segment: segment, f: h}
	f.holders.Store(1)
	runs, err := f.readDirectory()
	if err != nil {
		f.release()
		return nil, nil, err
	}
	return f, runs, nil
}

func (f *file) corrupt(at int64, cause string) error {
	return &journal.CorruptError{Segment: -1, File: f.name, Offset: journal.Offset(at), Cause: cause}
}

func (f *file) page(p []byte, number int64) error {
	if n, err := f.f.ReadAt(p[:pageBytes], number*pageBytes); err != nil && (!errors.Is(err, io.EOF) || n < pageBytes) {
		if errors.Is(err, io.EOF) {
			return f.corrupt(number*pageBytes, "the file ends early")
		}
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	if !soundPage(p) {
		return f.corrupt(number*pageBytes, "page checksum mismatch")
	}
	return nil
}

func (f *file) readDirectory() (map[uint32]run, error) {
	size, err := f.f.Size()
	if err != nil {
		return nil, err
	}
	pages := size / pageBytes
	if pages < 1 || size%pageBytes != 0 {
		return nil, f.corrupt(size, fmt.Sprintf("the size %d is not a row of pages", size))
	}
	p := make([]byte, pageBytes)
	if err := f.page(p, pages-1); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	entries, rows := int64(le.Uint32(p[16:])), int64(le.Uint32(p[20:]))
	if string(p[:4]) != footerMagic || le.Uint32(p[4:]) != footerVersion || journal.Offset(le.Uint64(p[8:])) != f.segment {
		return nil, f.corrupt(size-pageBytes, "the footer is another segment's or another format's")
	}
	entryPages := (entries + entriesPerPage - 1) / entriesPerPage
	if entries > maxEntriesLimit || entryPages+(rows+rowsPerPage-1)/rowsPerPage+1 != pages {
		return nil, f.corrupt(size-pageBytes, "the footer's counts do not match the size")
	}
	runs := make(map[uint32]run, rows)
	next := uint32(0)
	for i := range rows {
		if i%rowsPerPage == 0 {
			if err := f.page(p, entryPages+i/rowsPerPage); err != nil {
				return nil, err
			}
		}
		b := p[i%rowsPerPage*rowBytes:]
		r := run{
			segment: f.segment, entry: le.Uint32(b[4:]), count: le.Uint32(b[8:]),
			first: journal.LogicalOffset(le.Uint64(b[16:])), next: journal.LogicalOffset(le.Uint64(b[24:])), maxTimestamp: int64(le.Uint64(b[32:])),
		}
		if r.entry != next || r.count == 0 || int64(r.entry)+int64(r.count) > entries {
			return nil, f.corrupt((entryPages+i/rowsPerPage)*pageBytes, "a directory row does not follow the one before it")
		}
		next = r.entry + r.count
		runs[le.Uint32(b)] = r
	}
	return runs, nil
}

// find appends the run's entries from the first that reached on, at most limit. reached is false for a head of the run and true for the rest.
func (f *file) find(r run, limit int, dst []Entry, reached func(Entry) bool) ([]Entry, error) {
	p := make([]byte, pageBytes)
	have := int64(-1)
	var failed error
	at := func(i uint32) Entry {
		n := int64(r.entry+i) / entriesPerPage
		if n != have {
			if err := f.page(p, n); err != nil {
				failed = err
				return Entry{}
			}
			have = n
		}
		return getEntry(p[int64(r.entry+i)%entriesPerPage*entryBytes:])
	}
	i := sort.Search(int(r.count), func(i int) bool { return failed == nil && reached(at(uint32(i))) })
	for ; failed == nil && i < int(r.count) && limit > 0; i++ {
		if e := at(uint32(i)); failed == nil {
			dst = append(dst, e)
			limit--
		}
	}
	return dst, failed
}

// Check reads a whole index file and compares it, page by page, with what its segment should have. It returns the number of entries.
func Check(fsys vfs.FS, dir string, segment journal.Offset) (int, error) {
	f, runs, err := openFile(fsys, dir, segment)
	if err != nil {
		return 0, err
	}
	defer f.release()
	n := 0
	for id, r := range runs {
		es, err := f.find(r, int(r.count), nil, func(Entry) bool { return true })
		if err != nil {
			return n, err
		}
		for i := 1; i < len(es); i++ {
			if es[i].Base < es[i-1].Next() || es[i].At <= es[i-1].At {
				return n, f.corrupt(0, fmt.Sprintf("entries of partition %d are not in order", id))
			}
		}
		n += len(es)
	}
	return n, nil
}
