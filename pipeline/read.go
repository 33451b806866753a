package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/internal/bufpool"
	"tidemark/journal"
	"tidemark/journal/index"
)

// Reading is no stage: any goroutine that may block can do it. It sees what is below indexed, takes bytes from the cache if they are there and else from the
// segment, compares every record's header with its index entry, and the batch's checksum when it came from disk.

// Why a read gives nothing.
var (
	// ErrOutOfRange: the offset is below log start or past the high watermark.
	ErrOutOfRange = errors.New("pipeline: offset out of range")
)

// MismatchError says that the journal does not hold what the index says it should.
type MismatchError struct {
	Partition *catalog.Partition
	Segment   journal.Offset
	Offset    journal.Offset
	Cause     string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("partition %s-%d: segment %020d at offset %d: %s", e.Partition.Topic, e.Partition.Index, e.Segment, e.Offset, e.Cause)
}

// readSpanBytes is the most that is read from disk at once for neighbouring batches.
const readSpanBytes = 1 << 20

// Read appends whole batches of part to dst, from the one that holds logical offset from on and below to, which is its high watermark or its last stable offset, while they fit maxBytes; with atLeastOne the first comes in any case. From to on it appends nothing. It is fastest when dst holds journal.RecordHeaderBytes or more, which are as they were when it returns.
func (p *Pipeline) Read(part *catalog.Partition, from, to journal.LogicalOffset, maxBytes int, atLeastOne bool, dst []byte) ([]byte, error) {
	if from < part.LogStart() || from > part.HighWatermark() {
		return dst, ErrOutOfRange
	}
	start := len(dst)
	var buf [128]index.Entry
	var before [journal.RecordHeaderBytes]byte
	var span spanRead
	defer func() { p.readAhead(&span, len(dst)-start) }()
	for from < to {
		entries, err := p.index.Find(part.ID, from, len(buf), buf[:0])
		if errors.Is(err, journal.ErrGone) {
			return dst, ErrOutOfRange
		}
		if err != nil {
			p.indexDamaged(err)
			p.readFailed(part, err)
			return dst, err
		}
		if len(entries) == 0 {
			return dst, nil
		}
		for i, e := range entries {
			used := len(dst) - start
			if e.Base >= to {
				return dst, nil
			}
			if e.Base > from { // a gap, from a repair or since retention has just taken what comes next
				switch {
				case used > 0:
					return dst, nil // what is before it is good
				case from < part.LogStart():
					return dst, ErrOutOfRange
				}
			}
			if used+int(e.Bytes) > maxBytes && (used > 0 || !atLeastOne) {
				return dst, nil
			}
			n := journal.RecordHeaderBytes + int(e.Bytes)
			// The record's header goes over the last bytes before it, which come back: so the batch lies where it belongs at once.
			at := len(dst)
			lead := copy(before[:], dst[max(at-journal.RecordHeaderBytes, 0):])
			dst = slices.Grow(dst, n-lead)[:at-lead+n]
			record := dst[at-lead:]
			if !p.journal.Cache().Read(record, e.At) {
				if !span.has(e.At, n) {
					err = p.readSpan(&span, entries[i:], maxBytes-used)
				}
				if err == nil {
					copy(record, span.bytes[e.At-span.at:])
					err = p.checkBatch(part, e, record[journal.RecordHeaderBytes:])
				}
			}
			if err == nil {
				err = p.checkRecord(part, e, record)
			}
			copy(record, before[:lead])
			if err != nil {
				dst = dst[:at]
				if errors.Is(err, journal.ErrGone) {
					err = ErrOutOfRange
				}
				if at > start { // what was read before it is good
					return dst, nil
				}
				p.readFailed(part, err)
				return dst, err
			}
			if lead < journal.RecordHeaderBytes { // dst holds too little
				copy(dst[at:], record[journal.RecordHeaderBytes:])
			}
			dst = dst[:at+int(e.Bytes)]
			from = e.Next()
		}
	}
	return dst, nil
}

// readFailed tells of an error of the disk; the others have an event of their own, or none.
func (p *Pipeline) readFailed(part *catalog.Partition, err error) {
	if errors.As(err, new(*fs.PathError)) {
		p.event(ReadFailed{Partition: part, Err: err})
	}
}

