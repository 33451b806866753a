package journal

import (
	"errors"
	"fmt"
	"io"
	"path"

	"tidemark/internal/planted"
	"tidemark/internal/vfs"
)

// Recovered is what Open found and did.
type Recovered struct {
	Checkpoint  Offset // a segment's start: frames and chain were checked from here
	ProvenF     Offset // everything below was synced, as the mark, the catalog or a frame says
	End         Offset // the stream's end
	Term        Term   // of the last frame, or in the mark if that is newer
	Index       Index  // of the last frame
	Segments    int    // files found
	Frames      int64  // frames checked, fillers not counted
	Bytes       int64  // bytes checked
	TornBytes   int64  // bytes behind the end that held pieces of frames and were cut
	Torn        bool   // a torn tail was cut; TornBytes is at least 1
	TornFrames  int    // sound frame headers among them
	PendingCut  bool   // an unfinished cut of an earlier start was finished first
	Unindexed   Offset // start of the first segment without its index, or the end
	DirectIOErr error  // why direct I/O is not used; nil when it is
}

// DamageError says that bytes that had been acknowledged are not sound any more. Recovery does not go past it.
type DamageError struct {
	CorruptError
	ProvenF Offset
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("damage to acknowledged bytes: segment %020d is not sound at offset %d (%s), and everything below %d had been synced; nothing was changed: look at it with `tidemark journal verify`, and give it up with `tidemark journal repair`",
		e.Segment, e.Offset, e.Cause, e.ProvenF)
}

func (e *DamageError) Unwrap() error { return &e.CorruptError }

// recover decides where the stream ends and leaves the journal ready for appends there.
//
// What a crash can leave behind written bytes: any mix of old and new sectors above flushed. What recovery must tell apart: a torn tail (above the proven
// F; cut it), damage (below it; refuse), and a clean end (nothing of ours behind it). DESIGN and docs/format.md have the rules; the steps below carry
// their numbers. A crash in recovery is a crash like any other: the cut is recorded before it is begun and finished first next time.
func (j *Journal) recover(mark Mark) (Recovered, error) {
	r := Recovered{Segments: len(j.segs.list)}
	if len(j.segs.list) == 0 {
		if mark.Flushed > 0 || j.opts.CatalogOffset > 0 {
			return r, &CorruptError{Segment: -1, File: j.opts.Dir, Offset: mark.Flushed, Cause: "no segment file is left, and the mark says there were some"}
		}
		return r, &CorruptError{Segment: -1, File: j.opts.Dir, Cause: "no segment file"}
	}
	if _, ok := j.opts.FS.(vfs.OS); ok {
		r.DirectIOErr = vfs.ProbeDirect(j.opts.Dir)
	}

	if first, _ := j.segs.bounds(); first > mark.First {
		return r, &CorruptError{Segment: mark.First, Offset: mark.First, Cause: fmt.Sprintf("the file is missing: the first one is %s, and the log was not dropped so far", segmentName(first))}
	}

	// (1) a cut that was begun
	if mark.Cut != NoCut {
		r.PendingCut = true
		if err := j.finishCut(&mark); err != nil {
			return r, err
		}
	}

	// (2) frames and chain from the checkpoint
	var err error
	if r.Unindexed, err = j.firstUnindexed(); err != nil {
		return r, err
	}
	first, _ := j.segs.bounds()
	r.Checkpoint = max(roundDown(min(j.opts.CatalogOffset, r.Unindexed, mark.Flushed), j.opts.SegmentBytes), 0)
	r.ProvenF = max(mark.Flushed, j.opts.CatalogOffset)
	if r.Checkpoint < first {
		return r, &CorruptError{Segment: r.Checkpoint, Offset: r.Checkpoint,
			Cause: fmt.Sprintf("the file is missing; the first one is %s, and the catalog's snapshot stands at %d", segmentName(first), j.opts.CatalogOffset)}
	}
	s := newScanner(j.segs, j.saltSeed, r.Checkpoint)
	defer s.close()
	var stop *unsound
	for stop == nil {
		atMark := j.NextFrame(s.pos) == j.NextFrame(mark.Flushed)
		f, err := s.next()
		switch {
		case errors.As(err, &stop) || errors.Is(err, errEnd):
			if stop == nil {
				stop = &unsound{cause: err}
			}
			continue
		case err != nil:
			return r, err
		}
		if atMark && f.PrevCRC != mark.Chain {
			s.pos = f.Start
			stop = &unsound{cause: errChain, header: true}
			continue
		}
		r.ProvenF = max(r.ProvenF, f.Flushed)
		if !f.Type.opaque() {
			r.Frames++
		}
	}
	s.pos = j.NextFrame(s.pos)
	r.End, r.Bytes = s.pos, int64(s.pos-r.Checkpoint)
	r.Term, r.Index = max(s.last.Term, mark.Term), s.last.Index
	if !s.hasChain && j.NextFrame(mark.Flushed) == s.pos { // nothing behind the checkpoint: the mark knows the frame before it
		s.chain, r.Index = mark.Chain, mark.Index
		s.last = FrameHeader{Term: mark.Term, Index: mark.Index, HeaderCRC: mark.Chain}
	}

	// (3) what is behind the end
	last := s.pos
	err = s.soundHeaders(s.pos, func(h FrameHeader) {
		r.TornFrames++
		r.ProvenF = max(r.ProvenF, h.Flushed)
		last = max(last, min(h.End(), j.segmentEnd(h.Start)))
	})
	if err != nil {
		return r, err
	}

	// (4) damage, a torn tail, or the end
	if planted.Is(planted.CutInMidLog) {
		r.ProvenF = min(r.ProvenF, s.pos)
		mark.Flushed, mark.Chain = s.pos, s.chain
	}
	if s.pos < r.ProvenF && j.NextFrame(r.ProvenF) != s.pos {
		return r, &DamageError{CorruptError: CorruptError{Segment: roundDown(s.pos, j.opts.SegmentBytes), Offset: s.pos, Cause: stop.Error()}, ProvenF: r.ProvenF}
	}
	if s.pos == j.NextFrame(mark.Flushed) && s.hasChain && s.chain != mark.Chain {
		return r, &DamageError{CorruptError: CorruptError{Segment: roundDown(s.pos, j.opts.SegmentBytes), Offset: s.pos, Cause: "the last frame is not the one that the mark names"}, ProvenF: r.ProvenF}
	}
	if stop.header || r.TornFrames > 0 {
		r.Torn, r.TornBytes = true, max(int64(last-s.pos), 1)
		mark.Cut = s.pos
		if err := j.WriteMark(mark); err != nil {
			return r, err
		}
		if err := j.finishCut(&mark); err != nil {
			return r, err
		}
	}
	return r, j.start(r, s.last, s.chain)
}

