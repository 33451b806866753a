package pipeline

import (
	"sync"

	"tidemark/catalog"
	"tidemark/journal"
	"tidemark/journal/index"
)

// placed is what the write stage notes of a frame, so that the follow stage need not read back from the stream what the write stage had in its hands: where each batch lies. A frame that holds a command is read back.
type placed struct {
	end       journal.Offset // of the frame
	ms        int64          // the frame's time
	epoch     int32          // leader epoch of its batches
	readBack  bool
	runs      []run
	entries   []index.Entry // of all runs, one behind the other
	sequences []sequence    // of idempotent batches, in the order of entries
}

// run is batches of one partition that lie one behind the other.
type run struct {
	part  *catalog.Partition
	count int
}

// sequence is what an idempotent batch says of its producer.
type sequence struct {
	entry         int // in placed.entries
	producer      int64
	producerEpoch int16
	base          int32
	transactional bool
}

// add notes one record of the frame.
func (f *placed) add(rec *Record) {
	if rec.Kind != journal.RecordBatch {
		f.readBack = true
		return
	}
	i := &rec.Info
	if i.Idempotent() {
		f.sequences = append(f.sequences, sequence{entry: len(f.entries), producer: i.ProducerID, producerEpoch: i.ProducerEpoch, base: i.BaseSequence, transactional: i.Transactional()})
	}
	f.entries = append(f.entries, index.Entry{}) // filled in where it lies: see docs/bench/NOTES.md, stores
	e := &f.entries[len(f.entries)-1]
	e.Base, e.At, e.Bytes, e.Records, e.MaxTimestamp = rec.Base, rec.at, uint32(len(rec.Payload)), uint32(i.Count), i.MaxTimestamp
	if last := len(f.runs) - 1; last >= 0 && f.runs[last].part == rec.Partition {
		f.runs[last].count++
		return
	}
	f.runs = append(f.runs, run{part: rec.Partition, count: 1})
}

func (f *placed) reset() {
	clear(f.runs) // the partitions may be gone for good by the next use
	*f = placed{runs: f.runs[:0], entries: f.entries[:0], sequences: f.sequences[:0]}
}

// placedFrames is the queue of frames between the write and the follow stage.
//
// In: put, by the write goroutine, before written passes the frame. Out: next and pop, by the follow goroutine. Together they cover all from indexed to written. What they note is bounded: past the bound frames are
// taken together, as a stretch of the stream to be read back.
type placedFrames struct {
	mu      sync.Mutex
	frames  []*placed // guarded by mu; [head:] is waiting, in ascending order
	head    int
	spare   []*placed // guarded by mu; to be used again: together they have room for placedMaxEntries
	room    int       // guarded by mu; of the spare ones, entries
	entries int       // guarded by mu; in frames
}

const (
	placedMaxEntries = 64 << 10 // 2 MiB of them
	placedMaxFrames  = 256
)

// fresh returns an empty one for the next frame.
func (q *placedFrames) fresh() *placed {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := len(q.spare) - 1
	if last < 0 {
		return new(placed)
	}
	f := q.spare[last]
	q.spare = q.spare[:last]
	q.room -= cap(f.entries)
	return f
}

func (q *placedFrames) put(f *placed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := len(q.frames) - q.head
	if q.entries+len(f.entries) > placedMaxEntries || waiting >= placedMaxFrames {
		f.readBack = true
	}
	if f.readBack {
		if waiting > 0 && q.frames[len(q.frames)-1].readBack {
			q.frames[len(q.frames)-1].end = f.end
			q.keep(f)
			return
		}
		*f = placed{end: f.end, readBack: true}
	}
	q.entries += len(f.entries)
	q.frames = append(q.frames, f)
}

// next is the oldest frame that ends at or before committed, or the end of a stretch that is to be read back as far as that. Nil, 0: there is none.
func (q *placedFrames) next(committed journal.Offset) (f *placed, readBack journal.Offset) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.frames) {
		return nil, 0
	}
	switch f = q.frames[q.head]; {
	case f.readBack:
		return nil, min(f.end, committed)
	case f.end <= committed:
		return f, 0
	}
	return nil, 0
}

// pop takes the oldest frame out, if the follow stage has come to its end.
func (q *placedFrames) pop(at journal.Offset) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.frames[q.head]
	if f.end > at {
		return
	}
	q.frames[q.head] = nil
	if q.head++; q.head == len(q.frames) {
		q.frames, q.head = q.frames[:0], 0
	} else if q.head > 64 && q.head > len(q.frames)/2 {
		n := copy(q.frames, q.frames[q.head:])
		clear(q.frames[n:])
		q.frames, q.head = q.frames[:n], 0
	}
	q.entries -= len(f.entries)
	q.keep(f)
}

func (q *placedFrames) keep(f *placed) {
	if len(q.spare) < placedMaxFrames && q.room+cap(f.entries) <= placedMaxEntries {
		q.room += cap(f.entries)
		f.reset()
		q.spare = append(q.spare, f)
	}
}