// spanRead is a stretch of the stream that was read from disk.
type spanRead struct {
	buf   *bufpool.Buffer // that holds it
	bytes []byte
	at    journal.Offset

	begin, end journal.Offset // of all that was read with it
}

func (s *spanRead) has(at journal.Offset, n int) bool {
	return at >= s.at && at+journal.Offset(n) <= s.at+journal.Offset(len(s.bytes))
}

const (
	// readAheadMax is the most of the stream that is read ahead of one reader.
	readAheadMax = 16 << 20
	// readAheadPart is the smallest part of the stream that has to be of its partition.
	readAheadPart = 8
)

// readAhead ends a read of so many bytes of batches. If they came from disk, the disk is told to go on with as much of the stream as they were taken from, for the next read of the same reader: so it works while the answer is on its way.
func (p *Pipeline) readAhead(s *spanRead, n int) {
	if s.buf == nil {
		return
	}
	s.buf.Put()
	if stretch := int64(s.end - s.begin); n > 0 && stretch <= int64(readAheadPart*n) {
		p.journal.WillNeed(s.end, min(stretch, readAheadMax))
	}
}

// readSpan reads the first entry's record from disk, and its neighbours with it while they lie close.
func (p *Pipeline) readSpan(s *spanRead, entries []index.Entry, wanted int) error {
	first := entries[0]
	end := first.At + journal.RecordHeaderBytes + journal.Offset(first.Bytes)
	useful := int(first.Bytes)
	segEnd := first.At - first.At%journal.Offset(p.journal.SegmentBytes()) + journal.Offset(p.journal.SegmentBytes())
	for _, e := range entries[1:] {
		to := e.At + journal.RecordHeaderBytes + journal.Offset(e.Bytes)
		useful += int(e.Bytes)
		if to > segEnd || to-first.At > readSpanBytes || useful > wanted || int(to-first.At) > 2*useful+4096 {
			break
		}
		end = to
	}
	n := int(end - first.At)
	if s.buf == nil || cap(s.bytes) < n {
		s.buf.Put()
		s.buf = bufpool.Get(max(n, readSpanBytes))
	}
	s.bytes, s.at = s.buf.Bytes()[:n], first.At
	_, err := p.journal.Read(s.bytes, first.At)
	if err != nil {
		s.bytes = nil
		return err
	}
	if s.end == 0 {
		s.begin = first.At
	}
	s.end = end
	return nil
}

// checkRecord compares the record's own header with the entry that led to it.
func (p *Pipeline) checkRecord(part *catalog.Partition, e index.Entry, b []byte) error {
	kind, id, size, base := journal.PeekRecord(b)
	if kind != journal.RecordBatch || id != part.ID || base != e.Base || size != int(e.Bytes) {
		return p.mismatch(part, e, "another record stands where the index says")
	}
	return nil
}

// checkBatch looks at a batch that came from disk: its checksum, and the fields at its head that the checksum does not cover.
func (p *Pipeline) checkBatch(part *catalog.Partition, e index.Entry, b []byte) error {
	if !batch.SoundCRC(b) {
		return p.mismatch(part, e, "batch checksum mismatch")
	}
	head := batch.Head(b)
	epoch := part.EpochAt(e.Base) // -1 when it is so old that it was forgotten
	if head.Base != int64(e.Base) || batch.Bytes(b) != int(e.Bytes) || b[16] != 2 || epoch >= 0 && head.LeaderEpoch != epoch {
		return p.mismatch(part, e, "the head of the batch is not the one that was written")
	}
	return nil
}

// indexDamaged has the index file that err names, if it names one, made anew. Until that is done reads of its segment fail with an error that clients retry.
func (p *Pipeline) indexDamaged(err error) {
	if c := (*journal.CorruptError)(nil); errors.As(err, &c) {
		p.upkeep.rebuild(c)
	}
}

func (p *Pipeline) mismatch(part *catalog.Partition, e index.Entry, cause string) error {
	err := &MismatchError{Partition: part, Segment: e.At - e.At%journal.Offset(p.journal.SegmentBytes()), Offset: e.At, Cause: cause}
	p.event(ReadMismatch{Err: err})
	return err
}

