package journal

import (
	"errors"
	"fmt"
)

// Appender builds frames at the end of the stream, in the cache. The write goroutine owns it.
//
// A frame is built unpublished: Begin places it, Add fills it, Sum makes its body's checksum, Seal stamps the header and hands out the new written
// offset. Drop forgets it instead. When a frame does not fit the rest of a segment, Begin puts a filler there; it becomes part of the
// stream with the frame behind it, so a dropped frame leaves no trace.
type Appender struct {
	j *Journal

	// what stands at the end of the stream
	end       Offset // written
	chain     uint32 // header CRC of the last frame, fillers included
	term      Term   // of the last frame
	index     Index  // of the last frame
	timestamp int64  // of the last frame, ms

	// the frame being built; head.Start is -1 when there is none
	head       FrameHeader
	at         Offset // where the next record goes
	limit      Offset // where the frame will end
	afterChain uint32 // chain that the frame follows: a filler's, or that of the last frame

	fetched byte // keeps fetch from being optimized away
}

// Why a frame cannot begin now.
var (
	// ErrNoSegment: the frame needs a segment that does not exist yet. Maintain makes it.
	ErrNoSegment = errors.New("journal: the next segment is not there yet")
	// ErrCacheFull: the frame needs room that bytes not yet flushed and indexed take.
	ErrCacheFull = errors.New("journal: the cache is full of bytes that are not flushed or not indexed")
	// ErrCachePinned: the frame needs room that a reader holds; Cache.Unpinned gets a signal.
	ErrCachePinned = errors.New("journal: the cache is held by a reader")
)

// Descriptor is what replication sees of a frame.
type Descriptor struct {
	Start   Offset
	Bytes   int64 // header and body
	BodyCRC uint32
	Records uint32
}

// End is the stream's end, as published last.
func (a *Appender) End() Offset { return a.end }

// Begin places a data frame of bodyBytes (the sum of its records' RecordBytes, at most FrameMax − FrameHeaderBytes). Bytes below bound may leave the cache.
func (a *Appender) Begin(bodyBytes int, timestampMs int64, bound Offset) error {
	return a.begin(FrameData, bodyBytes, timestampMs, bound)
}

func (a *Appender) begin(kind FrameType, bodyBytes int, timestampMs int64, bound Offset) error {
	size := Offset(FrameHeaderBytes + bodyBytes)
	start := a.end
	segEnd := a.j.segmentEnd(start)
	needsFiller := false
	if start+size > segEnd {
		needsFiller = segEnd-start >= FrameHeaderBytes
		start = segEnd
	}
	if start+size > Offset(a.j.segs.readyTo.Load()) {
		return ErrNoSegment
	}
	if ok, pinned := a.j.cache.reserve(start+size, bound); !ok {
		if pinned {
			return ErrCachePinned
		}
		return ErrCacheFull
	}
	a.afterChain = a.chain
	if needsFiller {
		filler := FrameHeader{
			Type: FrameFiller, BodyBytes: uint32(segEnd - a.end - FrameHeaderBytes), Start: a.end,
			Term: a.term, Index: a.index, TimestampMs: a.timestamp, PrevCRC: a.chain,
		}
		a.put(&filler)
		a.afterChain = filler.HeaderCRC
	}
	a.head = FrameHeader{Type: kind, BodyBytes: uint32(bodyBytes), Start: start, TimestampMs: timestampMs, PrevCRC: a.afterChain}
	a.at, a.limit = start+FrameHeaderBytes, start+size
	return nil
}

func (a *Appender) put(h *FrameHeader) {
	var b [FrameHeaderBytes]byte
	h.encode(&b, a.j.saltSeed)
	a.j.cache.put(h.Start, b[:])
}

// fetch reads a byte of each cache line of p, so that p is in the processor's cache when it is written: a lap ago it was last, and a processor waits for many loads at once but for stores one after the other.
// It halves what a copy of 1 KiB takes (docs/bench/NOTES.md).
func fetch(p []byte) (sum byte) {
	for i := 0; i < len(p); i += cacheLineBytes {
		sum += p[i]
	}
	return sum
}

const (
	cacheLineBytes = 64
	fetchMaxBytes  = 128 << 10 // larger copies gain nothing by it
)

var padding [Align]byte

// Add copies a record into the frame and returns where its header lies.
func (a *Appender) Add(kind RecordKind, flags uint8, partition uint32, base LogicalOffset, payload []byte) Offset {
	at := a.at
	if at+Offset(RecordBytes(len(payload))) > a.limit {
		panic(fmt.Sprintf("journal: record of %d bytes at %d passes the frame's end %d", len(payload), at, a.limit))
	}
	room, around := a.j.cache.span(at, RecordBytes(len(payload)))
	if len(around) == 0 {
		if len(room) <= fetchMaxBytes {
			a.fetched += fetch(room)
		}
		encodeRecordHeader((*[RecordHeaderBytes]byte)(room), kind, flags, partition, base, len(payload))
		copy(room[RecordHeaderBytes:], payload)
		clear(room[RecordHeaderBytes+len(payload):])
	} else { // it passes the ring's end
		var head [RecordHeaderBytes]byte
		encodeRecordHeader(&head, kind, flags, partition, base, len(payload))
		a.j.cache.put(at, head[:])
		a.j.cache.put(at+RecordHeaderBytes, payload)
		a.j.cache.put(at+RecordHeaderBytes+Offset(len(payload)), padding[:alignUp(len(payload))-len(payload)])
	}
	a.at += Offset(RecordBytes(len(payload)))
	a.head.Records++
	return at
}

// Sum closes the body and describes the frame for Replicator.Accept.
func (a *Appender) Sum() Descriptor {
	if a.at != a.limit {
		panic(fmt.Sprintf("journal: frame at %d is filled to %d, it was begun for %d", a.head.Start, a.at, a.limit))
	}
	a.head.BodyCRC = a.j.cache.sum(a.head.Start+FrameHeaderBytes, int(a.head.BodyBytes))
	return Descriptor{Start: a.head.Start, Bytes: FrameHeaderBytes + int64(a.head.BodyBytes), BodyCRC: a.head.BodyCRC, Records: a.head.Records}
}

// Seal stamps the header and returns the stream's new end, which the caller publishes as written.
func (a *Appender) Seal(term Term, index Index, flushed Offset) Offset {
	a.head.Term, a.head.Index, a.head.Flushed = term, index, flushed
	a.put(&a.head)
	a.chain, a.term, a.index, a.timestamp = a.head.HeaderCRC, term, index, a.head.TimestampMs
	a.end = a.limit
	return a.end
}

// Drop forgets the frame that was begun.
func (a *Appender) Drop() { a.at, a.limit = 0, 0 }

// LastTimestamp is the last frame's time, ms: frames' times never go back.
func (a *Appender) LastTimestamp() int64 { return a.timestamp }