// firstUnindexed is the start of the first segment without an index file, or the end of the last.
func (j *Journal) firstUnindexed() (Offset, error) {
	for _, start := range j.segs.starts() {
		ok, err := HasIndex(j.opts.FS, j.opts.Dir, start)
		if err != nil {
			return 0, err
		}
		if !ok {
			return start, nil
		}
	}
	_, end := j.segs.bounds()
	return end, nil
}

// finishCut zeroes [mark.Cut, end of its segment), unlinks the segments behind it, and clears the cut in the mark, each synced before the next.
func (j *Journal) finishCut(mark *Mark) error {
	first, end := j.segs.bounds()
	if mark.Cut < first || mark.Cut > end {
		return &CorruptError{Segment: -1, File: markName, Offset: mark.Cut, Cause: fmt.Sprintf("a cut at %d, the segments hold %d to %d", mark.Cut, first, end)}
	}
	if mark.Cut < end && !planted.Is(planted.CutWithoutZeroing) {
		if err := j.zeroTail(mark.Cut); err != nil {
			return err
		}
	}
	keep := roundUp(mark.Cut, j.opts.SegmentBytes)
	if err := j.segs.dropTail(max(keep, first+Offset(j.opts.SegmentBytes))); err != nil {
		return err
	}
	mark.Cut = NoCut
	return j.WriteMark(*mark)
}

