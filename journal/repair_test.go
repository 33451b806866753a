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
				mem, starts, ends := fortyFrames(t)
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
					repaired, err := Repair(mem, testDir, meta, 0, nil, write)
					if err != nil {
						t.Fatal(err)
					}
					var frames int64
					for _, l := range repaired.Losses {
						frames += l.Frames
					}
					if frames != int64(len(c.damaged)) {
						t.Errorf("%d frames are said to be lost, %d were damaged: %+v", frames, len(c.damaged), repaired)
					}
				}
				checkRepaired(t, mem, lost, starts, ends)
			})
		}
	}
}

// fortyFrames is a journal of 40 frames in three segments of 64 KiB, flushed and marked.
func fortyFrames(t *testing.T) (mem *vfs.Mem, starts, ends []Offset) {
	t.Helper()
	mem = vfs.NewMem()
	j := newTestJournal(t, mem)
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
	return mem, starts, ends
}

// checkRepaired opens a journal of fortyFrames: all frames but the lost ones are there at their places, and it goes on.
func checkRepaired(t *testing.T, mem *vfs.Mem, lost map[int]bool, starts, ends []Offset) {
	t.Helper()
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
	if _, err := appendFrame(j, r.Term+1, []byte("and on")); err != nil {
		t.Error(err)
	}
	flushAll(t, j)
}

// TestRepairOfFiles takes files away, cuts them short or spoils them: Repair without writing says what it would do and changes nothing; then it does that, and what was not lost is there.
func TestRepairOfFiles(t *testing.T) {
	const segment = 64 << 10
	remove := func(name string) func(*vfs.Mem) error {
		return func(m *vfs.Mem) error { return m.Remove(testDir + "/" + name) }
	}
	cut := func(name string, size int64) func(*vfs.Mem) error {
		return func(m *vfs.Mem) error {
			f, err := m.Open(testDir+"/"+name, vfs.ReadWrite)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(size), f.Close())
		}
	}
	both := func(a, b func(*vfs.Mem) error) func(*vfs.Mem) error {
		return func(m *vfs.Mem) error { return errors.Join(a(m), b(m)) }
	}
	for _, c := range []struct {
		name   string
		damage func(*vfs.Mem) error
		mended int
		lost   [][2]Offset // bytes of the stream
	}{
		{"no first segment", remove(segmentName(0)), 1, [][2]Offset{{0, segment}}},
		{"no second segment", remove(segmentName(segment)), 1, [][2]Offset{{segment, 2 * segment}}},
		{"no last segment", remove(segmentName(2 * segment)), 1, [][2]Offset{{2 * segment, 3 * segment}}},
		{"two segments away", both(remove(segmentName(0)), remove(segmentName(2*segment))), 2, [][2]Offset{{0, segment}, {2 * segment, 3 * segment}}},
		{"all segments away", both(remove(segmentName(0)), both(remove(segmentName(segment)), remove(segmentName(2*segment)))), 3, [][2]Offset{{0, 3 * segment}}},
		{"the first cut short", cut(segmentName(0), 10_000), 1, [][2]Offset{{10_000, segment}}},
		{"the last cut short", cut(segmentName(2*segment), 10_000), 1, [][2]Offset{{2*segment + 10_000, 3 * segment}}},
		{"an empty one", cut(segmentName(segment), 0), 1, [][2]Offset{{segment, 2 * segment}}},
		{"no mark", remove(markName), 1, nil},
		{"an empty mark", cut(markName, 0), 1, nil},
		{"no mark and a segment cut short", both(remove(markName), cut(segmentName(segment), 10_000)), 2, [][2]Offset{{segment + 10_000, 2 * segment}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem, starts, ends := fortyFrames(t)
			if err := c.damage(mem); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Open(testOptions(mem)); !errors.As(err, new(*CorruptError)) {
				t.Fatalf("it starts, or does not say why not: %v", err)
			}
			lost := map[int]bool{}
			for i := range starts {
				for _, l := range c.lost {
					lost[i] = lost[i] || starts[i] < l[1] && ends[i] > l[0]
				}
			}
			meta := JournalMeta{Salt: fmt.Sprintf("%x", testSalt[:]), SegmentBytes: segment}
			catalog := ends[35]
			for _, write := range []bool{false, true} {
				r, err := Repair(mem, testDir, meta, catalog, nil, write)
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Mended) != c.mended || len(r.Losses) != len(c.lost) {
					t.Errorf("write %v: mended %q, lost %+v", write, r.Mended, r.Losses)
				}
				if !write {
					if _, _, err := Open(testOptions(mem)); !errors.As(err, new(*CorruptError)) {
						t.Fatalf("something was changed: %v", err)
					}
				}
			}
			checkRepaired(t, mem, lost, starts, ends)
			if !readsFrom(t, mem, catalog) {
				t.Errorf("the stream cannot be read from %d, where the catalog stands", catalog)
			}
			if r, err := Repair(mem, testDir, meta, catalog, nil, false); err != nil || !r.Nothing() {
				t.Errorf("after the repair: %+v, %v", r, err)
			}
		})
	}
}

func readsFrom(t *testing.T, mem *vfs.Mem, at Offset) bool {
	t.Helper()
	j, r, err := Open(testOptions(mem))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	return j.EachFrame(at, r.End, func(Frame) error { return nil }) == nil
}

// TestRepairWantsTheRightSalt: without a mark and with the meta of another directory nothing is sound, and nothing may be taken for an empty journal.
func TestRepairWantsTheRightSalt(t *testing.T) {
	mem, _, _ := fortyFrames(t)
	if err := mem.Remove(testDir + "/" + markName); err != nil {
		t.Fatal(err)
	}
	for _, catalogOffset := range []Offset{0, 100_000} {
		r, err := Repair(mem, testDir, JournalMeta{Salt: "0123456789abcdef", SegmentBytes: 64 << 10}, catalogOffset, nil, true)
		if !errors.As(err, new(*CorruptError)) {
			t.Errorf("%+v, %v", r, err)
		}
	}
}
