package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"tidemark/internal/planted"
	"tidemark/internal/vfs"
)

// scanner reads the stream from disk, segment by segment, and checks every frame: header, place, chain, index and body. It reads through the page cache, so it
// is for start-up and for the offline tools, not for segments that are being written.
type scanner struct {
	segs     *segments
	saltSeed uint32
	frameMax int64 // a longer frame is not believed, so that a forged length allocates nothing

	pos      Offset
	chain    uint32 // of the frame before pos
	hasChain bool   // false before the first frame: its chain value is taken as given
	last     FrameHeader

	seg *segment
	buf []byte // [bufAt, bufAt+len) of the stream
	at  Offset
}

const scanBytes = 1 << 20

func newScanner(segs *segments, saltSeed uint32, from Offset) *scanner {
	return &scanner{segs: segs, saltSeed: saltSeed, frameMax: segs.bytes, pos: from}
}

func (s *scanner) close() {
	if s.seg != nil {
		s.seg.release()
		s.seg = nil
	}
}

// window returns n bytes at the position at, which lie in one segment.
func (s *scanner) window(at Offset, n int) ([]byte, error) {
	if at >= s.at && at+Offset(n) <= s.at+Offset(len(s.buf)) {
		i := int(at - s.at)
		return s.buf[i : i+n : i+n], nil
	}
	if s.seg == nil || at < s.seg.start || at >= s.seg.start+Offset(s.segs.bytes) {
		s.close()
		seg, err := s.segs.acquire(at)
		if err != nil {
			return nil, err
		}
		s.seg = seg
	}
	want := min(int64(max(n, scanBytes)), int64(s.seg.start)+s.segs.bytes-int64(at))
	if int64(n) > want {
		return nil, errOverrun
	}
	if int64(cap(s.buf)) < want {
		s.buf = make([]byte, want)
	}
	s.buf = s.buf[:want]
	s.at = at
	if m, err := s.seg.cold.ReadAt(s.buf, int64(at-s.seg.start)); err != nil && (!errors.Is(err, io.EOF) || m < n) {
		s.buf = s.buf[:0]
		return nil, fmt.Errorf("read segment %020d at offset %d: %w", s.seg.start, at, err)
	}
	return s.buf[:n:n], nil
}

// errEnd says that at its position no segment follows: the end of what there is on disk.
var errEnd = errors.New("no segment follows")

// unsound wraps the reason why no sound frame stands at a position.
type unsound struct {
	cause  error
	header bool // a sound header of this journal stands there; only what follows is wrong
}

func (u *unsound) Error() string { return u.cause.Error() }
func (u *unsound) Unwrap() error { return u.cause }

// next returns the frame at pos and moves behind it, over a filler or a segment's remainder too (a filler is returned). Errors: errEnd, *unsound, or that of a read.
func (s *scanner) next() (Frame, error) {
	segEnd := roundDown(s.pos, s.segs.bytes) + Offset(s.segs.bytes)
	if segEnd-s.pos < FrameHeaderBytes {
		s.pos, segEnd = segEnd, segEnd+Offset(s.segs.bytes)
	}
	head, err := s.window(s.pos, FrameHeaderBytes)
	if errors.Is(err, ErrGone) {
		return Frame{}, errEnd
	}
	if err != nil {
		return Frame{}, err
	}
	h, err := decodeFrame(head, s.saltSeed, s.pos)
	if err != nil {
		return Frame{}, &unsound{cause: err}
	}
	bad := func(cause error) (Frame, error) { return Frame{}, &unsound{cause: cause, header: true} }
	if h.End() > segEnd || (h.Type == FrameFiller && h.End() != segEnd) {
		return bad(errOverrun)
	}
	if s.hasChain && !planted.Is(planted.StaleFrames) && !planted.Is(planted.ZerosAreFrames) {
		wantIndex := s.last.Index + 1
		if h.Type == FrameFiller {
			wantIndex--
		}
		if h.PrevCRC != s.chain || h.Term < s.last.Term || h.Index != wantIndex && (h.Type != FrameGap || h.Index < s.last.Index) {
			return bad(errChain)
		}
	}
	f := Frame{FrameHeader: h}
	if !h.Type.opaque() {
		if int64(h.BodyBytes) > s.frameMax {
			return bad(errOverrun)
		}
		f.Body, err = s.window(s.pos+FrameHeaderBytes, int(h.BodyBytes))
		if err != nil {
			return Frame{}, err
		}
		if crc32.Checksum(f.Body, castagnoli) != h.BodyCRC {
			return bad(errBody)
		}
	}
	s.chain, s.hasChain, s.last = h.HeaderCRC, true, h
	if h.Type == FrameGap {
		s.chain = h.BodyCRC
	}
	s.pos = h.End()
	return f, nil
}

// soundHeaders looks at every aligned position of [from, end of the last segment) for sound headers that name their own position, and calls fn for each.
func (s *scanner) soundHeaders(from Offset, fn func(FrameHeader)) error {
	_, end := s.segs.bounds()
	for pos := from; pos < end; {
		segEnd := roundDown(pos, s.segs.bytes) + Offset(s.segs.bytes)
		n := int(min(int64(segEnd-pos), scanBytes))
		b, err := s.window(pos, n)
		if err != nil {
			return err
		}
		for i := 0; i+FrameHeaderBytes <= n; i += Align {
			if b[i] != byte(frameMagic&0xff) {
				continue
			}
			if h, err := decodeFrame(b[i:], s.saltSeed, pos+Offset(i)); err == nil {
				fn(h)
			}
		}
		if pos+Offset(n) >= segEnd {
			pos = segEnd
		} else {
			pos += Offset(n - n%vfs.BlockBytes - vfs.BlockBytes) // headers that straddle the window are seen by the next
		}
	}
	return nil
}
