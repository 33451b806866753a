package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"testing"
)

// What all implementations have to do alike. dir exists and is empty.
var conformance = []struct {
	name string
	run  func(t *testing.T, fsys FS, dir string)
}{
	{"open modes", testOpenModes},
	{"read and write", testReadWrite},
	{"truncate", testTruncate},
	{"allocate", testAllocate},
	{"write sync", testWriteSync},
	{"direct", testDirect},
	{"direct at the end", testDirectEnd},
	{"rename", testRename},
	{"remove", testRemove},
	{"directories", testDirectories},
	{"lock", testLock},
	{"closed file", testClosed},
	{"bad arguments", testBadArguments},
	{"allocate by writing", testAllocateByWriting},
}

func TestConformance(t *testing.T) {
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			t.Run("os", func(t *testing.T) { c.run(t, OS{}, filepath.ToSlash(t.TempDir())) })
			t.Run("mem", func(t *testing.T) { c.run(t, NewMem(), ".") })
			t.Run("faulty", func(t *testing.T) {
				m := NewMem()
				must(t, m.MkdirAll("/some/dir"))
				c.run(t, NewFaulty(m), "/some/dir")
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func wantSomeErr(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("got no error")
	}
}

func open(t *testing.T, fsys FS, name string, mode Mode) File {
	t.Helper()
	f, err := fsys.Open(name, mode)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func writeAt(t *testing.T, f File, b []byte, off int64) {
	t.Helper()
	n, err := f.WriteAt(b, off)
	must(t, err)
	if n != len(b) {
		t.Fatalf("wrote %d of %d bytes", n, len(b))
	}
}

func writeSync(t *testing.T, f File, off int64, bufs ...[]byte) {
	t.Helper()
	n, err := f.WriteSync(bufs, off)
	must(t, err)
	if want := len(slices.Concat(bufs...)); n != want {
		t.Fatalf("wrote %d of %d bytes", n, want)
	}
}

// put makes a file with these bytes, synced but for its name.
func put(t *testing.T, fsys FS, name string, b string) {
	t.Helper()
	f, err := fsys.Open(name, ReadWrite|Create)
	must(t, err)
	must(t, f.Truncate(0))
	writeAt(t, f, []byte(b), 0)
	must(t, f.Sync())
	must(t, f.Close())
}

func contents(t *testing.T, f File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d bytes: %v", n, len(b), err)
	}
	return b
}

func read(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name, ReadOnly)
	must(t, err)
	defer f.Close()
	return string(contents(t, f))
}

func wantRead(t *testing.T, fsys FS, name, want string) {
	t.Helper()
	if got := read(t, fsys, name); got != want {
		t.Fatalf("%s has %q, want %q", name, got, want)
	}
}

func wantSize(t *testing.T, f File, want int64) {
	t.Helper()
	got, err := f.Size()
	must(t, err)
	if got != want {
		t.Fatalf("size %d, want %d", got, want)
	}
}

func wantNames(t *testing.T, fsys FS, dir string, want ...string) {
	t.Helper()
	got, err := fsys.List(dir)
	must(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("%s has %q, want %q", dir, got, want)
	}
}

func testOpenModes(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "f")
	for _, mode := range []Mode{ReadOnly, ReadWrite} {
		_, err := fsys.Open(name, mode)
		wantErr(t, err, fs.ErrNotExist)
		if p, ok := errors.AsType[*fs.PathError](err); !ok || p.Path != name {
			t.Fatalf("got %#v, want a *fs.PathError with the name", err)
		}
	}
	_, err := fsys.Open(path.Join(dir, "none", "f"), ReadWrite|Create)
	wantErr(t, err, fs.ErrNotExist)

	f := open(t, fsys, name, ReadWrite|Create|Exclusive)
	writeAt(t, f, []byte("abc"), 0)
	_, err = fsys.Open(name, ReadWrite|Create|Exclusive)
	wantErr(t, err, fs.ErrExist)
	open(t, fsys, name, ReadWrite|Create)
	wantRead(t, fsys, name, "abc")

	r := open(t, fsys, name, ReadOnly)
	_, err = r.WriteAt([]byte("x"), 0)
	wantSomeErr(t, err)
	_, err = r.WriteSync([][]byte{[]byte("x")}, 0)
	wantSomeErr(t, err)
	wantSomeErr(t, r.Truncate(0))
	wantSomeErr(t, r.Allocate(10))
	must(t, r.Sync())
	wantRead(t, fsys, name, "abc")

	_, err = fsys.Open(dir, ReadWrite)
	wantSomeErr(t, err)
}

