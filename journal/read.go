package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"tidemark/internal/vfs"
)

// Source says where bytes came from: those from disk have their checksums compared.
type Source uint8

const (
	FromCache Source = iota
	FromDisk
)

// Read fills p with the stream's bytes at offset at, from the cache if they are all there and else from the segment, which they must lie in as one range. The range lies
// below flushed. Any goroutine, but never one that must not block.
func (j *Journal) Read(p []byte, at Offset) (Source, error) {
	if j.cache.Read(p, at) {
		return FromCache, nil
	}
	return FromDisk, j.readDisk(p, at)
}

func (j *Journal) readDisk(p []byte, at Offset) error {
	seg, err := j.segs.acquire(at)
	if err != nil {
		return err
	}
	defer seg.release()
	if int64(at-seg.start)+int64(len(p)) > j.opts.SegmentBytes {
		return fmt.Errorf("read of %d bytes at %d passes the end of segment %020d", len(p), at, seg.start)
	}
	if int64(seg.start)+j.opts.SegmentBytes <= j.sealedTo.Load() {
		_, err = seg.cold.ReadAt(p, int64(at-seg.start))
	} else {
		err = readAligned(seg.file, p, int64(at-seg.start))
	}
	if err != nil {
		return fmt.Errorf("read segment %020d at offset %d: %w", seg.start, at, err)
	}
	return nil
}

// WillNeed is a hint that the stream is read on from offset at, n bytes of it: what lies in the same full segment and not in the cache is read ahead. Any goroutine that may wait for the disk.
func (j *Journal) WillNeed(at Offset, n int64) {
	seg, err := j.segs.acquire(at)
	if err != nil {
		return
	}
	defer seg.release()
	if int64(seg.start)+j.opts.SegmentBytes > j.sealedTo.Load() {
		return
	}
	off := int64(at - seg.start)
	vfs.WillNeed(seg.cold, off, min(n, j.opts.SegmentBytes-off))
}

// readAligned reads any range of a Direct file by way of whole blocks.
func readAligned(f vfs.File, p []byte, off int64) error {
	from := off &^ (vfs.BlockBytes - 1)
	to := (off + int64(len(p)) + vfs.BlockBytes - 1) &^ (vfs.BlockBytes - 1)
	b := vfs.AlignedBytes(int(to - from))
	n, err := f.ReadAt(b, from)
	if int64(n) < off-from+int64(len(p)) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	copy(p, b[off-from:])
	return nil
}

// FrameAt returns the frame at offset at, which lies below committed, for the goroutine that keeps bytes from leaving the cache (indexed, which it moves, bounds eviction). The
// body aliases the cache when it lies there in one piece, else scratch, which grows as needed.
func (j *Journal) FrameAt(at Offset, scratch *[]byte) (Frame, error) {
	if j.segmentEnd(at)-at < FrameHeaderBytes {
		return Frame{}, fmt.Errorf("offset %d is in a segment's remainder", at)
	}
	if at >= j.cache.floor && j.cache.slab(at).base.Load() == int64(roundDown(at, j.cache.slabBytes)) {
		f := Frame{FrameHeader: j.cache.header(at)}
		if f.Type == FrameFiller {
			return f, nil
		}
		a, b := j.cache.span(at+FrameHeaderBytes, int(f.BodyBytes))
		if len(b) == 0 {
			f.Body = a
			return f, nil
		}
		f.Body = grow(scratch, int(f.BodyBytes))
		copy(f.Body[copy(f.Body, a):], b)
		return f, nil
	}
	var head [FrameHeaderBytes]byte
	if err := j.readDisk(head[:], at); err != nil {
		return Frame{}, err
	}
	corrupt := func(cause error) (Frame, error) {
		return Frame{}, &CorruptError{Segment: roundDown(at, j.opts.SegmentBytes), Offset: at, Cause: cause.Error()}
	}
	h, err := decodeFrame(head[:], j.saltSeed, at)
	if err != nil {
		return corrupt(err)
	}
	f := Frame{FrameHeader: h}
	if h.Type == FrameFiller {
		return f, nil
	}
	if h.End() > j.segmentEnd(at) {
		return corrupt(errOverrun)
	}
	f.Body = grow(scratch, int(h.BodyBytes))
	if err := j.readDisk(f.Body, at+FrameHeaderBytes); err != nil {
		return Frame{}, err
	}
	if crc32.Checksum(f.Body, castagnoli) != h.BodyCRC {
		return corrupt(errBody)
	}
	return f, nil
}

// FrameTime is the time, in ms, of the frame that begins at offset at. Any goroutine.
func (j *Journal) FrameTime(at Offset) (int64, error) {
	var head [FrameHeaderBytes]byte
	if _, err := j.Read(head[:], at); err != nil {
		return 0, err
	}
	h, err := decodeFrame(head[:], j.saltSeed, at)
	if err != nil {
		return 0, &CorruptError{Segment: roundDown(at, j.opts.SegmentBytes), Offset: at, Cause: err.Error()}
	}
	return h.TimestampMs, nil
}

// NextFrame is the position of the frame behind one that ends at end: the same, or the next segment when no header fits behind it.
func (j *Journal) NextFrame(end Offset) Offset {
	if segEnd := j.segmentEnd(end); segEnd-end < FrameHeaderBytes {
		return segEnd
	}
	return end
}

func grow(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	return (*b)[:n]
}

// EachFrame reads [from, to) from disk with every check and calls fn for each frame but fillers. from is a frame's start or a segment's. It is for start-up and for rebuilding
// indexes of full segments; a frame that is not sound is a CorruptError.
func (j *Journal) EachFrame(from, to Offset, fn func(Frame) error) error {
	s := newScanner(j.segs, j.saltSeed, from)
	defer s.close()
	for j.NextFrame(s.pos) < to {
		f, err := s.next()
		if err != nil {
			if u := (*unsound)(nil); errors.As(err, &u) || errors.Is(err, errEnd) {
				err = &CorruptError{Segment: roundDown(s.pos, j.opts.SegmentBytes), Offset: s.pos, Cause: err.Error()}
			}
			return err
		}
		if f.Type.opaque() {
			continue
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}
