package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"tidemark/internal/vfs"
)

const testDir = "data/journal/0"

var testSalt = Salt{1, 2, 3, 4, 5, 6, 7, 8}

func testOptions(fsys vfs.FS) Options {
	return Options{FS: fsys, Dir: testDir, Salt: testSalt, SegmentBytes: 64 << 10, CacheBytes: 64 << 10, Spares: 1}
}

func newTestJournal(t testing.TB, fsys vfs.FS) *Journal {
	t.Helper()
	opts := testOptions(fsys)
	if err := Create(opts); err != nil {
		t.Fatal(err)
	}
	j, _, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// appendFrame puts one frame of records into j, flushing and maintaining as needed, and returns the new written.
func appendFrame(j *Journal, term Term, payloads ...[]byte) (Offset, error) {
	body := 0
	for _, p := range payloads {
		body += RecordBytes(len(p))
	}
	for {
		err := j.Append.Begin(body, j.Append.LastTimestamp()+1, j.Flush.Flushed())
		switch {
		case errors.Is(err, ErrNoSegment):
			if _, err := j.Maintain(j.Append.End(), false); err != nil {
				return 0, err
			}
			continue
		case errors.Is(err, ErrCacheFull):
			if _, _, err := j.Flush.Step(j.Append.End()); err != nil {
				return 0, err
			}
			continue
		case err != nil:
			return 0, err
		}
		break
	}
	for i, p := range payloads {
		j.Append.Add(RecordBatch, 0, uint32(i), LogicalOffset(i), p)
	}
	j.Append.Sum()
	return j.Append.Seal(term, j.Append.index+1, j.Flush.Flushed()), nil
}

func flushAll(t testing.TB, j *Journal) {
	t.Helper()
	for j.Flush.Flushed() < j.Append.End() {
		if _, _, err := j.Flush.Step(j.Append.End()); err != nil {
			t.Fatal(err)
		}
	}
}

// payloads reads all record payloads from the first segment to the end.
func payloads(t testing.TB, j *Journal) [][]byte {
	t.Helper()
	var out [][]byte
	err := j.EachFrame(j.First(), j.Append.End(), func(f Frame) error {
		return f.EachRecord(func(r Record) error {
			out = append(out, bytes.Clone(r.Payload))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func randomPayload(rng *rand.Rand, limit int) []byte {
	p := make([]byte, rng.IntN(limit))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func TestFrameHeaderRoundTrip(t *testing.T) {
	h := FrameHeader{Type: FrameData, BodyBytes: 4096, Records: 7, Start: 1 << 40, Term: 3, Index: 99, TimestampMs: 1234567, BodyCRC: 0xdeadbeef, PrevCRC: 42, Flushed: 1<<40 - 80}
	var b [FrameHeaderBytes]byte
	h.encode(&b, testSalt.seed())
	got, err := decodeFrame(b[:], testSalt.seed(), h.Start)
	if err != nil || got != h {
		t.Fatalf("decoded %+v, %v; want %+v", got, err, h)
	}
	if _, err := decodeFrame(b[:], Salt{9}.seed(), h.Start); !errors.Is(err, errHeader) {
		t.Errorf("another journal's salt: %v, want %v", err, errHeader)
	}
	if _, err := decodeFrame(b[:], testSalt.seed(), h.Start+8); !errors.Is(err, errPlace) {
		t.Errorf("another offset: %v, want %v", err, errPlace)
	}
	for bit := range FrameHeaderBytes * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeFrame(b[:], testSalt.seed(), h.Start); err == nil {
			t.Errorf("bit %d flipped, and the header is still taken as sound", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	if _, err := decodeFrame(make([]byte, FrameHeaderBytes), testSalt.seed(), 0); err == nil {
		t.Error("zeros are taken as a frame")
	}
}

func TestAppendFlushReopen(t *testing.T) {
	fsys := vfs.NewMem()
	j := newTestJournal(t, fsys)
	rng := rand.New(rand.NewPCG(1, 1))
	var want [][]byte
	for range 400 { // several segments, several laps of the cache
		var batch [][]byte
		for range 1 + rng.IntN(4) {
			batch = append(batch, randomPayload(rng, 2000))
		}
		if _, err := appendFrame(j, 1, batch...); err != nil {
			t.Fatal(err)
		}
		want = append(want, batch...)
	}
	flushAll(t, j)
	if err := j.WriteMark(j.Flush.Mark()); err != nil {
		t.Fatal(err)
	}
	end := j.Append.End()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, r, err := Open(testOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	if r.End != end || r.Torn || r.Segments < 5 {
		t.Errorf("recovered %+v, want the end %d, nothing cut, several segments", r, end)
	}
	got := payloads(t, j)
	if len(got) != len(want) {
		t.Fatalf("%d records back, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("record %d differs", i)
		}
	}
	v, err := Verify(fsys, testDir, JournalMeta{Salt: fmt.Sprintf("%x", testSalt[:]), SegmentBytes: 64 << 10}, nil, nil)
	if err != nil || len(v.Findings) != 0 || v.End != end || v.Records != int64(len(want)) {
		t.Errorf("verify: %+v, %v; want no findings and the end %d", v, err, end)
	}
}

func TestReadFromCacheAndDisk(t *testing.T) {
	j := newTestJournal(t, vfs.NewMem())
	rng := rand.New(rand.NewPCG(2, 2))
	type rec struct {
		at Offset
		p  []byte
	}
	var recs []rec
	for range 200 {
		p := randomPayload(rng, 3000)
		if _, err := appendFrame(j, 1, p); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec{j.Append.head.Start + FrameHeaderBytes, p})
	}
	flushAll(t, j)
	var from [2]int
	for _, r := range recs {
		b := make([]byte, RecordHeaderBytes+len(r.p))
		src, err := j.Read(b, r.at)
		if err != nil {
			t.Fatal(err)
		}
		from[src]++
		if !bytes.Equal(b[RecordHeaderBytes:], r.p) {
			t.Fatalf("record at %d differs, read from %d", r.at, src)
		}
	}
	if from[FromCache] == 0 || from[FromDisk] == 0 {
		t.Errorf("%d from the cache, %d from disk; both were wanted", from[FromCache], from[FromDisk])
	}
}

// TestCrash takes a crash at a random point of a random history, over and over on the same disk: all that was flushed is there, in order, and nothing that
// was cut comes back.
func TestCrash(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			mem := vfs.NewMem()
			j := newTestJournal(t, mem)
			var written [][]byte // what the stream should hold, in order
			durable := 0         // records of it below flushed
			ends := []Offset{}   // frame end of each record
			next := 0            // every payload is unique
			for round := range 6 {
				for range rng.IntN(60) {
					switch rng.IntN(5) {
					case 0:
						if _, _, err := j.Flush.Step(j.Append.End()); err != nil {
							t.Fatal(err)
						}
					case 1:
						if rng.IntN(4) == 0 {
							if err := j.WriteMark(j.Flush.Mark()); err != nil {
								t.Fatal(err)
							}
						}
					default:
						var batch [][]byte
						for range 1 + rng.IntN(3) {
							p := append([]byte(fmt.Sprintf("%d|", next)), randomPayload(rng, 1+rng.IntN(4000))...)
							next++
							batch = append(batch, p)
						}
						end, err := appendFrame(j, Term(round+1), batch...)
						if err != nil {
							t.Fatal(err)
						}
						for _, p := range batch {
							written, ends = append(written, p), append(ends, end)
						}
					}
				}
				for durable < len(ends) && ends[durable] <= j.Flush.Flushed() {
					durable++
				}
				mem = mem.Crash(rng)
				if rng.IntN(3) == 0 { // a crash in the middle of recovery
					faulty := vfs.NewFaulty(mem)
					faulty.SetHooks(vfs.CrashAfter(int64(1 + rng.IntN(12))))
					if j2, _, err := Open(testOptions(faulty)); err == nil {
						j2.Close()
					}
					mem = mem.Crash(rng)
				}
				var r Recovered
				var err error
				j, r, err = Open(testOptions(mem))
				if err != nil {
					t.Fatalf("round %d: %v (%+v)", round, err, r)
				}
				got := payloads(t, j)
				if len(got) < durable {
					t.Fatalf("round %d: %d records are left, %d were durable (%+v)", round, len(got), durable, r)
				}
				if len(got) > len(written) {
					t.Fatalf("round %d: %d records, only %d were written: something that was cut came back", round, len(got), len(written))
				}
				for i := range got {
					if !bytes.Equal(got[i], written[i]) {
						t.Fatalf("round %d: record %d is not the one that was written there", round, i)
					}
				}
				written, ends = written[:len(got)], ends[:len(got)]
				durable = len(got)
			}
		})
	}
}

func TestDamageIsRefused(t *testing.T) {
	build := func(t *testing.T) (*vfs.Mem, Offset) {
		mem := vfs.NewMem()
		j := newTestJournal(t, mem)
		for i := range 20 {
			if _, err := appendFrame(j, 1, bytes.Repeat([]byte{byte(i)}, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		flushAll(t, j)
		end := j.Append.End()
		return mem, end
	}
	flip := func(t *testing.T, fsys vfs.FS, at int64) {
		f, err := fsys.Open(path.Join(testDir, segmentName(0)), vfs.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("below the mark", func(t *testing.T) {
		mem, end := build(t)
		m, _, _ := openMark(mem, testDir, testSalt)
		if err := m.write(Mark{Flushed: end, Term: 1, Index: 20, Cut: NoCut}); err != nil {
			t.Fatal(err)
		}
		flip(t, mem, 5000)
		_, _, err := Open(testOptions(mem))
		var d *DamageError
		if !errors.As(err, &d) || d.Segment != 0 || d.Offset > 5000 || d.Offset < 3500 {
			t.Fatalf("open: %v, want a DamageError that names the frame around 5000", err)
		}
	})
	t.Run("below a later frame's flushed", func(t *testing.T) {
		mem, _ := build(t)
		j, _, err := Open(testOptions(mem))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := appendFrame(j, 2, []byte("this frame remembers what was flushed")); err != nil {
			t.Fatal(err)
		}
		flushAll(t, j)
		flip(t, mem, 5000)
		_, _, err = Open(testOptions(mem))
		if d := (*DamageError)(nil); !errors.As(err, &d) {
			t.Fatalf("open: %v, want a DamageError", err)
		}
	})
	t.Run("above what is proven", func(t *testing.T) {
		mem, end := build(t) // one flush, no mark: the whole of it looks like a torn tail
		flip(t, mem, 5000)
		j, r, err := Open(testOptions(mem))
		if err != nil || !r.Torn || r.End >= end || r.TornBytes == 0 {
			t.Fatalf("open: %+v, %v; want a cut", r, err)
		}
		if j.Append.End() != r.End {
			t.Errorf("appends go on at %d, the cut was at %d", j.Append.End(), r.End)
		}
	})
	t.Run("the mark's own frame is another", func(t *testing.T) {
		mem, end := build(t)
		m, _, _ := openMark(mem, testDir, testSalt)
		if err := m.write(Mark{Flushed: end, Term: 1, Index: 20, Chain: 12345, Cut: NoCut}); err != nil {
			t.Fatal(err)
		}
		_, _, err := Open(testOptions(mem))
		if d := (*DamageError)(nil); !errors.As(err, &d) {
			t.Fatalf("open: %v, want a DamageError", err)
		}
	})
}

func TestRecycledSegmentIsNotBelieved(t *testing.T) {
	mem := vfs.NewMem()
	j := newTestJournal(t, mem)
	fill := func(n int) {
		for range n {
			if _, err := appendFrame(j, 1, bytes.Repeat([]byte{7}, 3000)); err != nil {
				t.Fatal(err)
			}
		}
		flushAll(t, j)
	}
	fill(60)
	before := len(j.segs.spares)
	m := j.Flush.Mark()
	m.First = roundDown(m.Flushed, 64<<10) // said before it is done
	if err := j.WriteMark(m); err != nil {
		t.Fatal(err)
	}
	for {
		dropped, err := j.DropHead(roundDown(j.Flush.Flushed(), 64<<10))
		if err != nil {
			t.Fatal(err)
		}
		if !dropped {
			break
		}
	}
	if len(j.segs.spares) <= before && before == 0 {
		t.Fatal("nothing was recycled")
	}
	fill(25) // into a recycled file, not to its end
	end := j.Append.End()
	mem = mem.Crash(rand.New(rand.NewPCG(3, 3)))
	opts := testOptions(mem)
	opts.CatalogOffset = j.First() // the catalog's snapshot is never behind log start
	j2, r, err := Open(opts)
	if err != nil || r.Torn || r.End != end {
		t.Fatalf("recovered %+v, %v; want the end %d and no cut", r, err, end)
	}
	j2.Close()
}

// With retention at work the stream goes on in the files that it let go of: none is made, and none is removed, however many go at a time.
func TestRetentionFeedsThePool(t *testing.T) {
	var made, removed int
	counted := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		switch {
		case op.Kind == vfs.OpAllocate:
			made++
		case op.Kind == vfs.OpRemove && strings.HasSuffix(op.Name, segmentSuffix):
			removed++
		}
		return nil
	})
	opts := testOptions(counted)
	opts.Spares = 2
	if err := Create(opts); err != nil {
		t.Fatal(err)
	}
	j, _, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	segments := func(n int) {
		for end := j.Append.End() + Offset(n)*(64<<10); j.Append.End() < end; {
			if _, err := appendFrame(j, 1, bytes.Repeat([]byte{7}, 3000)); err != nil {
				t.Fatal(err)
			}
			flushAll(t, j)
			for more := true; more; {
				var err error
				if more, err = j.Maintain(j.Append.End(), true); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	letGo := func(n int) {
		m := j.Flush.Mark()
		m.First = j.First() + Offset(n)*(64<<10)
		if err := j.WriteMark(m); err != nil {
			t.Fatal(err)
		}
		for range n {
			if dropped, err := j.DropHead(m.First); err != nil || !dropped {
				t.Fatal(dropped, err)
			}
		}
	}
	segments(6)
	letGo(1)
	made, removed = 0, 0
	for i := range 20 {
		segments(1 + i%2)
		letGo(1 + i%2)
	}
	if made > 1 || removed > 1 { // the pool settles
		t.Errorf("%d segments were made and %d removed", made, removed)
	}
}

func TestDecodeRecord(t *testing.T) {
	r := Record{Kind: RecordBatch, Partition: 9, Base: 77, Payload: []byte("hello")}
	b := make([]byte, RecordBytes(5))
	encodeRecordHeader((*[RecordHeaderBytes]byte)(b), r.Kind, r.Flags, r.Partition, r.Base, len(r.Payload))
	copy(b[RecordHeaderBytes:], "hello")
	got, err := DecodeRecord(b, 1000)
	if err != nil || got.Base != 77 || got.Partition != 9 || string(got.Payload) != "hello" || got.End() != 1000+Offset(len(b)) {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"short":   b[:RecordHeaderBytes-1],
		"cut":     b[:RecordHeaderBytes+4],
		"no kind": append([]byte{0}, b[1:]...),
	} {
		if _, err := DecodeRecord(bad, 0); err == nil {
			t.Errorf("%s: taken as a record", name)
		}
	}
}

func FuzzDecodeFrame(f *testing.F) {
	var b [FrameHeaderBytes]byte
	h := FrameHeader{Type: FrameData, BodyBytes: 32, Records: 1, Start: 64, Index: 1}
	h.encode(&b, testSalt.seed())
	f.Add(b[:], []byte("body"))
	f.Fuzz(func(t *testing.T, head, body []byte) {
		h, err := decodeFrame(head, testSalt.seed(), 64)
		if err == nil && h.Start != 64 {
			t.Fatal("a frame for another place was taken")
		}
		fr := Frame{FrameHeader: FrameHeader{Type: FrameData, Records: uint32(len(head) % 7)}, Body: body}
		fr.EachRecord(func(r Record) error {
			if crc32.ChecksumIEEE(r.Payload) == 0 && len(r.Payload) > len(body) {
				t.Fatal("payload outside of the body")
			}
			return nil
		})
	})
}

func FuzzDecodeMark(f *testing.F) {
	b := make([]byte, markBytes)
	encodeMark(b, Mark{Flushed: 80, Cut: NoCut}, 4, testSalt.seed())
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, _, ok := decodeMark(b, testSalt.seed()); ok && (m.Flushed < 0 || m.Cut < NoCut) {
			t.Fatalf("impossible mark taken: %+v", m)
		}
	})
}