func testReadWrite(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, path.Join(dir, "f"), ReadWrite|Create)
	want := make([]byte, 20_003)
	put := func(b []byte, off int) {
		writeAt(t, f, b, int64(off))
		copy(want[off:], b)
	}
	put(bytes.Repeat([]byte{7}, 5000), 15_003) // a hole in front
	put(bytes.Repeat([]byte{8}, 5000), 4000)
	put([]byte("over"), 4094)
	if got := contents(t, f); !bytes.Equal(got, want) {
		t.Fatal("read other bytes than were written")
	}

	for _, c := range []struct {
		off  int64
		want int
		err  error
	}{{20_000 - 7, 10, nil}, {20_000, 3, io.EOF}, {20_003, 0, io.EOF}, {1 << 20, 0, io.EOF}} {
		b := make([]byte, 10)
		n, err := f.ReadAt(b, c.off)
		if n != c.want || err != c.err {
			t.Fatalf("read of 10 bytes at %d: %d, %v, want %d, %v", c.off, n, err, c.want, c.err)
		}
	}
	if n, err := f.WriteAt(nil, 1<<20); n != 0 || err != nil {
		t.Fatalf("write of nothing: %d, %v", n, err)
	}
	wantSize(t, f, 20_003)

	// Another open file sees the same bytes at once.
	if got := contents(t, open(t, fsys, path.Join(dir, "f"), ReadOnly)); !bytes.Equal(got, want) {
		t.Fatal("a second open file reads other bytes")
	}
}

func testTruncate(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, path.Join(dir, "f"), ReadWrite|Create)
	writeAt(t, f, bytes.Repeat([]byte{1}, 10_000), 0)
	for _, size := range []int64{9999, 8192, 5000, 5001, 20_000, 0, 100} {
		must(t, f.Truncate(size))
		wantSize(t, f, size)
		got := contents(t, f)
		if i := bytes.IndexByte(got, 0); size > 5000 && size <= 5001 && i != 5000 || size == 20_000 && i != 5000 {
			t.Fatalf("after a truncate to %d the zeros start at %d", size, i)
		}
		if size == 100 && !bytes.Equal(got, make([]byte, 100)) {
			t.Fatal("old bytes came back")
		}
	}
}

func testAllocate(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, path.Join(dir, "f"), ReadWrite|Create)
	writeAt(t, f, []byte("abc"), 0)
	must(t, f.Allocate(100_000))
	want := make([]byte, 100_000)
	copy(want, "abc")
	if !bytes.Equal(contents(t, f), want) {
		t.Fatal("allocated bytes are not zeros behind what was there")
	}
	must(t, f.Allocate(10))
	wantSize(t, f, 100_000)
}

func testWriteSync(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "f")
	f := open(t, fsys, name, ReadWrite|Create)
	writeSync(t, f, 3, []byte("ab"), nil, []byte("c"), []byte("defg"))
	wantRead(t, fsys, name, "\x00\x00\x00abcdefg")
	writeSync(t, f, 4, []byte("X"))
	wantRead(t, fsys, name, "\x00\x00\x00aXcdefg")
	writeSync(t, f, 100)
	wantSize(t, f, 10)
}

func openDirect(t *testing.T, fsys FS, dir string) File {
	t.Helper()
	if fsys == (OS{}) {
		if err := ProbeDirect(dir); err != nil {
			t.Skip(err)
		}
	}
	return open(t, fsys, path.Join(dir, "f"), ReadWrite|Create|Direct)
}

