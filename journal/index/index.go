// Package index finds a partition's batches in the journal: by logical offset and by time.
//
// Entries of segments that are still being filled live in memory, bounded by the segment's size: an entry takes 32 bytes, the shortest batch 88. A full segment gets one immutable
// file, <start>.index (file.go), and its entries leave memory; what stays is one run of 40 bytes for each partition that the segment holds.
// (RocketMQ's ConsumeQueue and JMQ's dense index, without a file for each partition.)
//
// The index goroutine adds, in the journal's order and behind committed, so an entry never points at bytes that could be cut. The maintenance goroutine seals and drops.
// Finding is for anyone.
package index

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"

	"tidemark/internal/vfs"
	"tidemark/journal"
)

// Entry is one batch. MaxTimestamp is the largest of the partition's batches in this segment so far, this one included, so that it never falls within a segment.
type Entry struct {
	Base         journal.LogicalOffset // of the first record
	At           journal.Offset        // of the journal record's header
	Bytes        uint32                // of the batch
	Records      uint32
	MaxTimestamp int64 // ms
}

// Next is the logical offset behind the batch.
func (e *Entry) Next() journal.LogicalOffset { return e.Base + journal.LogicalOffset(e.Records) }

// run is where a partition's entries lie in one segment's index file.
type run struct {
	segment      journal.Offset
	first, next  journal.LogicalOffset
	maxTimestamp int64
	entry, count uint32 // first entry in the file, number of entries
}

// Partition is one partition's part of the index: a handle for whoever adds to it again and again.
type Partition struct {
	mu     sync.RWMutex
	sealed []run   // ascending; guarded by mu
	tail   []Entry // of segments without a file, ascending; guarded by mu, but the array below its length never changes
}

// Index of one journal.
type Index struct {
	// immutable
	fsys         vfs.FS
	dir          string
	segmentBytes int64

	mu         sync.RWMutex
	partitions map[uint32]*Partition    // guarded by mu
	files      map[journal.Offset]*file // by segment; guarded by mu
}

// New is an empty index of the journal in dir. Load, Rebuild and Add fill it.
func New(fsys vfs.FS, dir string, segmentBytes int64) *Index {
	return &Index{fsys: fsys, dir: dir, segmentBytes: segmentBytes, partitions: make(map[uint32]*Partition), files: make(map[journal.Offset]*file)}
}

func (x *Index) segmentOf(at journal.Offset) journal.Offset {
	return at - at%journal.Offset(x.segmentBytes)
}

func (x *Index) get(id uint32) *Partition {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.partitions[id]
}

