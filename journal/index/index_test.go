package index

import (
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"tidemark/internal/vfs"
	"tidemark/journal"
)

const segBytes = 64 << 10

// fill adds entries of three partitions over several segments and returns what it added.
func fill(x *Index, rng *rand.Rand) map[uint32][]Entry {
	want := map[uint32][]Entry{}
	next := map[uint32]journal.LogicalOffset{}
	for at := journal.Offset(80); at < 5*segBytes; at += journal.Offset(100 + 8*rng.IntN(40)) {
		id := 1 + uint32(rng.IntN(3))
		e := Entry{Base: next[id], At: at, Bytes: uint32(61 + rng.IntN(200)), Records: uint32(1 + rng.IntN(9)), MaxTimestamp: int64(rng.IntN(10000))}
		next[id] = e.Next()
		x.Add(id, e)
		want[id] = append(want[id], e)
	}
	return want
}

func check(t *testing.T, x *Index, want map[uint32][]Entry) {
	t.Helper()
	for id, es := range want {
		for i, w := range es {
			for _, o := range []journal.LogicalOffset{w.Base, w.Next() - 1} {
				got, err := x.Find(id, o, 1, nil)
				if err != nil || len(got) != 1 || got[0].Base != w.Base || got[0].At != w.At || got[0].Bytes != w.Bytes {
					t.Fatalf("partition %d offset %d (entry %d): %+v, %v; want %+v", id, o, i, got, err, w)
				}
			}
		}
		last := es[len(es)-1]
		if got, err := x.Find(id, last.Next(), 1, nil); err != nil || len(got) != 0 {
			t.Errorf("partition %d: %+v, %v behind its end", id, got, err)
		}
		for ms := int64(0); ms < 10100; ms += 61 {
			var first *Entry
			for i := range es {
				if es[i].MaxTimestamp >= ms {
					first = &es[i]
					break
				}
			}
			got, ok, err := x.FindTime(id, 0, ms)
			if err != nil || ok != (first != nil) || (ok && got.Base != first.Base) {
				t.Fatalf("partition %d time %d: %+v, %v, %v; want %+v", id, ms, got, ok, err, first)
			}
			for i := 0; i < len(es); i += 97 { // from the last offset of a batch on: no batch before it, and none left out that has what is asked for
				from := es[i].Next() - 1
				got, ok, err := x.FindTime(id, from, ms)
				k := slices.IndexFunc(es[i:], func(e Entry) bool { return e.MaxTimestamp >= ms })
				if err != nil || k >= 0 && !ok || ok && (got.Next() <= from || k >= 0 && got.Base > es[i+k].Base) {
					t.Fatalf("partition %d from %d time %d: %+v, %v, %v", id, from, ms, got, ok, err)
				}
			}
		}
		total := 0
		for _, e := range es {
			total += int(e.Bytes)
		}
		if got := x.Bytes(id, 0, 1<<30); got != total {
			t.Errorf("partition %d: %d bytes, want %d", id, got, total)
		}
	}
}

func TestFindInMemoryAndFiles(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	x := New(fsys, "d", segBytes)
	want := fill(x, rand.New(rand.NewPCG(1, 1)))
	check(t, x, want)
	for seg := journal.Offset(0); seg < 4*segBytes; seg += segBytes {
		if err := x.Seal(seg); err != nil {
			t.Fatal(err)
		}
		check(t, x, want)
		if n, err := Check(fsys, "d", seg); err != nil || n == 0 {
			t.Errorf("check: %d, %v", n, err)
		}
	}
	// The same from the files alone.
	y := New(fsys, "d", segBytes)
	for seg := journal.Offset(0); seg < 4*segBytes; seg += segBytes {
		if err := y.Load(seg); err != nil {
			t.Fatal(err)
		}
	}
	for id, es := range want {
		for _, e := range es {
			if e.At >= 4*segBytes {
				y.Add(id, e)
			}
		}
	}
	check(t, y, want)
	y.DropBefore(2 * segBytes)
	for id, es := range want {
		for _, e := range es {
			if e.At < 2*segBytes {
				continue
			}
			if first, ok := y.First(id, 0); !ok || first != e.Base {
				t.Errorf("partition %d begins at %d, want %d", id, first, e.Base)
			}
			break
		}
	}
}

func TestDamagedFileIsFound(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	x := New(fsys, "d", segBytes)
	fill(x, rand.New(rand.NewPCG(2, 2)))
	if err := x.Seal(0); err != nil {
		t.Fatal(err)
	}
	name := path.Join("d", journal.IndexName(0))
	whole, err := journal.ReadFile(fsys, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 300 {
		bit := rng.IntN(len(whole) * 8)
		spoilt := append([]byte(nil), whole...)
		spoilt[bit/8] ^= 1 << (bit % 8)
		if err := journal.WriteFileAtomic(fsys, name, spoilt); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(fsys, "d", 0); err == nil {
			t.Fatalf("bit %d flipped, and nothing was found", bit)
		}
	}
	for range 50 {
		if err := journal.WriteFileAtomic(fsys, name, whole[:rng.IntN(len(whole))]); err != nil {
			t.Fatal(err)
		}
		if _, err := Check(fsys, "d", 0); err == nil {
			t.Fatal("cut off, and nothing was found")
		}
	}
}

func FuzzOpenFile(f *testing.F) {
	fsys := vfs.NewMem()
	fsys.MkdirAll("d")
	if err := writeFile(fsys, "d", 0, map[uint32][]Entry{1: {{Base: 0, At: 80, Bytes: 100, Records: 1}}}, vfs.AlignedBytes(2*pageBytes)); err != nil {
		f.Fatal(err)
	}
	seed, err := journal.ReadFile(fsys, path.Join("d", journal.IndexName(0)), 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		for p := 0; p+pageBytes <= len(b); p += pageBytes {
			sealPage(b[p : p+pageBytes]) // past the checksum, to the checks behind it
		}
		fsys := vfs.NewMem()
		fsys.MkdirAll("d")
		if err := journal.WriteFileAtomic(fsys, path.Join("d", journal.IndexName(0)), b); err != nil {
			t.Fatal(err)
		}
		Check(fsys, "d", 0)
	})
}
