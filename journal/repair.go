package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"tidemark/internal/vfs"
)

// Loss is a stretch of the stream that Repair gives up.
type Loss struct {
	From, To Offset
	Frames   int64 // frames that were there, as their numbers say; −1: nobody knows
	Cause    string
}

// Repaired is what Repair did, or would do.
type Repaired struct {
	Losses []Loss
	Mended []string // files that were missing, cut short or damaged, and what they are made from
}

// Nothing says that there was nothing to repair.
func (r *Repaired) Nothing() bool { return len(r.Losses) == 0 && len(r.Mended) == 0 }

// Repair gives up what is damaged below what is proven to have been synced, and keeps all that is provable: it puts gaps over the damage, so that the frames behind it keep their places and are read as before. It salvages
// nothing from within a damaged frame. A segment file that is missing or cut short is made whole with zeros first, and what it held is lost like damage. A mark that is lost is made anew from the frames: it then says that all of the sound
// stream was flushed, and that the log starts where the files do. catalogOffset is where the catalog's snapshot stands; behind, if set, is called for each command behind a loss that reaches above it, and may refuse. Without write nothing is changed. The server must not be running on it. A torn tail is left to recovery.
//
// A gap is a frame header with a type of its own. Its chain value, in place of a body's checksum, is the one that the next sound frame names, so the chain holds across it. Gaps are written from the last to the first, each with
// one write: what a crash leaves is damaged as before, and Repair can be called again.
func Repair(fsys vfs.FS, dir string, meta JournalMeta, catalogOffset Offset, behind func(Record) error, write bool) (Repaired, error) {
	salt, err := meta.SaltBytes()
	if err != nil {
		return Repaired{}, err
	}
	mark, seq, err := readMark(fsys, dir, salt)
	r := repair{seed: salt.seed(), mark: mark, behind: behind}
	if errors.As(err, new(*CorruptError)) {
		r.noMark = true
		r.Mended = append(r.Mended, fmt.Sprintf("%v: it is made anew from the frames", err))
	} else if err != nil {
		return r.Repaired, err
	}
	r.catalog, r.proven = catalogOffset, max(mark.Flushed, catalogOffset)
	if r.segs, err = r.openHollow(fsys, dir, meta.SegmentBytes); err != nil {
		return r.Repaired, err
	}
	defer r.segs.close()
	first, _ := r.segs.bounds()
	if r.noMark {
		r.mark.Cut, r.mark.First = NoCut, first
	}
	if at := roundDown(catalogOffset, meta.SegmentBytes); at < first {
		return r.Repaired, &CorruptError{Segment: at, Offset: catalogOffset, Cause: fmt.Sprintf("the catalog's snapshot stands here, and the journal begins at %d: what lies between is lost, and with it what topics there are", first)}
	}
	if err := r.look(); err != nil || r.Nothing() || !write {
		return r.Repaired, err
	}
	if err := r.fill(fsys, dir); err != nil {
		return r.Repaired, err
	}
	// First: an index that came back by a crash would name what a gap covers.
	for i := range r.gaps {
		name := IndexName(roundDown(r.gaps[i].Start, meta.SegmentBytes))
		if err := fsys.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r.Repaired, err
		}
	}
	if err := fsys.SyncDir(dir); err != nil {
		return r.Repaired, err
	}
	for i := len(r.gaps) - 1; i >= 0; i-- {
		if err := r.put(fsys, dir, &r.gaps[i]); err != nil {
			return r.Repaired, err
		}
	}
	if r.noMark {
		if err := r.syncAll(fsys, dir); err != nil {
			return r.Repaired, err
		}
		return r.Repaired, writeMark(fsys, dir, r.mark, r.seed)
	}
	if r.newMark {
		k := marker{seed: r.seed, seq: seq, block: vfs.AlignedBytes(vfs.BlockBytes)}
		if k.file, err = fsys.Open(path.Join(dir, markName), vfs.ReadWrite|vfs.Direct); err != nil {
			return r.Repaired, err
		}
		if err = errors.Join(k.write(r.mark), k.close()); err != nil {
			return r.Repaired, err
		}
	}
	return r.Repaired, nil
}

