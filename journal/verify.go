package journal

import (
	"errors"
	"fmt"

	"tidemark/internal/vfs"
)

// Finding is one stretch of the stream that holds no sound frames although it should, or one broken link between frames.
type Finding struct {
	Segment  Offset
	From, To Offset // To is where sound frames go on, or the end of what was looked at
	Cause    string
	Damage   bool // below what is proven to have been synced; else a torn tail, which recovery cuts
}

// Verification is what Verify saw.
type Verification struct {
	First, End Offset // of the sound stream; End is where appends would go on if there were no damage
	ProvenF    Offset
	Segments   int
	Frames     int64
	Records    int64
	Bytes      int64 // of sound frames
	Gaps       int   // that Repair made
	Findings   []Finding
}

// Damaged counts the findings that are damage to acknowledged bytes.
func (v *Verification) Damaged() int {
	n := 0
	for _, f := range v.Findings {
		if f.Damage {
			n++
		}
	}
	return n
}

// maxFindings bounds the report of a journal that is noise.
const maxFindings = 1000

// Verify reads a whole journal, changes nothing, and checks every frame: header, place, chain, index, body and the shape of its records. The server must not be running on it.
// each, when set, is called for every sound data frame with an error that says what is wrong with its records, or nil.
func Verify(fsys vfs.FS, dir string, meta JournalMeta, each func(Frame) error, progress func(done, total int64)) (Verification, error) {
	var v Verification
	salt, err := meta.SaltBytes()
	if err != nil {
		return v, err
	}
	mark, _, err := readMark(fsys, dir, salt)
	var noMark *CorruptError
	if errors.As(err, &noMark) {
		v.Findings = append(v.Findings, Finding{Segment: -1, Cause: noMark.Error(), Damage: true})
	} else if err != nil {
		return v, err
	}
	segs, err := openSegments(fsys, dir, meta.SegmentBytes, true)
	if err != nil {
		return v, err
	}
	defer segs.close()
	first, end := segs.bounds()
	v.First, v.Segments = first, len(segs.list)
	if first > mark.First {
		v.Findings = append(v.Findings, Finding{Segment: mark.First, From: mark.First, To: first, Cause: "the segment files are missing", Damage: true})
	}
	s := newScanner(segs, salt.seed(), first)
	defer s.close()
	v.ProvenF = mark.Flushed
	for len(v.Findings) < maxFindings {
		f, err := s.next()
		if err == nil {
			v.ProvenF = max(v.ProvenF, f.Flushed)
			if f.Type == FrameGap {
				v.Gaps++
			}
			if !f.Type.opaque() {
				v.Frames++
				v.Records += int64(f.Records)
				v.Bytes += FrameHeaderBytes + int64(f.BodyBytes)
				if err := checkRecords(f, each); err != nil {
					v.Findings = append(v.Findings, Finding{Segment: roundDown(f.Start, segs.bytes), From: f.Start, To: f.End(), Cause: err.Error(), Damage: true})
				}
			}
			if progress != nil {
				progress(int64(s.pos-first), int64(end-first))
			}
			continue
		}
		var stop *unsound
		if !errors.As(err, &stop) && !errors.Is(err, errEnd) {
			return v, err
		}
		v.End = s.pos
		found, more, err := s.pass(stop, &v.ProvenF)
		if err != nil {
			return v, err
		}
		if found != nil {
			v.Findings = append(v.Findings, *found)
		}
		if !more {
			return v, nil
		}
	}
	return v, nil
}

// pass moves a scanner that stopped (nil: at the last segment's end) to the next sound header and says what it passed over; nil: it stands at the stream's end. more says whether there is such a header. proven, bytes below which were durable, is raised
// to what the headers behind say.
func (s *scanner) pass(stop *unsound, proven *Offset) (found *Finding, more bool, err error) {
	next := Offset(-1)
	err = s.soundHeaders(s.pos, func(h FrameHeader) {
		*proven = max(*proven, h.Flushed)
		if next < 0 && (h.Start > s.pos || stop.header) {
			next = h.Start
		}
	})
	if err != nil || next < 0 && s.pos >= *proven {
		return nil, false, err
	}
	found = &Finding{Segment: roundDown(s.pos, s.segs.bytes), From: s.pos, Cause: "the stream ends here", Damage: s.pos < *proven}
	if stop != nil {
		found.Cause = stop.Error()
	}
	if next == s.pos { // the header is sound and the rest is not: go on behind the header
		if next, err = soundAfter(s, s.pos+Align); err != nil {
			return nil, false, err
		}
	}
	if next < 0 {
		found.To = max(s.pos, *proven)
		return found, false, nil
	}
	found.To = next
	s.pos, s.hasChain = next, false
	return found, true, nil
}

func soundAfter(s *scanner, from Offset) (Offset, error) {
	next := Offset(-1)
	err := s.soundHeaders(from, func(h FrameHeader) {
		if next < 0 {
			next = h.Start
		}
	})
	return next, err
}

func checkRecords(f Frame, each func(Frame) error) error {
	if err := f.EachRecord(func(Record) error { return nil }); err != nil {
		return err
	}
	if each != nil {
		return each(f)
	}
	return nil
}

// Dump reads the sound frames from the first one at or behind from and calls fn for each, fillers too, until limit frames were seen (0: all), fn fails, or the stream ends. It changes nothing.
// passed, when set, is told what is not sound on the way, a torn tail too; without it Dump ends there. It returns the offset at which it stopped and why.
func Dump(fsys vfs.FS, dir string, meta JournalMeta, from Offset, limit int, fn func(Frame) error, passed func(Finding)) (Offset, error) {
	salt, err := meta.SaltBytes()
	if err != nil {
		return 0, err
	}
	segs, err := openSegments(fsys, dir, meta.SegmentBytes, true)
	if err != nil {
		return 0, err
	}
	defer segs.close()
	first, end := segs.bounds()
	if from > end {
		return end, fmt.Errorf("offset %d is past the last segment's end %d", from, end)
	}
	from = max(from, first)
	s := newScanner(segs, salt.seed(), roundDown(from, segs.bytes))
	defer s.close()
	proven := Offset(0)
	if mark, _, err := readMark(fsys, dir, salt); err == nil {
		proven = mark.Flushed
	} else if !errors.As(err, new(*CorruptError)) {
		return 0, err
	}
	for n := 0; limit == 0 || n < limit; {
		f, err := s.next()
		if stop := (*unsound)(nil); errors.As(err, &stop) || errors.Is(err, errEnd) {
			if passed == nil {
				return s.pos, nil
			}
			found, more, err := s.pass(stop, &proven)
			if found != nil && found.To >= from {
				passed(*found)
			}
			if err != nil || !more {
				return s.pos, err
			}
			continue
		}
		if err != nil {
			return s.pos, err
		}
		proven = max(proven, f.Flushed)
		if f.Start < from {
			continue
		}
		n++
		if err := fn(f); err != nil {
			return s.pos, err
		}
	}
	return s.pos, nil
}