// zeroTail writes zeros from o to the end of its segment.
func (j *Journal) zeroTail(o Offset) error {
	seg, err := j.segs.acquire(o)
	if err != nil {
		return err
	}
	defer seg.release()
	b := vfs.AlignedBytes(scanBytes)
	from := int64(o - seg.start)
	block := from &^ (vfs.BlockBytes - 1)
	if keep := int(from - block); keep > 0 {
		if err := readAligned(seg.file, b[:keep], block); err != nil {
			return fmt.Errorf("read segment %020d at offset %d: %w", seg.start, o, err)
		}
	}
	for at := block; at < j.opts.SegmentBytes; {
		n := min(int64(len(b)), j.opts.SegmentBytes-at)
		if _, err := seg.file.WriteSync([][]byte{b[:n]}, at); err != nil {
			return &FatalError{Op: fmt.Sprintf("zeroing of segment %020d from %d", seg.start, o), Err: err}
		}
		at += n
		clear(b[:min(len(b), vfs.BlockBytes)]) // only the first block kept anything
	}
	return nil
}

// dropTail unlinks the segments that begin at or behind from. Their files hold frames that may name their own place, so they are not recycled.
func (s *segments) dropTail(from Offset) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.list) > 0 {
		seg := s.list[len(s.list)-1]
		if seg.start < from {
			break
		}
		s.list = s.list[:len(s.list)-1]
		if err := errors.Join(seg.close(), s.fsys.Remove(path.Join(s.dir, segmentName(seg.start)))); err != nil {
			return err
		}
		s.readyTo.Store(int64(seg.start))
	}
	return syncError("sync of the journal's directory", s.fsys.SyncDir(s.dir))
}

// start rewrites what was not proven to be synced, so that nothing is published that was only in a page cache, and sets the stages to the end.
func (j *Journal) start(r Recovered, last FrameHeader, chain uint32) error {
	from := min(r.ProvenF, r.End)
	if planted.Is(planted.TailNotRewritten) {
		from = r.End
	}
	if err := j.rewrite(roundDown(from, vfs.BlockBytes), r.End); err != nil {
		return err
	}
	floor := roundDown(r.End, vfs.BlockBytes)
	var err error
	if j.cache, err = newCache(j.opts.CacheBytes, floor); err != nil {
		return err
	}
	if Offset(j.segs.readyTo.Load()) <= r.End {
		// A full disk is no reason not to start: appends are refused until Maintain has made the segment.
		if err := j.segs.addNext(); errors.As(err, new(*FatalError)) {
			return err
		}
	}
	if ok, _ := j.cache.reserve(r.End, 0); !ok {
		return errors.New("journal: cache too small to hold a block")
	}
	if n := int(r.End - floor); n > 0 {
		b := make([]byte, n)
		if err := j.readDisk(b, floor); err != nil {
			return err
		}
		j.cache.put(floor, b)
	}
	j.Append = Appender{j: j, end: r.End, chain: chain, term: last.Term, index: last.Index, timestamp: last.TimestampMs}
	last.HeaderCRC = chain
	j.Flush = Flusher{j: j, synced: r.End, flushed: r.End, last: last, bounce: vfs.AlignedBytes(vfs.BlockBytes)}
	j.sealedTo.Store(int64(r.End))
	return nil
}

// rewrite reads [from, to) and writes it again, synced; from is a block boundary, and what is behind to in its last block becomes zero.
func (j *Journal) rewrite(from, to Offset) error {
	if from >= to {
		return nil
	}
	b := vfs.AlignedBytes(int(min(scanBytes, roundUp(to-from, vfs.BlockBytes))))
	for from < to {
		seg, err := j.segs.acquire(from)
		if err != nil {
			return err
		}
		n := min(int64(len(b)), int64(roundUp(to, vfs.BlockBytes)-from), int64(j.segmentEnd(from)-from))
		m, err := seg.file.ReadAt(b[:n], int64(from-seg.start))
		if err != nil && (!errors.Is(err, io.EOF) || int64(m) < n) {
			seg.release()
			return fmt.Errorf("read segment %020d at offset %d: %w", seg.start, from, err)
		}
		if have := int64(to - from); have < n {
			clear(b[have:n])
		}
		_, err = seg.file.WriteSync([][]byte{b[:n]}, int64(from-seg.start))
		seg.release()
		if err != nil {
			return &FatalError{Op: fmt.Sprintf("rewriting of segment %020d at offset %d", seg.start, from), Err: err}
		}
		from += Offset(n)
	}
	return nil
}