// repair is what a look found.
type repair struct {
	Repaired
	segs    *segments
	seed    uint32
	mark    Mark
	noMark  bool // it is lost
	catalog Offset
	behind  func(Record) error
	proven  Offset
	hollow  []Offset      // segments whose file is missing or cut short
	headers []FrameHeader // behind the place that is looked at
	gaps    []FrameHeader
	newMark bool
}

// unusedTerms are left out when the mark is lost: a start takes a new term, and as many of them may have been behind the last frame.
const unusedTerms = 1000

// look walks the stream and lays gaps from damage to the next sound frame.
func (r *repair) look() error {
	first, _ := r.segs.bounds()
	s := newScanner(r.segs, r.seed, first)
	defer s.close()
	for {
		f, err := s.next()
		if err == nil {
			r.proven = max(r.proven, f.Flushed)
			if err := r.commands(f); err != nil {
				return err
			}
			continue
		}
		var stop *unsound
		if !errors.As(err, &stop) && !errors.Is(err, errEnd) {
			return err
		}
		from, cause := s.pos, err
		next, err := r.soundBehind(s)
		if err != nil {
			return err
		}
		if from >= r.proven { // the end, or a torn tail
			return r.markAt(s)
		}
		counted := s.hasChain || first == 0 // the frames before
		last, known := next == nil, counted
		if last { // nothing whole behind it: the stream ends where it was proven to
			if err := r.ours(s); err != nil {
				return err
			}
			var there bool
			next, there = r.end(s)
			known = counted && there
		}
		if last && next == nil {
			known = counted && r.proven == r.mark.Flushed && r.mark.Index > s.last.Index
			next = &FrameHeader{Start: r.proven, Term: max(s.last.Term, r.mark.Term), Index: max(s.last.Index, r.mark.Index) + 1, PrevCRC: r.mark.Chain, TimestampMs: s.last.TimestampMs}
			if r.proven != r.mark.Flushed {
				r.mark.Flushed, r.mark.Term, r.mark.Index, r.newMark = r.proven, next.Term, next.Index-1, true
			}
		}
		lost := Loss{From: from, To: next.Start, Frames: max(int64(indexBefore(next)-s.last.Index), 0), Cause: fmt.Sprint(cause)}
		if !known {
			lost.Frames = -1
		}
		r.Losses = append(r.Losses, lost)
		r.lay(s, from, next)
		s.pos, s.chain, s.hasChain = next.Start, next.PrevCRC, true
		s.last = FrameHeader{Term: next.Term, Index: indexBefore(next)}
		if last {
			return r.markAt(s)
		}
	}
}

// commands shows behind the commands of a frame behind a loss that the catalog's snapshot does not cover.
func (r *repair) commands(f Frame) error {
	if n := len(r.Losses); n == 0 || r.Losses[n-1].To <= r.catalog || f.Type.opaque() || r.behind == nil {
		return nil
	}
	return f.EachRecord(func(rec Record) error {
		if rec.Kind != RecordCommand {
			return nil
		}
		return r.behind(rec)
	})
}

// markAt has a lost mark say what stands before s.
func (r *repair) markAt(s *scanner) error {
	if !r.noMark {
		return nil
	}
	if n := len(r.headers); n > 0 {
		r.Mended = append(r.Mended, fmt.Sprintf("frames behind offset %d, of which %d headers are left, are cut by the next start like a torn tail: without the mark nobody knows whether they were acknowledged", s.pos, n))
	}
	r.mark.Flushed, r.mark.Chain, r.mark.Index, r.mark.Term = s.pos, s.chain, s.last.Index, s.last.Term+unusedTerms
	return r.ours(s)
}