// Partition is the handle of a partition, made when there is none. It is good until Forget.
func (x *Index) Partition(id uint32) *Partition {
	if p := x.get(id); p != nil {
		return p
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.partitions[id]
	if p == nil {
		p = &Partition{}
		x.partitions[id] = p
	}
	return p
}

// Add appends a batch's entry; its MaxTimestamp is the batch's own. Index goroutine only.
func (x *Index) Add(id uint32, e Entry) { x.AddTo(x.Partition(id), e) }

// AddTo is Add with the partition's handle, for batches of one segment that lie one behind the other. Index goroutine only.
func (x *Index) AddTo(p *Partition, es ...Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest := int64(math.MinInt64)
	if n := len(p.tail); n > 0 && x.segmentOf(p.tail[n-1].At) == x.segmentOf(es[0].At) {
		newest = p.tail[n-1].MaxTimestamp
	}
	n := len(p.tail)
	p.tail = append(p.tail, es...)
	for i := range es {
		e := &p.tail[n+i]
		newest = max(newest, e.MaxTimestamp)
		e.MaxTimestamp = newest
	}
}

// Find appends to dst the entries from the one that holds logical offset o (or, when a gap holds it, the next) on, at most limit of them, which may end early at a segment's end. None means that the partition ends at or before o.
func (x *Index) Find(id uint32, o journal.LogicalOffset, limit int, dst []Entry) ([]Entry, error) {
	p := x.get(id)
	if p == nil {
		return dst, nil
	}
	p.mu.RLock()
	sealed, tail := p.sealed, p.tail
	p.mu.RUnlock()
	if i := sort.Search(len(sealed), func(i int) bool { return sealed[i].next > o }); i < len(sealed) {
		return x.findSealed(sealed[i], limit, dst, func(e Entry) bool { return e.Next() > o })
	}
	i := sort.Search(len(tail), func(i int) bool { return tail[i].Next() > o })
	return append(dst, tail[i:min(i+limit, len(tail))]...), nil
}

// findSealed appends the run's entries from the first that reached on, at most limit.
func (x *Index) findSealed(r run, limit int, dst []Entry, reached func(Entry) bool) ([]Entry, error) {
	x.mu.RLock()
	f := x.files[r.segment]
	if f != nil {
		f.holders.Add(1)
	}
	x.mu.RUnlock()
	if f == nil { // dropped meanwhile
		return dst, fmt.Errorf("index of segment %020d: %w", r.segment, journal.ErrGone)
	}
	defer f.release()
	return f.find(r, limit, dst, reached)
}

// Bytes is the size of the batches from logical offset o on, counted no further than limit.
func (x *Index) Bytes(id uint32, o journal.LogicalOffset, limit int) int {
	var buf [64]Entry
	n := 0
	for n < limit {
		es, err := x.Find(id, o, len(buf), buf[:0])
		if err != nil || len(es) == 0 {
			break
		}
		for _, e := range es {
			n += int(e.Bytes)
		}
		o = es[len(es)-1].Next()
	}
	return min(n, limit)
}

// FindTime returns the first batch that holds a record of time ms or later.
func (x *Index) FindTime(id uint32, ms int64) (Entry, bool, error) {
	p := x.get(id)
	if p == nil {
		return Entry{}, false, nil
	}
	p.mu.RLock()
	sealed, tail := p.sealed, p.tail
	p.mu.RUnlock()
	reached := func(e Entry) bool { return e.MaxTimestamp >= ms }
	for _, r := range sealed {
		if r.maxTimestamp >= ms {
			es, err := x.findSealed(r, 1, nil, reached)
			if err != nil || len(es) == 0 {
				return Entry{}, false, err
			}
			return es[0], true, nil
		}
	}
	for len(tail) > 0 {
		n := x.group(tail)
		if i := sort.Search(n, func(i int) bool { return reached(tail[i]) }); i < n {
			return tail[i], true, nil
		}
		tail = tail[n:]
	}
	return Entry{}, false, nil
}

// group is how many of the tail's first entries lie in one segment.
func (x *Index) group(tail []Entry) int {
	end := x.segmentOf(tail[0].At) + journal.Offset(x.segmentBytes)
	return sort.Search(len(tail), func(i int) bool { return tail[i].At >= end })
}

// MaxTime is the largest time of all the partition's batches.
func (x *Index) MaxTime(id uint32) (ms int64, ok bool) {
	p := x.get(id)
	if p == nil {
		return 0, false
	}
	p.mu.RLock()
	sealed, tail := p.sealed, p.tail
	p.mu.RUnlock()
	see := func(t int64) {
		if !ok || t > ms {
			ms, ok = t, true
		}
	}
	for _, r := range sealed {
		see(r.maxTimestamp)
	}
	for len(tail) > 0 {
		n := x.group(tail)
		see(tail[n-1].MaxTimestamp)
		tail = tail[n:]
	}
	return ms, ok
}

// First is the logical offset of the partition's first batch at or behind from, a segment's start.
func (x *Index) First(id uint32, from journal.Offset) (journal.LogicalOffset, bool) {
	p := x.get(id)
	if p == nil {
		return 0, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if n := sort.Search(len(p.sealed), func(i int) bool { return p.sealed[i].segment >= from }); n < len(p.sealed) {
		return p.sealed[n].first, true
	}
	if tail := between(p.tail, from, 1<<62); len(tail) > 0 {
		return tail[0].Base, true
	}
	return 0, false
}

// Seal writes the index file of a full segment and forgets its entries. All of the segment was added. Maintenance goroutine only; after an error
// nothing has changed.
func (x *Index) Seal(segment journal.Offset) error {
	end := segment + journal.Offset(x.segmentBytes)
	entries := make(map[uint32][]Entry)
	x.mu.RLock()
	for id, p := range x.partitions {
		p.mu.RLock()
		if es := between(p.tail, segment, end); len(es) > 0 {
			entries[id] = es
		}
		p.mu.RUnlock()
	}
	x.mu.RUnlock()
	return x.store(segment, entries)
}

func between(tail []Entry, from, to journal.Offset) []Entry {
	a := sort.Search(len(tail), func(i int) bool { return tail[i].At >= from })
	b := sort.Search(len(tail), func(i int) bool { return tail[i].At >= to })
	return tail[a:b]
}

// store writes a segment's file and puts it in place of the entries in memory.
func (x *Index) store(segment journal.Offset, entries map[uint32][]Entry) error {
	if err := writeFile(x.fsys, x.dir, segment, entries); err != nil {
		return err
	}
	return x.Load(segment)
}

// Load takes a segment's index file into the index. A missing or damaged one is an error, and Rebuild the way out. Maintenance goroutine, or at start, in ascending order.
func (x *Index) Load(segment journal.Offset) error {
	f, runs, err := openFile(x.fsys, x.dir, segment)
	if err != nil {
		return err
	}
	x.mu.Lock()
	if old := x.files[segment]; old != nil { // damaged, and made anew
		old.release()
	}
	x.files[segment] = f
	x.mu.Unlock()
	end := segment + journal.Offset(x.segmentBytes)
	for id, r := range runs {
		p := x.Partition(id)
		p.mu.Lock()
		sealed := slices.Clone(p.sealed)
		if i := slices.IndexFunc(sealed, func(have run) bool { return have.segment == segment }); i >= 0 {
			sealed[i] = r
		} else {
			sealed = append(sealed, r)
		}
		p.sealed = sealed
		if keep := between(p.tail, end, 1<<62); len(keep) < len(p.tail) {
			// As much room as the segment took: the next one will be like it.
			p.tail = append(make([]Entry, 0, len(p.tail)), keep...)
		}
		p.mu.Unlock()
	}
	return nil
}

// Rebuild makes a full segment's index anew from its frames, also while the damaged one is in use: a segment has the same index each time. Maintenance goroutine, or at start. The frames are those which each hands out as entries with their batches' own times.
func (x *Index) Rebuild(segment journal.Offset, each func(add func(id uint32, e Entry)) error) error {
	entries := make(map[uint32][]Entry)
	err := each(func(id uint32, e Entry) {
		es := entries[id]
		if n := len(es); n > 0 {
			e.MaxTimestamp = max(e.MaxTimestamp, es[n-1].MaxTimestamp)
		}
		entries[id] = append(es, e)
	})
	if err != nil {
		return err
	}
	return x.store(segment, entries)
}

// DropBefore forgets everything in segments before first; their files are unlinked with the segments.
func (x *Index) DropBefore(first journal.Offset) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for segment, f := range x.files {
		if segment < first {
			delete(x.files, segment)
			f.release()
		}
	}
	for _, p := range x.partitions {
		p.mu.Lock()
		n := sort.Search(len(p.sealed), func(i int) bool { return p.sealed[i].segment >= first })
		p.sealed = slices.Clone(p.sealed[n:])
		p.tail = between(p.tail, first, 1<<62)
		p.mu.Unlock()
	}
}

// Forget drops a deleted partition's entries from memory.
func (x *Index) Forget(id uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.partitions, id)
}

// Close closes the files.
func (x *Index) Close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range x.files {
		f.release()
	}
	clear(x.files)
}