func testDirect(t *testing.T, fsys FS, dir string) {
	f := openDirect(t, fsys, dir)
	block := func(b byte, blocks int) []byte {
		p := AlignedBytes(blocks * BlockBytes)
		for i := range p {
			p[i] = b
		}
		return p
	}
	writeSync(t, f, 0, block(1, 2), block(2, 1))
	writeSync(t, f, BlockBytes, block(3, 1))
	writeAt(t, f, block(4, 1), 3*BlockBytes)
	want := slices.Concat(block(1, 1), block(3, 1), block(2, 1), block(4, 1))

	shifted := AlignedBytes(2 * BlockBytes)[8 : 8+BlockBytes]
	for _, c := range []struct {
		name string
		buf  []byte
		off  int64
	}{
		{"offset", block(9, 1), 512},
		{"length", block(9, 1)[:512], 0},
		{"address", shifted, 0},
	} {
		_, err := f.WriteAt(c.buf, c.off)
		wantErr(t, err, ErrUnaligned)
		_, err = f.WriteSync([][]byte{block(9, 1), c.buf}, c.off)
		wantErr(t, err, ErrUnaligned)
		n, err := f.ReadAt(c.buf, c.off)
		wantErr(t, err, ErrUnaligned)
		if n != 0 {
			t.Fatalf("unaligned %s: read %d bytes", c.name, n)
		}
	}
	got := AlignedBytes(len(want))
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("read other bytes than were written")
	}
}

func testDirectEnd(t *testing.T, fsys FS, dir string) {
	f := openDirect(t, fsys, dir)
	writeSync(t, f, 0, AlignedBytes(4*BlockBytes))
	must(t, f.Truncate(5000))
	for _, c := range []struct {
		off  int64
		want int
	}{{0, 5000}, {BlockBytes, 5000 - BlockBytes}, {2 * BlockBytes, 0}, {16 * BlockBytes, 0}} {
		n, err := f.ReadAt(AlignedBytes(4*BlockBytes), c.off)
		if n != c.want || err != io.EOF {
			t.Fatalf("read at %d: %d, %v, want %d, EOF", c.off, n, err, c.want)
		}
	}
}

func testRename(t *testing.T, fsys FS, dir string) {
	a, b, sub := path.Join(dir, "a"), path.Join(dir, "b"), path.Join(dir, "sub")
	put(t, fsys, a, "from a")
	put(t, fsys, b, "from b")
	fa, fb := open(t, fsys, a, ReadWrite), open(t, fsys, b, ReadOnly)
	must(t, fsys.Rename(a, b))
	wantNames(t, fsys, dir, "b")
	wantRead(t, fsys, b, "from a")
	writeAt(t, fa, []byte("FROM"), 0)
	wantRead(t, fsys, b, "FROM a") // an open file goes with its name
	if got := string(contents(t, fb)); got != "from b" {
		t.Fatalf("the file that was renamed over has %q", got)
	}

	must(t, fsys.Rename(b, b))
	wantRead(t, fsys, b, "FROM a")
	must(t, fsys.MkdirAll(sub))
	must(t, fsys.Rename(b, path.Join(sub, "c")))
	wantNames(t, fsys, dir, "sub")
	wantRead(t, fsys, path.Join(sub, "c"), "FROM a")

	wantErr(t, fsys.Rename(a, b), fs.ErrNotExist)
	wantErr(t, fsys.Rename(path.Join(sub, "c"), path.Join(dir, "none", "c")), fs.ErrNotExist)
	wantSomeErr(t, fsys.Rename(path.Join(sub, "c"), sub))
	wantRead(t, fsys, path.Join(sub, "c"), "FROM a")
}

func testRemove(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "f")
	put(t, fsys, name, "old")
	f := open(t, fsys, name, ReadWrite)
	must(t, fsys.Remove(name))
	wantErr(t, fsys.Remove(name), fs.ErrNotExist)
	wantNames(t, fsys, dir)

	put(t, fsys, name, "new")
	writeAt(t, f, []byte("er"), 3)
	must(t, f.Sync())
	if got := string(contents(t, f)); got != "older" {
		t.Fatalf("the removed file has %q", got)
	}
	wantRead(t, fsys, name, "new")

	sub := path.Join(dir, "sub")
	must(t, fsys.MkdirAll(sub))
	put(t, fsys, path.Join(sub, "f"), "")
	wantSomeErr(t, fsys.Remove(sub))
	must(t, fsys.Remove(path.Join(sub, "f")))
	must(t, fsys.Remove(sub))
	wantNames(t, fsys, dir, "f")
}