// ours refuses to go on without a mark when nothing else says that what lies there is this journal's.
func (r *repair) ours(s *scanner) error {
	if !r.noMark || s.hasChain || len(r.headers) > 0 {
		return nil
	}
	used, err := Used(r.segs.fsys, r.segs.dir)
	if err == nil && used {
		err = &CorruptError{Segment: -1, File: path.Join(r.segs.dir, markName), Cause: "the mark is lost, and no frame is sound: is the file meta that of another data directory?"}
	}
	return err
}

// indexBefore is the index of the frame before h.
func indexBefore(h *FrameHeader) Index {
	if h.Type.opaque() {
		return h.Index // it uses none of its own
	}
	return h.Index - 1
}

// end is the header that stands where the stream was proven to end, if one does: its frame was torn, and recovery cuts it, but it knows what was before it.
func (r *repair) end(s *scanner) (next *FrameHeader, known bool) {
	for i := range r.headers {
		if h := &r.headers[i]; h.Start == r.proven && indexBefore(h) >= s.last.Index && h.Term >= s.last.Term {
			return h, true
		}
	}
	return nil, false
}

// soundBehind finds the first frame behind s that is whole, and later than the last one before it. It raises proven by what the headers there say.
func (r *repair) soundBehind(s *scanner) (*FrameHeader, error) {
	r.headers = r.headers[:0]
	err := s.soundHeaders(s.pos, func(h FrameHeader) {
		r.proven = max(r.proven, h.Flushed)
		r.headers = append(r.headers, h)
	})
	if err != nil {
		return nil, err
	}
	for i := range r.headers {
		h := &r.headers[i]
		if h.Term < s.last.Term || indexBefore(h) < s.last.Index {
			continue
		}
		probe := newScanner(r.segs, r.seed, h.Start)
		_, err := probe.next()
		probe.close()
		if err == nil && (h.Start > s.pos || !s.hasChain) {
			return h, nil
		}
		if err != nil && !errors.As(err, new(*unsound)) {
			return nil, err
		}
	}
	return nil, nil
}

// lay covers [from, next.Start) with gaps, one a segment, and another one where the catalog stands: a start reads on from there.
func (r *repair) lay(s *scanner, from Offset, next *FrameHeader) {
	chain := s.chain
	for at := from; at < next.Start; {
		segEnd := roundDown(at, r.segs.bytes) + Offset(r.segs.bytes)
		to := min(next.Start, segEnd)
		if at < r.catalog {
			to = min(to, r.catalog)
		}
		if to-at >= FrameHeaderBytes { // else it is a segment's remainder
			r.gaps = append(r.gaps, FrameHeader{
				Type: FrameGap, BodyBytes: uint32(to - at - FrameHeaderBytes), Start: at, Term: next.Term, Index: indexBefore(next),
				TimestampMs: next.TimestampMs, PrevCRC: chain, BodyCRC: next.PrevCRC,
			})
			chain = next.PrevCRC
		}
		at = to
	}
}

// put writes one gap's header. The index file of its segment is gone: a start makes it anew.
func (r *repair) put(fsys vfs.FS, dir string, h *FrameHeader) error {
	start := roundDown(h.Start, r.segs.bytes)
	f, err := fsys.Open(path.Join(dir, segmentName(start)), vfs.ReadWrite|vfs.Direct)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [FrameHeaderBytes]byte
	h.encode(&head, r.seed)
	at := int64(h.Start - start)
	block := at &^ (vfs.BlockBytes - 1)
	b := vfs.AlignedBytes(2 * vfs.BlockBytes) // a header may lie across two
	n := min(int64(len(b)), r.segs.bytes-block)
	if err := readAligned(f, b[:n], block); err != nil {
		return err
	}
	copy(b[at-block:n], head[:])
	_, err = f.WriteSync([][]byte{b[:n]}, block)
	return err
}
