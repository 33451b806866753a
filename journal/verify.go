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
		next := Offset(-1)
		err = s.soundHeaders(s.pos, func(h FrameHeader) {
			v.ProvenF = max(v.ProvenF, h.Flushed)
			if next < 0 && (h.Start > s.pos || stop.header) {
				next = h.Start
			}
		})
		if err != nil {
			return v, err
		}
		if next < 0 && s.pos >= v.ProvenF {
			return v, nil
		}
		f2 := Finding{Segment: roundDown(s.pos, segs.bytes), From: s.pos, To: next, Damage: s.pos < v.ProvenF}
		if stop != nil {
			f2.Cause = stop.Error()
		} else {
			f2.Cause = "the stream ends here"
		}
		v.Findings = append(v.Findings, f2)
		if next == s.pos { // the header is sound and the rest is not: go on behind the header
			if next, err = soundAfter(s, s.pos+Align); err != nil {
				return v, err
			}
			v.Findings[len(v.Findings)-1].To = next
		}
		if next < 0 {
			v.Findings[len(v.Findings)-1].To = max(s.pos, v.ProvenF)
			return v, nil
		}
		s.pos, s.hasChain = next, false
	}
	return v, nil
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

// Dump reads the sound frames from the first one at or behind from and calls fn for each, fillers too, until limit frames were seen (0: all), fn fails, or the sound stream ends. It changes nothing.
// It returns the offset at which it stopped and why.
func Dump(fsys vfs.FS, dir string, meta JournalMeta, from Offset, limit int, fn func(Frame) error) (Offset, error) {
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
	for n := 0; limit == 0 || n < limit; {
		f, err := s.next()
		if u := (*unsound)(nil); errors.As(err, &u) || errors.Is(err, errEnd) {
			return s.pos, nil
		}
		if err != nil {
			return s.pos, err
		}
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
