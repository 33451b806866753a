package vfs

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
)

const crashSeeds = 1000

func seeded(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 0)) }

// everySeed counts what describe says of the crashes of m.
func everySeed(m *Mem, describe func(c *Mem) string) map[string]int {
	seen := map[string]int{}
	for seed := range crashSeeds {
		seen[describe(m.Crash(seeded(seed)))]++
	}
	return seen
}

// wantSeen wants exactly these outcomes, each at least once.
func wantSeen(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Fatalf("over %d seeds got %v, want each of %q and nothing else", crashSeeds, seen, want)
	}
}

// tree is all files below a directory with their bytes.
func tree(t *testing.T, m *Mem, dir string) string {
	t.Helper()
	names, err := m.List(dir)
	must(t, err)
	var files []string
	for _, name := range names {
		full := path.Join(dir, name)
		if _, err := m.List(full); err != nil {
			files = append(files, full+"="+read(t, m, full))
		} else if below := tree(t, m, full); below != "" {
			files = append(files, below)
		}
	}
	return strings.Join(files, " ")
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func TestCrashKeepsSynced(t *testing.T) {
	m := NewMem()
	a := open(t, m, "a", ReadWrite|Create)
	writeAt(t, a, fill(1, 10_000), 0)
	must(t, a.Sync())
	b := open(t, m, "b", ReadWrite|Create)
	writeAt(t, b, fill(9, 8000), 0) // unsynced, and then covered by what is
	writeSync(t, b, 0, fill(2, 3000), fill(3, 5000))
	must(t, m.SyncDir("."))
	writeAt(t, a, fill(4, 100), 10_000)
	writeAt(t, b, fill(4, 100), 8000)
	must(t, b.Allocate(20_000))
	open(t, m, "c", ReadWrite|Create)

	everySeed(m, func(c *Mem) string {
		if got := read(t, c, "a"); got[:10_000] != string(fill(1, 10_000)) {
			t.Fatal("synced bytes of a are lost")
		}
		if got := read(t, c, "b"); got[:8000] != string(fill(2, 3000))+string(fill(3, 5000)) {
			t.Fatal("synced bytes of b are lost")
		}
		return ""
	})
	wantRead(t, m.CrashKeepNothing(), "a", string(fill(1, 10_000)))
	wantNames(t, m.CrashKeepNothing(), ".", "a", "b")
}

func TestCrashOfUnsyncedWrite(t *testing.T) {
	m := NewMem()
	put(t, m, "f", "old")
	must(t, m.SyncDir("."))
	writeAt(t, open(t, m, "f", ReadWrite), []byte("new"), 0)
	wantSeen(t, everySeed(m, func(c *Mem) string { return read(t, c, "f") }), "old", "new")
	wantRead(t, m.CrashKeepNothing(), "f", "old")
	wantRead(t, m, "f", "new")
}

// An extending write may leave its size without its bytes, or a part of them.
func TestCrashOfExtendingWrite(t *testing.T) {
	m := NewMem()
	f := open(t, m, "f", ReadWrite|Create)
	must(t, m.SyncDir("."))
	writeAt(t, f, fill('x', 2*memSectorBytes), 0)
	seen := everySeed(m, func(c *Mem) string {
		var sectors string
		for s := range slices.Chunk([]byte(read(t, c, "f")), memSectorBytes) {
			switch string(s) {
			case string(fill('x', memSectorBytes)):
				sectors += "x"
			case string(fill(0, memSectorBytes)):
				sectors += "0"
			default:
				t.Fatal("a sector is neither written nor zeros")
			}
		}
		return sectors
	})
	wantSeen(t, seen, "", "x", "xx", "00", "x0", "0x")
}

func TestCrashReordersAndTears(t *testing.T) {
	m := NewMem()
	f := open(t, m, "f", ReadWrite|Create)
	writeSync(t, f, 0, fill('-', 3*memSectorBytes))
	must(t, m.SyncDir("."))
	writeAt(t, f, fill('a', 2*memSectorBytes), 0)
	writeAt(t, f, fill('b', 2*memSectorBytes), memSectorBytes)
	seen := everySeed(m, func(c *Mem) string {
		got := read(t, c, "f")
		for s := range slices.Chunk([]byte(got), memSectorBytes) {
			if !bytes.Equal(s, fill(s[0], memSectorBytes)) {
				t.Fatal("a torn sector")
			}
		}
		return fmt.Sprintf("%c%c%c", got[0], got[memSectorBytes], got[2*memSectorBytes])
	})
	var all []string
	for _, first := range "-a" {
		for _, second := range "-ab" {
			for _, third := range "-b" {
				all = append(all, string([]rune{first, second, third}))
			}
		}
	}
	wantSeen(t, seen, all...)
}

// Sectors are the file's, not the write's, and synced bytes that share one with an unsynced write stay.
func TestCrashTearsAtSectorsOfTheFile(t *testing.T) {
	m := NewMem()
	f := open(t, m, "f", ReadWrite|Create)
	writeSync(t, f, 0, fill('-', 2*memSectorBytes))
	must(t, m.SyncDir("."))
	writeAt(t, f, fill('a', 200), memSectorBytes-100)
	seen := everySeed(m, func(c *Mem) string {
		got := read(t, c, "f")
		if got[:memSectorBytes-100]+got[memSectorBytes+100:] != string(fill('-', 2*memSectorBytes-200)) {
			t.Fatal("a write changed bytes outside of its range")
		}
		left, right := got[memSectorBytes-100:memSectorBytes], got[memSectorBytes:memSectorBytes+100]
		if left != strings.Repeat(left[:1], 100) || right != strings.Repeat(right[:1], 100) {
			t.Fatal("a torn sector")
		}
		return left[:1] + right[:1]
	})
	wantSeen(t, seen, "--", "a-", "-a", "aa")
}

func TestCrashOfSizes(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(f File)
		want []string
	}{
		{"truncate", func(f File) { must(t, f.Truncate(2)) }, []string{"ab", "abcd"}},
		{"grow", func(f File) { must(t, f.Truncate(6)) }, []string{"abcd", "abcd\x00\x00"}},
		{"allocate", func(f File) { must(t, f.Allocate(5)) }, []string{"abcd", "abcd\x00"}},
		{"truncate and sync", func(f File) { must(t, f.Truncate(2)); must(t, f.Sync()) }, []string{"ab"}},
		{"write sync extends", func(f File) { must(t, f.Allocate(6)); writeSync(t, f, 4, []byte("e")) }, []string{"abcde", "abcde\x00"}},
		{"write sync after truncate", func(f File) { must(t, f.Truncate(1)); writeSync(t, f, 2, []byte("C")) }, []string{"a\x00C", "abCd"}},
		{"truncate after write sync", func(f File) { writeSync(t, f, 0, []byte("A")); must(t, f.Truncate(3)) }, []string{"Abcd", "Abc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMem()
			put(t, m, "f", "abcd")
			must(t, m.SyncDir("."))
			c.do(open(t, m, "f", ReadWrite))
			wantSeen(t, everySeed(m, func(c *Mem) string { return read(t, c, "f") }), c.want...)
		})
	}
}

