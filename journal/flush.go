package journal

import (
	"fmt"

	"tidemark/internal/planted"
	"tidemark/internal/vfs"
)

// FlushMaxBytes is the most that one synced write takes.
const FlushMaxBytes = 2 << 20

// Flusher makes the stream durable, piece by piece. The flush goroutine owns it.
//
// One write goes from the last one's end, rounded down to a block, to written, or to the last block boundary within FlushMaxBytes, inside a frame if need be. It spans neither segments nor the ring's
// end. Its last block, when partial, is copied first and padded with zeros: the write goroutine may be appending to it.
// A crash in a write leaves each sector old or new; the frames in it are above flushed, so no one was told of them.
type Flusher struct {
	j       *Journal
	synced  Offset      // bytes below it are durable: a frame end, or a block boundary inside a frame
	flushed Offset      // end of the last frame wholly below synced
	last    FrameHeader // of that frame (a filler counts)
	bounce  []byte

	late   []byte // planted.FlushesShareABlock only
	lateAt Offset
}

// Flushed is the end of the last frame that is wholly durable.
func (f *Flusher) Flushed() Offset { return f.flushed }

// Mark describes the synced end, for the mark file.
func (f *Flusher) Mark() Mark {
	return Mark{Flushed: f.flushed, Term: f.last.Term, Index: f.last.Index, Chain: f.last.HeaderCRC, Cut: NoCut}
}

// Step writes one piece of [synced, written) and returns the bytes it wrote and the new flushed. Any error is a FatalError.
func (f *Flusher) Step(written Offset) (n int, flushed Offset, err error) {
	if f.synced >= written {
		return 0, f.flushed, nil
	}
	segEnd := f.j.segmentEnd(f.synced)
	to := min(written, segEnd, f.j.cache.lapEnd(f.synced))
	if capped := roundDown(f.synced+FlushMaxBytes, vfs.BlockBytes); to > capped {
		to = capped
	}
	dataEnd, newSynced, newFlushed, last := to, to, f.flushed, f.last
	for newFlushed < to {
		if segEnd-newFlushed < FrameHeaderBytes { // the remainder belongs to the frame before it
			dataEnd, newSynced, newFlushed = newFlushed, segEnd, segEnd
			break
		}
		h := f.j.cache.header(newFlushed)
		if h.Type == FrameFiller {
			if newFlushed+FrameHeaderBytes > to {
				break
			}
			dataEnd, newSynced, newFlushed, last = newFlushed+FrameHeaderBytes, segEnd, segEnd, h
			break
		}
		if h.End() > to {
			break
		}
		newFlushed, last = h.End(), h
	}
	if dataEnd > f.synced {
		n, err = f.write(roundDown(f.synced, vfs.BlockBytes), dataEnd)
		if err != nil {
			return n, f.flushed, err
		}
	}
	f.synced, f.flushed, f.last = newSynced, newFlushed, last
	f.j.sealedTo.Store(int64(newFlushed))
	return n, f.flushed, nil
}

// write makes [from, to) durable. from is a block boundary.
func (f *Flusher) write(from, to Offset) (int, error) {
	seg, err := f.j.segs.acquire(from)
	if err != nil {
		return 0, &FatalError{Op: "flush", Err: err}
	}
	defer seg.release()
	var two [2][]byte
	bufs := two[:0]
	whole := roundDown(to, vfs.BlockBytes)
	if whole > from {
		a, _ := f.j.cache.span(from, int(whole-from))
		bufs = append(bufs, a)
	}
	if rest := int(to - whole); rest > 0 {
		f.j.cache.get(f.bounce[:rest], whole)
		clear(f.bounce[rest:])
		bufs = append(bufs, f.bounce)
	}
	n, err := seg.file.WriteSync(bufs, int64(from-seg.start))
	if planted.Is(planted.FlushesShareABlock) {
		f.landLate(seg, from, to)
	}
	if err != nil && !planted.Is(planted.IgnoreSyncError) {
		return n, &FatalError{Op: fmt.Sprintf("write and sync of segment %020d at offset %d, %d bytes", seg.start, from, to-from), Err: err}
	}
	return n, nil
}

// landLate is a planted bug: the flush before this one ended inside a block, and its copy of the block reaches the disk after this one's.
func (f *Flusher) landLate(seg *segment, from, to Offset) {
	if f.late != nil && f.lateAt == from && to > from {
		_, _ = seg.file.WriteSync([][]byte{f.late}, int64(from-seg.start))
	}
	f.late = nil
	if to%vfs.BlockBytes != 0 {
		f.late, f.lateAt = vfs.AlignedBytes(vfs.BlockBytes), roundDown(to, vfs.BlockBytes)
		copy(f.late, f.bounce)
	}
}

// lapEnd is the first position behind o at which the ring begins anew.
func (c *Cache) lapEnd(o Offset) Offset {
	lap := int64(len(c.mem))
	return roundDown(o, lap) + Offset(lap)
}

// header reads the frame header at o, which the write goroutine has published: it is taken as it is.
func (c *Cache) header(o Offset) FrameHeader {
	var b [FrameHeaderBytes]byte
	c.get(b[:], o)
	return trustedHeader(&b)
}