func testDirectories(t *testing.T, fsys FS, dir string) {
	for _, name := range []string{"c", "a", "10", "9", "b"} {
		put(t, fsys, path.Join(dir, name), name)
	}
	must(t, fsys.MkdirAll(path.Join(dir, "bb", "deep", "er")))
	must(t, fsys.MkdirAll(path.Join(dir, "bb", "deep")))
	wantNames(t, fsys, dir, "10", "9", "a", "b", "bb", "c")
	wantNames(t, fsys, path.Join(dir, "bb"), "deep")
	wantNames(t, fsys, path.Join(dir, "bb", "deep", "er"))
	must(t, fsys.SyncDir(dir))
	wantSomeErr(t, fsys.MkdirAll(path.Join(dir, "a")))
	wantSomeErr(t, fsys.MkdirAll(path.Join(dir, "a", "x")))

	none := path.Join(dir, "none")
	_, err := fsys.List(none)
	wantErr(t, err, fs.ErrNotExist)
	wantErr(t, fsys.SyncDir(none), fs.ErrNotExist)
	_, err = fsys.Free(none)
	wantErr(t, err, fs.ErrNotExist)
	free, err := fsys.Free(dir)
	must(t, err)
	if free <= 0 {
		t.Fatalf("%d bytes free", free)
	}
}

func testLock(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "lock")
	l, err := fsys.Lock(name)
	must(t, err)
	wantNames(t, fsys, dir, "lock")
	_, err = fsys.Lock(name)
	wantErr(t, err, ErrLocked)
	other, err := fsys.Lock(name + "2")
	must(t, err)
	must(t, other.Close())
	must(t, l.Close())
	l, err = fsys.Lock(name)
	must(t, err)
	_, err = fsys.Lock(name)
	wantErr(t, err, ErrLocked)
	must(t, l.Close())
	wantSomeErr(t, l.Close())
	_, err = fsys.Lock(path.Join(dir, "none", "lock"))
	wantErr(t, err, fs.ErrNotExist)
}

func testClosed(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, path.Join(dir, "f"), ReadWrite|Create)
	must(t, f.Close())
	b := []byte("x")
	_, err := f.ReadAt(b, 0)
	wantErr(t, err, fs.ErrClosed)
	_, err = f.WriteAt(b, 0)
	wantErr(t, err, fs.ErrClosed)
	_, err = f.WriteSync([][]byte{b}, 0)
	wantErr(t, err, fs.ErrClosed)
	_, err = f.Size()
	wantErr(t, err, fs.ErrClosed)
	wantErr(t, f.Sync(), fs.ErrClosed)
	wantErr(t, f.Truncate(0), fs.ErrClosed)
	wantErr(t, f.Close(), fs.ErrClosed)
	wantSomeErr(t, f.Allocate(1)) // OS: EBADF on Linux
}

func testBadArguments(t *testing.T, fsys FS, dir string) {
	f := open(t, fsys, path.Join(dir, "f"), ReadWrite|Create)
	b := []byte("x")
	_, err := f.ReadAt(b, -1)
	wantSomeErr(t, err)
	_, err = f.WriteAt(b, -1)
	wantSomeErr(t, err)
	_, err = f.WriteSync([][]byte{b}, -1)
	wantSomeErr(t, err)
	wantSomeErr(t, f.Truncate(-1))
	wantSize(t, f, 0)
}

func testAllocateByWriting(t *testing.T, fsys FS, dir string) {
	for _, c := range []struct{ have, size, want int64 }{
		{0, 3 << 20, 3 << 20}, {5000, 3<<20 + 1, 3<<20 + 1}, {5000, 6000, 6000}, {5000, 4500, 5000}, {5000, 5000, 5000}, {BlockBytes, 2 * BlockBytes, 2 * BlockBytes},
	} {
		f := open(t, fsys, path.Join(dir, "f"), ReadWrite|Create)
		must(t, f.Truncate(0))
		old := bytes.Repeat([]byte{1}, int(c.have))
		writeAt(t, f, old, 0)
		must(t, allocateByWriting(f, c.size))
		if got := contents(t, f); !bytes.Equal(got, append(old, make([]byte, c.want-c.have)...)) {
			t.Fatalf("%d bytes allocated to %d: other bytes than the old ones and zeros, or not %d of them", c.have, c.size, c.want)
		}
	}
}
