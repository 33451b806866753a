package vfs

import (
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

// allOps does one operation of each kind and returns their errors.
func allOps(t *testing.T, f *Faulty, file File) []error {
	t.Helper()
	buf := make([]byte, 10)
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	_, err := f.Open("f", ReadOnly)
	add(err)
	_, err = f.Open("f", ReadWrite|Create)
	add(err)
	_, err = file.ReadAt(buf, 0)
	add(err)
	_, err = file.WriteAt(buf, 2)
	add(err)
	_, err = file.WriteSync([][]byte{buf, buf[:5]}, 3)
	add(err)
	add(file.Sync())
	add(file.Truncate(30))
	add(file.Allocate(40))
	add(f.Rename("f", "g"))
	add(f.Rename("g", "f"))
	add(f.Remove("gone"))
	add(f.MkdirAll("d"))
	add(f.SyncDir("d"))
	_, err = f.List("d")
	add(err)
	_, err = f.Lock("lock")
	add(err)
	_, err = f.Free("d")
	add(err)
	return errs
}

func faultyOn(t *testing.T, m *Mem) (*Faulty, File) {
	t.Helper()
	put(t, m, "f", "0123456789")
	put(t, m, "gone", "")
	must(t, m.SyncDir("."))
	f := NewFaulty(m)
	return f, open(t, f, "f", ReadWrite)
}

func TestFaultyTellsHooks(t *testing.T) {
	f, file := faultyOn(t, NewMem())
	var ops []Op
	f.SetHooks(func(op Op) error { ops = append(ops, op); return nil })
	if err := errors.Join(allOps(t, f, file)...); err != nil {
		t.Fatal(err)
	}
	want := []Op{
		{Kind: OpOpen, Name: "f"},
		{Kind: OpCreate, Name: "f"},
		{Kind: OpRead, Name: "f", Bytes: 10},
		{Kind: OpWrite, Name: "f", Off: 2, Bytes: 10},
		{Kind: OpWriteSync, Name: "f", Off: 3, Bytes: 15},
		{Kind: OpSync, Name: "f"},
		{Kind: OpTruncate, Name: "f", Bytes: 30},
		{Kind: OpAllocate, Name: "f", Bytes: 40},
		{Kind: OpRename, Name: "f", To: "g"},
		{Kind: OpRename, Name: "g", To: "f"},
		{Kind: OpRemove, Name: "gone"},
		{Kind: OpMkdir, Name: "d"},
		{Kind: OpSyncDir, Name: "d"},
		{Kind: OpList, Name: "d"},
		{Kind: OpLock, Name: "lock"},
		{Kind: OpFree, Name: "d"},
	}
	for i := range want {
		want[i].N = int64(i + 2) // the first was faultyOn's Open
	}
	if !slices.Equal(ops, want) {
		t.Fatalf("got\n%+v, want\n%+v", ops, want)
	}
	for kinds, want := range map[OpKind]int64{OpOpen: 2, OpCreate: 1, OpRename: 2, OpWrite | OpWriteSync: 2, OpMutating: 12, OpAll: 17, 0: 0} {
		if got := f.Count(kinds); got != want {
			t.Fatalf("count of kinds %#x: %d, want %d", kinds, got, want)
		}
	}
}

func TestFaultyErrorMeansNotDone(t *testing.T) {
	m := NewMem()
	f, file := faultyOn(t, m)
	before := tree(t, m, ".")
	boom := errors.New("boom")
	var after int
	f.SetHooks(func(Op) error { return boom }, func(Op) error { after++; return nil })
	for i, err := range allOps(t, f, file) {
		if err != boom {
			t.Fatalf("operation %d: got error %v", i, err)
		}
	}
	if after != 0 {
		t.Fatal("a hook behind the one that failed was called")
	}
	if got := tree(t, m, "."); got != before {
		t.Fatalf("%q was changed to %q", before, got)
	}
	wantSize(t, file, 10)
	f.SetHooks()
	if err := errors.Join(allOps(t, f, file)...); err != nil {
		t.Fatal(err)
	}
}

func TestFailNth(t *testing.T) {
	f, file := faultyOn(t, NewMem())
	must(t, file.Sync()) // before the count starts
	f.SetHooks(FailNth(OpWrite|OpSync, 3, syscall.EIO))
	writeAt(t, file, []byte("x"), 0)
	writeSync(t, file, 0, []byte("x"))
	must(t, file.Sync())
	writeSync(t, file, 0, []byte("x"))
	wantErr(t, file.Sync(), syscall.EIO)
	must(t, file.Sync())
	writeAt(t, file, []byte("x"), 0)
}

func TestPartialWrite(t *testing.T) {
	for _, c := range []struct {
		bytes int
		want  string
	}{{-1, "0123456789"}, {0, "0123456789"}, {1, "01a3456789"}, {3, "01abc56789"}, {5, "01abcde789"}, {math.MaxInt, "01abcde789"}} {
		m := NewMem()
		f, file := faultyOn(t, m)
		n := min(max(c.bytes, 0), 5)

		f.SetHooks(FailNth(OpWriteSync, 1, PartialWrite{Bytes: c.bytes, Err: syscall.EIO}))
		got, err := file.WriteSync([][]byte{[]byte("ab"), []byte("cde")}, 2)
		wantErr(t, err, syscall.EIO)
		if got != n {
			t.Fatalf("%d bytes were to be written, got %d", n, got)
		}
		wantRead(t, m, "f", c.want)
		wantRead(t, m.CrashKeepNothing(), "f", "0123456789") // written is not synced

		put(t, m, "f", "0123456789")
		f.SetHooks(FailNth(OpWrite, 1, PartialWrite{Bytes: c.bytes, Err: syscall.ENOSPC}))
		got, err = file.WriteAt([]byte("abcde"), 2)
		wantErr(t, err, syscall.ENOSPC)
		if got != n {
			t.Fatalf("%d bytes were to be written, got %d", n, got)
		}
		wantRead(t, m, "f", c.want)
	}
}

// A cut-short direct write ends anywhere on a Mem, and on whole blocks elsewhere.
func TestPartialWriteDirect(t *testing.T) {
	for name, c := range map[string]struct {
		fs   FS
		want int
	}{"mem": {NewMem(), BlockBytes + 700}, "os": {OS{}, BlockBytes}} {
		t.Run(name, func(t *testing.T) {
			dir := "."
			if name == "os" {
				dir = t.TempDir()
			}
			openDirect(t, c.fs, dir) // skips where there is none
			f := NewFaulty(c.fs, FailNth(OpWriteSync, 1, PartialWrite{Bytes: BlockBytes + 700, Err: syscall.EIO}))
			file := open(t, f, dir+"/f", ReadWrite|Direct)
			n, err := file.WriteSync([][]byte{AlignedBytes(BlockBytes), AlignedBytes(BlockBytes)}, 0)
			wantErr(t, err, syscall.EIO)
			if n != c.want {
				t.Fatalf("%d bytes written, want %d", n, c.want)
			}
			wantSize(t, file, int64(n))
		})
	}
}

// replace writes a file anew in the usual way: under another name, synced, renamed.
func replace(fsys FS, with string) error {
	f, err := fsys.Open("f.tmp", ReadWrite|Create)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(with), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fsys.Rename("f.tmp", "f"); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}

// The loop that CrashAfter is for: a run that counts, then a crash after every step, with several fates each.
func TestCrashAfterEveryStep(t *testing.T) {
	start := func() *Mem {
		m := NewMem()
		put(t, m, "f", "old")
		must(t, m.SyncDir("."))
		return m
	}
	dry := NewFaulty(start())
	must(t, replace(dry, "new"))
	steps := dry.Count(OpMutating)
	if steps != 5 {
		t.Fatalf("%d steps, want create, write, sync, rename, sync of the directory", steps)
	}
	seen := map[string]bool{}
	for n := range steps + 1 {
		m := start()
		f := NewFaulty(m, CrashAfter(n))
		err := replace(f, "new")
		if n < steps {
			wantErr(t, err, ErrCrashed)
		} else {
			must(t, err)
		}
		_, err = f.List(".")
		wantErr(t, err, ErrCrashed) // what changes nothing fails, too
		for seed := range 50 {
			got := read(t, m.Crash(seeded(seed)), "f")
			seen[got] = true
			if got != "old" && got != "new" || err == nil && got != "new" {
				t.Fatalf("crash after step %d, seed %d: %q", n, seed, got)
			}
		}
	}
	if !seen["old"] || !seen["new"] {
		t.Fatalf("only %v was ever left", seen)
	}
}

// The write during which the plug is pulled may be torn; none after it is begun.
func TestCrashAfterTearsTheWriteInFlight(t *testing.T) {
	m := NewMem()
	f := NewFaulty(m)
	file := open(t, f, "f", ReadWrite|Create)
	writeSync(t, file, 0, fill('-', 2*memSectorBytes))
	must(t, m.SyncDir("."))
	f.SetHooks(CrashAfter(1))
	writeSync(t, file, 0, fill('a', memSectorBytes))
	_, err := file.WriteSync([][]byte{fill('b', 2*memSectorBytes)}, 0)
	wantErr(t, err, ErrCrashed)
	_, err = file.WriteSync([][]byte{fill('c', 2*memSectorBytes)}, 0)
	wantErr(t, err, ErrCrashed)
	wantErr(t, file.Sync(), ErrCrashed)
	_, err = file.ReadAt(make([]byte, 1), 0)
	wantErr(t, err, ErrCrashed)
	must(t, file.Close())
	wantSeen(t, everySeed(m, func(c *Mem) string {
		got := read(t, c, "f")
		return got[:1] + got[memSectorBytes:memSectorBytes+1]
	}), "a-", "b-", "ab", "bb")
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMem()
		g := NewGate(".journal")
		f := NewFaulty(m, g.Hook)
		journal, other := open(t, f, "0.journal", ReadWrite|Create), open(t, f, "mark", ReadWrite|Create)
		done := make(chan string, 10)
		start := func() {
			go func() { journal.WriteAt([]byte("w"), 0); done <- "write" }()
			go func() { journal.WriteSync([][]byte{[]byte("s")}, 1); done <- "write sync" }()
			go func() { journal.Sync(); done <- "sync" }()
			synctest.Wait()
		}
		finished := func() string {
			synctest.Wait()
			var names []string
			for len(done) > 0 {
				names = append(names, <-done)
			}
			slices.Sort(names)
			return strings.Join(names, ", ")
		}
		const all = "sync, write, write sync"

		for range 2 {
			start()
			if got := finished(); got != all {
				t.Fatalf("open gate: %q went through", got)
			}
			must(t, journal.Truncate(0))
			g.Hold()
			g.Hold()
			start()
			if got := finished(); got != "" {
				t.Fatalf("held gate: %q went through", got)
			}
			wantSize(t, journal, 0)
			contents(t, journal) // reads are let through, as are other files
			writeSync(t, other, 0, []byte("x"))
			g.Release()
			g.Release()
			if got := finished(); got != all {
				t.Fatalf("released gate: %q went through", got)
			}
			wantRead(t, m, "0.journal", "ws")
		}
	})
}
