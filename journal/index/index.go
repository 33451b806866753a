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
	sealed []run     // ascending; guarded by mu
	tail   []stretch // of segments without a file, ascending; guarded by mu
}

// stretch is a partition's entries in one segment.
type stretch struct {
	segment journal.Offset
	entries []Entry // ascending, at least one
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

	piece []byte // maintenance goroutine, and at start: where pages of a file are laid out

	spareMu   sync.Mutex
	spares    [][]Entry // empty, to be used again; guarded by spareMu
	spareRoom int       // entries that they have room for; guarded by spareMu
}

// sparesMax bounds the room that is kept for use again: 8 MiB, what a segment of 1 KiB batches takes.
const sparesMax = 256 << 10

// fresh is room for a stretch.
func (x *Index) fresh() []Entry {
	x.spareMu.Lock()
	defer x.spareMu.Unlock()
	last := len(x.spares) - 1
	if last < 0 {
		return nil
	}
	es := x.spares[last]
	x.spares = x.spares[:last]
	x.spareRoom -= cap(es)
	return es
}

// keep takes the room of a stretch that nobody looks at any more.
func (x *Index) keep(es []Entry) {
	x.spareMu.Lock()
	defer x.spareMu.Unlock()
	if x.spareRoom+cap(es) <= sparesMax {
		x.spares = append(x.spares, es[:0])
		x.spareRoom += cap(es)
	}
}

// New is an empty index of the journal in dir. Load, Rebuild and Add fill it.
func New(fsys vfs.FS, dir string, segmentBytes int64) *Index {
	return &Index{fsys: fsys, dir: dir, segmentBytes: segmentBytes, partitions: make(map[uint32]*Partition), files: make(map[journal.Offset]*file),
		piece: vfs.AlignedBytes(pieceBytes)}
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
	segment := x.segmentOf(es[0].At)
	if n := len(p.tail); n == 0 || p.tail[n-1].segment != segment {
		p.tail = append(p.tail, stretch{segment: segment, entries: x.fresh()})
	}
	s := &p.tail[len(p.tail)-1]
	newest, n := int64(math.MinInt64), len(s.entries)
	if n > 0 {
		newest = s.entries[n-1].MaxTimestamp
	}
	s.entries = append(s.entries, es...)
	for i := range es {
		e := &s.entries[n+i]
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
	if i := sort.Search(len(p.sealed), func(i int) bool { return p.sealed[i].next > o }); i < len(p.sealed) {
		r := p.sealed[i]
		p.mu.RUnlock()
		return x.findSealed(r, limit, dst, func(e Entry) bool { return e.Next() > o })
	}
	defer p.mu.RUnlock()
	for i := range p.tail {
		if es := p.tail[i].entries; es[len(es)-1].Next() > o {
			i := sort.Search(len(es), func(i int) bool { return es[i].Next() > o })
			return append(dst, es[i:min(i+limit, len(es))]...), nil
		}
	}
	return dst, nil
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

// FindTime returns the first batch that has records from offset from on and comes with or behind one of its segment that holds a record of time ms or later. From offset 0 on that is the first batch that holds such a record.
func (x *Index) FindTime(id uint32, from journal.LogicalOffset, ms int64) (Entry, bool, error) {
	p := x.get(id)
	if p == nil {
		return Entry{}, false, nil
	}
	reached := func(e Entry) bool { return e.MaxTimestamp >= ms && e.Next() > from }
	p.mu.RLock()
	for _, r := range p.sealed {
		if r.maxTimestamp >= ms && r.next > from {
			p.mu.RUnlock()
			es, err := x.findSealed(r, 1, nil, reached)
			if err != nil || len(es) == 0 {
				return Entry{}, false, err
			}
			return es[0], true, nil
		}
	}
	defer p.mu.RUnlock()
	for _, s := range p.tail {
		if es := s.entries; reached(es[len(es)-1]) {
			return es[sort.Search(len(es), func(i int) bool { return reached(es[i]) })], true, nil
		}
	}
	return Entry{}, false, nil
}

// MaxTime is the largest time of all the partition's batches.
func (x *Index) MaxTime(id uint32) (ms int64, ok bool) {
	p := x.get(id)
	if p == nil {
		return 0, false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	see := func(t int64) {
		if !ok || t > ms {
			ms, ok = t, true
		}
	}
	for _, r := range p.sealed {
		see(r.maxTimestamp)
	}
	for _, s := range p.tail {
		see(s.entries[len(s.entries)-1].MaxTimestamp)
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
	for _, s := range p.tail {
		if s.segment >= from {
			return s.entries[0].Base, true
		}
	}
	return 0, false
}

// Seal writes the index file of a full segment and forgets its entries. All of the segment was added. Maintenance goroutine only; after an error
// nothing has changed.
func (x *Index) Seal(segment journal.Offset) error {
	entries := make(map[uint32][]Entry)
	x.mu.RLock()
	for id, p := range x.partitions {
		p.mu.RLock()
		if i := slices.IndexFunc(p.tail, func(s stretch) bool { return s.segment == segment }); i >= 0 {
			entries[id] = p.tail[i].entries
		}
		p.mu.RUnlock()
	}
	x.mu.RUnlock()
	return x.store(segment, entries)
}

// store writes a segment's file and puts it in place of the entries in memory.
func (x *Index) store(segment journal.Offset, entries map[uint32][]Entry) error {
	if err := writeFile(x.fsys, x.dir, segment, entries, x.piece); err != nil {
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
		p.dropTail(segment+journal.Offset(x.segmentBytes), x.keep)
		p.mu.Unlock()
	}
	return nil
}

// dropTail forgets the entries of segments before first. p.mu is held.
func (p *Partition) dropTail(first journal.Offset, keep func([]Entry)) {
	n := 0
	for n < len(p.tail) && p.tail[n].segment < first {
		keep(p.tail[n].entries)
		n++
	}
	p.tail = slices.Delete(p.tail, 0, n)
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
		p.dropTail(first, x.keep)
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
