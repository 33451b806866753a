package journal

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"tidemark/internal/vfs"
)

// TestRepair flips a byte of each of some frames below the mark: the server does not start, Repair names what is lost, and then all other frames are there at their places.
func TestRepair(t *testing.T) {
	for _, c := range []struct {
		name    string
		damaged []int // frames, of 40
	}{{"one frame", []int{7}}, {"two neighbours", []int{7, 8}}, {"two places", []int{3, 20}}, {"the first", []int{0}}, {"over a segment's end", []int{14, 15}}, {"the last", []int{39}}, {"the last three", []int{37, 38, 39}}} {
		for _, part := range []string{"header", "body"} {
			t.Run(c.name+", "+part, func(t *testing.T) {
				mem := vfs.NewMem()
				j := newTestJournal(t, mem)
				var ends, starts []Offset
				for i := range 40 {
					end, err := appendFrame(j, 1, bytes.Repeat([]byte{byte(i)}, 4000))
					if err != nil {
						t.Fatal(err)
					}
					ends, starts = append(ends, end), append(starts, end-Offset(FrameHeaderBytes+RecordBytes(4000)))
					flushAll(t, j)
				}
				if err := j.WriteMark(j.Flush.Mark()); err != nil {
					t.Fatal(err)
				}
				j.Close()
				lost := map[int]bool{}
				for _, i := range c.damaged {
					lost[i] = true
					at := starts[i] + 20
					if part == "body" {
						at += FrameHeaderBytes + 1000
					}
					segment := roundDown(at, 64<<10)
					f, err := mem.Open(testDir+"/"+segmentName(segment), vfs.ReadWrite)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.WriteAt([]byte{0xff}, int64(at-segment)); err != nil {
						t.Fatal(err)
					}
					f.Close()
				}
				if _, _, err := Open(testOptions(mem)); !errors.As(err, new(*DamageError)) {
					t.Fatalf("it starts, or does not say why not: %v", err)
				}
				meta := JournalMeta{Salt: fmt.Sprintf("%x", testSalt[:]), SegmentBytes: 64 << 10}
				for _, write := range []bool{false, true} {
					losses, err := Repair(mem, testDir, meta, 0, write)
					if err != nil {
						t.Fatal(err)
					}
					var frames int64
					for _, l := range losses {
						frames += l.Frames
					}
					if frames != int64(len(c.damaged)) {
						t.Errorf("%d frames are said to be lost, %d were damaged: %+v", frames, len(c.damaged), losses)
					}
				}
				j, r, err := Open(testOptions(mem))
				if err != nil {
					t.Fatalf("after the repair: %v", err)
				}
				defer j.Close()
				if r.End != ends[39] || r.Torn {
					t.Errorf("the stream ends at %d, wanted %d; torn: %v", r.End, ends[39], r.Torn)
				}
				seen := 0
				err = j.EachFrame(0, r.End, func(f Frame) error {
					for seen < 40 && lost[seen] {
						seen++
					}
					if f.Start != starts[seen] || f.Body[RecordHeaderBytes] != byte(seen) {
						t.Errorf("frame at %d holds %d, wanted %d at %d", f.Start, f.Body[RecordHeaderBytes], seen, starts[seen])
					}
					seen++
					return nil
				})
				for seen < 40 && lost[seen] {
					seen++
				}
				if err != nil || seen != 40 {
					t.Errorf("%d frames, %v", seen, err)
				}
				if _, err := appendFrame(j, 2, []byte("and on")); err != nil {
					t.Error(err)
				}
				flushAll(t, j)
			})
		}
	}
}