// Per directory the oldest so many changes survive, whatever happens in the other.
func TestCrashKeepsPrefixOfNames(t *testing.T) {
	m := NewMem()
	for _, d := range []string{"a", "b"} {
		must(t, m.MkdirAll(d))
	}
	for i := range 3 {
		for _, d := range []string{"a", "b"} {
			put(t, m, path.Join(d, fmt.Sprint(i)), "")
		}
		if i == 0 {
			must(t, m.SyncDir("a"))
		}
	}
	names := func(c *Mem) string {
		a, err := c.List("a")
		must(t, err)
		b, err := c.List("b")
		must(t, err)
		return strings.Join(a, "") + " " + strings.Join(b, "")
	}
	wantSeen(t, everySeed(m, names),
		"0 ", "0 0", "0 01", "0 012",
		"01 ", "01 0", "01 01", "01 012",
		"012 ", "012 0", "012 01", "012 012")
	if got := names(m.CrashKeepNothing()); got != "0 " {
		t.Fatalf("kept nothing: %q", got)
	}
	if got := names(m.CrashKeepAll()); got != "012 012" {
		t.Fatalf("kept all: %q", got)
	}
}

func TestCrashOfNames(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *Mem)
		want []string
	}{
		{"create", func(m *Mem) { put(t, m, "d/new", "n") }, []string{"d/f=F d/g=G", "d/f=F d/g=G d/new=n"}},
		{"remove", func(m *Mem) { must(t, m.Remove("d/f")) }, []string{"d/f=F d/g=G", "d/g=G"}},
		{"rename over", func(m *Mem) { must(t, m.Rename("d/f", "d/g")) }, []string{"d/f=F d/g=G", "d/g=F"}},
		{"rename to another directory", func(m *Mem) { must(t, m.Rename("d/f", "e/f")) }, []string{"d/f=F d/g=G", "d/g=G e/f=F"}},
		{"create, then remove", func(m *Mem) { put(t, m, "d/h", "H"); must(t, m.Remove("d/h")) },
			[]string{"d/f=F d/g=G", "d/f=F d/g=G d/h=H"}},
		{"remove, then create", func(m *Mem) { must(t, m.Remove("d/f")); put(t, m, "d/f", "2") },
			[]string{"d/f=F d/g=G", "d/g=G", "d/f=2 d/g=G"}},
		{"lock", func(m *Mem) { _, err := m.Lock("d/l"); must(t, err) }, []string{"d/f=F d/g=G", "d/f=F d/g=G d/l="}},
		{"rename away and back", func(m *Mem) { must(t, m.Rename("d/f", "e/f")); must(t, m.Rename("e/f", "d/f2")) },
			[]string{"d/f=F d/g=G", "d/g=G e/f=F", "d/f2=F d/g=G"}},
		{"rename, sync of the old directory", func(m *Mem) { must(t, m.Rename("d/f", "e/f")); must(t, m.SyncDir("d")) }, []string{"d/g=G e/f=F"}},
		{"rename, sync of the new directory", func(m *Mem) {
			put(t, m, "d/h", "H")
			must(t, m.Rename("d/f", "e/f"))
			put(t, m, "d/i", "I")
			must(t, m.SyncDir("e"))
		}, []string{"d/g=G d/h=H e/f=F", "d/g=G d/h=H d/i=I e/f=F"}},
		{"remove of a directory", func(m *Mem) {
			must(t, m.MkdirAll("d/x"))
			put(t, m, "d/x/f", "")
			must(t, m.Rename("d/x/f", "e/x"))
			must(t, m.Remove("d/x"))
		},
			[]string{"d/f=F d/g=G e/x="}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMem()
			for _, d := range []string{"d", "e"} {
				must(t, m.MkdirAll(d))
			}
			put(t, m, "d/f", "F")
			put(t, m, "d/g", "G")
			must(t, m.SyncDir("d"))
			c.do(m)
			wantSeen(t, everySeed(m, func(c *Mem) string { return tree(t, c, ".") }), c.want...)
			if got := tree(t, m.CrashKeepNothing(), "."); got != c.want[0] {
				t.Fatalf("kept nothing: %q", got)
			}
			for _, dir := range []string{"d", "e"} {
				must(t, m.SyncDir(dir))
			}
			if got, want := tree(t, m.CrashKeepNothing(), "."), tree(t, m, "."); got != want {
				t.Fatalf("after the directories' sync %q is left of %q", got, want)
			}
		})
	}
}