// Available is the size of the batches of part from logical offset from on, if that is below to, counted no further than limit; what lies behind to may be in it.
func (p *Pipeline) Available(part *catalog.Partition, from, to journal.LogicalOffset, limit int) int {
	if from >= to {
		return 0
	}
	return p.index.Bytes(part.ID, from, limit)
}

// Fits is how many bytes Read appends with the same arguments, unless something changes in between.
func (p *Pipeline) Fits(part *catalog.Partition, from, to journal.LogicalOffset, maxBytes int, atLeastOne bool) int {
	n := 0
	var buf [64]index.Entry
	for from < to {
		entries, err := p.index.Find(part.ID, from, len(buf), buf[:0])
		if err != nil || len(entries) == 0 {
			return n
		}
		for _, e := range entries {
			if e.Base >= to || n+int(e.Bytes) > maxBytes && (n > 0 || !atLeastOne) {
				return n
			}
			n += int(e.Bytes)
		}
		from = entries[len(entries)-1].Next()
	}
	return n
}

// BatchAtTime returns a batch of part with records from offset from on, which is log start or behind it, that none with a record of time ms or later comes before; nil when there is none. It has such a record itself unless one below from was the first in its segment.
func (p *Pipeline) BatchAtTime(part *catalog.Partition, from journal.LogicalOffset, ms int64) ([]byte, error) {
	e, ok, err := p.index.FindTime(part.ID, from, ms)
	if err != nil || !ok {
		p.indexDamaged(err)
		return nil, err
	}
	if from = max(e.Base, from, part.LogStart()); from >= part.HighWatermark() { // log start may have moved
		return nil, nil
	}
	return p.Read(part, from, part.HighWatermark(), 0, true, nil)
}

// MaxTime is the largest time, ms, of the batches of part that the index has, some of which may lie below log start; false when there are none.
func (p *Pipeline) MaxTime(part *catalog.Partition) (ms int64, ok bool) {
	return p.index.MaxTime(part.ID)
}

// catchUp is where readers wait for the index stage.
type catchUp struct {
	waiting atomic.Int32
	mu      sync.Mutex
	moved   *sync.Cond // on mu
}

// CatchUp waits until readers see everything that is committed now: so a client whose request was acknowledged as flushed or more finds it in its next read, as with Kafka.
func (p *Pipeline) CatchUp() {
	p.catchUpTo(p.committed.Load())
}

func (p *Pipeline) catchUpTo(target journal.Offset) {
	if p.indexed.Load() >= target {
		return
	}
	c := &p.catchUp
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting.Add(1) // raised before indexed is looked at again: the follow goroutine moves indexed and then looks here
	defer c.waiting.Add(-1)
	for p.indexed.Load() < target && !p.failed.Load() {
		c.moved.Wait()
	}
}

// CatchUpWritten is CatchUp with all that is written by now, acknowledged at whatever level, and has it flushed for that.
func (p *Pipeline) CatchUpWritten() {
	target := p.written.Load()
	if p.indexed.Load() >= target {
		return
	}
	p.flush.demandAll()
	p.catchUpTo(target)
}

// wake has those who catch up look again.
func (c *catchUp) wake() {
	if c.waiting.Load() > 0 {
		c.mu.Lock()
		c.moved.Broadcast()
		c.mu.Unlock()
	}
}

// Wait registers w for the next move of part's high watermark past seen, and lets the flush stage know that somebody waits. False: it has moved already. Each successful Wait is followed by one Unwait.
func (p *Pipeline) Wait(part *catalog.Partition, w catalog.Waiter, seen journal.LogicalOffset) bool {
	if !part.Wait(w, seen) {
		return false
	}
	if p.readers.Add(1) == 1 {
		p.flush.wake.set()
	}
	return true
}

// Unwait takes back a Wait, whether or not w was woken.
func (p *Pipeline) Unwait(part *catalog.Partition, w catalog.Waiter) {
	part.Unwait(w)
	p.readers.Add(-1)
}