// The new name of a file whose bytes were not synced may be there without them.
func TestCrashOfRenameBeforeSync(t *testing.T) {
	m := NewMem()
	put(t, m, "f", "old")
	must(t, m.SyncDir("."))
	writeAt(t, open(t, m, "f.tmp", ReadWrite|Create), []byte("new"), 0)
	must(t, m.Rename("f.tmp", "f"))
	must(t, m.SyncDir("."))
	wantSeen(t, everySeed(m, func(c *Mem) string { return read(t, c, "f") }), "", "new", "\x00\x00\x00")
}

// busy returns a Mem with all kinds of changes pending, in several files and directories.
func busy(t *testing.T) *Mem {
	m := NewMem()
	for d := range 5 {
		dir := fmt.Sprintf("d%d", d)
		must(t, m.MkdirAll(dir))
		for i := range 5 {
			f := open(t, m, path.Join(dir, fmt.Sprint(i)), ReadWrite|Create)
			writeSync(t, f, 0, fill('s', 1000))
			must(t, f.Allocate(6000))
			writeAt(t, f, fill('w', 3000), 500)
			writeAt(t, f, fill('v', 3000), 2000)
			if i%2 == 0 {
				must(t, f.Truncate(2500))
			}
		}
		if d%2 == 0 {
			must(t, m.SyncDir(dir))
		}
		must(t, m.Rename(path.Join(dir, "1"), "d0/from"+dir))
		must(t, m.Remove(path.Join(dir, "2")))
	}
	return m
}

func TestCrashIsDeterministic(t *testing.T) {
	seen := map[string]bool{}
	for seed := range 20 {
		want := tree(t, busy(t).Crash(seeded(seed)), ".")
		m := busy(t)
		for _, again := range []*Mem{m, m, m.CrashKeepAll()} {
			if tree(t, again.Crash(seeded(seed)), ".") != want {
				t.Fatalf("seed %d gives two different crashes", seed)
			}
		}
		seen[want] = true
	}
	if len(seen) < 15 {
		t.Fatalf("20 seeds gave only %d different crashes", len(seen))
	}
}

func TestCrashCopiesAreIndependent(t *testing.T) {
	m := busy(t)
	open(t, m, "d0/0", ReadWrite) // there after any crash: its create was synced
	before := tree(t, m, ".")
	spoil := func(m *Mem) {
		f := open(t, m, "d0/0", ReadWrite)
		writeAt(t, f, fill('!', 100), 300)
		writeSync(t, f, 4000, fill('!', 5000))
		must(t, f.Truncate(4500))
		must(t, f.Sync())
		put(t, m, "d0/new", "new")
		must(t, m.Rename("d0/new", "d0/newer"))
		must(t, m.SyncDir("d0"))
	}
	for name, crash := range map[string]func(*Mem) *Mem{
		"power":   func(m *Mem) *Mem { return m.Crash(seeded(1)) },
		"nothing": (*Mem).CrashKeepNothing,
		"all":     (*Mem).CrashKeepAll,
	} {
		c, twin := crash(m), crash(m)
		was := tree(t, twin, ".")
		spoil(c)
		if tree(t, m, ".") != before {
			t.Fatalf("%s: a change of the copy is seen in the original", name)
		}
		if tree(t, twin, ".") != was {
			t.Fatalf("%s: a change of one copy is seen in another", name)
		}
	}
	c := m.Crash(seeded(2))
	was := tree(t, c, ".")
	spoil(m)
	if tree(t, c, ".") != was {
		t.Fatal("a change of the original is seen in the copy")
	}
}

// After the death of a process what it had not synced is there, and still not durable.
func TestCrashKeepAllIsNotASync(t *testing.T) {
	m := NewMem()
	put(t, m, "f", "old")
	must(t, m.SyncDir("."))
	writeAt(t, open(t, m, "f", ReadWrite), []byte("new"), 0)
	put(t, m, "g", "g")
	c := m.CrashKeepAll()
	if got, want := tree(t, c, "."), tree(t, m, "."); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	if got := tree(t, c.CrashKeepNothing(), "."); got != "f=old" {
		t.Fatalf("after a power loss %q", got)
	}
	must(t, open(t, c, "f", ReadOnly).Sync())
	wantRead(t, c.CrashKeepNothing(), "f", "new")
	wantRead(t, m.CrashKeepNothing(), "f", "old")
}

// What a crash left can crash again.
func TestCrashOfCrash(t *testing.T) {
	m := NewMem()
	put(t, m, "f", "f")
	must(t, m.SyncDir("."))
	for _, c := range []*Mem{m.Crash(seeded(1)), m.CrashKeepNothing(), m.CrashKeepAll()} {
		put(t, c, "g", "g")
		must(t, c.Rename("f", "h"))
		wantSeen(t, everySeed(c, func(c *Mem) string { return tree(t, c, ".") }), "f=f", "f=f g=g", "g=g h=f")
		if got := tree(t, c.CrashKeepNothing(), "."); got != "f=f" {
			t.Fatalf("kept nothing: %q", got)
		}
	}
}

func TestCrashOfLock(t *testing.T) {
	m := NewMem()
	l, err := m.Lock("lock")
	must(t, err)
	must(t, m.SyncDir("."))
	for _, c := range []*Mem{m.Crash(seeded(1)), m.CrashKeepNothing(), m.CrashKeepAll()} {
		_, err := c.Lock("lock")
		must(t, err)
		_, err = c.Lock("lock")
		wantErr(t, err, ErrLocked)
	}
	_, err = m.Lock("lock")
	wantErr(t, err, ErrLocked)
	must(t, l.Close())
}

// A removed file that is still open keeps its bytes, and no crash brings it back once the removal is durable.
func TestCrashOfRemovedOpenFile(t *testing.T) {
	m := NewMem()
	put(t, m, "f", "f")
	f := open(t, m, "f", ReadWrite)
	must(t, m.SyncDir("."))
	must(t, m.Remove("f"))
	wantSeen(t, everySeed(m, func(c *Mem) string { return tree(t, c, ".") }), "", "f=f")
	must(t, m.SyncDir("."))
	writeSync(t, f, 0, []byte("g"))
	wantSeen(t, everySeed(m, func(c *Mem) string { return tree(t, c, ".") }), "")
	if got := string(contents(t, f)); got != "g" {
		t.Fatalf("the open file has %q", got)
	}
}
