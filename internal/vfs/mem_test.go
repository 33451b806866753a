package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"syscall"
	"testing"
)

func wantFree(t *testing.T, m FS, want int64) {
	t.Helper()
	got, err := m.Free(".")
	must(t, err)
	if got != want {
		t.Fatalf("%d bytes free, want %d", got, want)
	}
}

func wantNoSpace(t *testing.T, err error) {
	t.Helper()
	wantErr(t, err, syscall.ENOSPC)
	if _, ok := errors.AsType[*fs.PathError](err); !ok {
		t.Fatalf("got %#v, want a *fs.PathError", err)
	}
}

func TestMemCapacity(t *testing.T) {
	const block = BlockBytes
	m := NewMemLimited(10 * block)
	f := open(t, m, "f", ReadWrite|Create)
	writeAt(t, f, []byte("x"), 0)
	wantFree(t, m, 9*block)
	must(t, f.Allocate(8*block))
	wantFree(t, m, 2*block)
	must(t, f.Truncate(8*block+1))
	wantFree(t, m, block)

	g := open(t, m, "g", ReadWrite|Create)
	writeSync(t, g, 0, make([]byte, 100), make([]byte, block-100))
	wantFree(t, m, 0)
	for range 2 { // a refusal changes nothing
		_, err := g.WriteAt([]byte("x"), block)
		wantNoSpace(t, err)
		_, err = g.WriteSync([][]byte{make([]byte, block), []byte("x")}, 0)
		wantNoSpace(t, err)
		wantNoSpace(t, g.Truncate(block+1))
		wantNoSpace(t, g.Allocate(block+1))
		wantSize(t, g, block)
		wantFree(t, m, 0)
	}
	writeSync(t, g, 0, make([]byte, block)) // in place needs no space
	writeAt(t, f, make([]byte, block), 8*block)
	must(t, f.Truncate(3*block))
	wantFree(t, m, 6*block)

	// The space of a removed file is there again when its last user is gone.
	must(t, m.Remove("f"))
	wantFree(t, m, 6*block)
	must(t, f.Truncate(4*block))
	wantFree(t, m, 5*block)
	must(t, f.Close())
	wantFree(t, m, 9*block)
	put(t, m, "h", "h")
	wantFree(t, m, 8*block)
	must(t, m.Rename("h", "g"))
	wantFree(t, m, 8*block)
	must(t, g.Close())
	wantFree(t, m, 9*block)
	put(t, m, "h", "h")
	must(t, m.Rename("h", "g"))
	wantFree(t, m, 9*block)

	must(t, m.SyncDir("."))
	for _, c := range []*Mem{m.CrashKeepAll(), m.CrashKeepNothing(), m.Crash(rand.New(rand.NewPCG(1, 1)))} {
		wantFree(t, c, 9*block)
		_, err := c.Open("none", ReadWrite)
		wantErr(t, err, fs.ErrNotExist)
		wantNoSpace(t, open(t, c, "f", ReadWrite|Create).Allocate(10*block))
		must(t, c.Remove("g"))
		wantFree(t, c, 10*block)
	}
}

func TestMemCapacityAfterLostRemove(t *testing.T) {
	m := NewMemLimited(BlockBytes)
	put(t, m, "a", "a")
	g := open(t, m, "b", ReadWrite|Create)
	must(t, m.SyncDir("."))
	must(t, m.Remove("a"))
	writeSync(t, g, 0, []byte("b"))
	c := m.CrashKeepNothing()
	wantRead(t, c, "a", "a")
	wantRead(t, c, "b", "b")
	wantFree(t, c, 0)
	must(t, c.Remove("a"))
	wantFree(t, c, 0)
	must(t, c.Remove("b"))
	wantFree(t, c, BlockBytes)
}

func TestMemFileTooBig(t *testing.T) {
	f := open(t, NewMem(), "f", ReadWrite|Create)
	_, err := f.WriteAt([]byte("x"), memFileMax)
	wantErr(t, err, syscall.EFBIG)
	_, err = f.WriteAt([]byte("x"), 1<<63-1)
	wantErr(t, err, syscall.EFBIG)
	wantErr(t, f.Allocate(1<<63-1), syscall.EFBIG)
	must(t, f.Truncate(memFileMax)) // holes need no memory
	writeAt(t, f, []byte("end"), 1<<20)
}

func TestMemDirectories(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/data/journal/0"))
	wantNames(t, m, "/", "data")
	wantNames(t, m, ".")
	wantErr(t, m.Rename("/data/journal", "/data/j"), syscall.EISDIR)
	wantErr(t, m.Remove("/data"), syscall.ENOTEMPTY)
	_, err := m.Open("/data/journal", ReadOnly)
	wantErr(t, err, syscall.EISDIR)
	put(t, m, "/data/./journal/../f", "f")
	wantRead(t, m, "/data/f", "f")
	wantErr(t, m.SyncDir("/data/f"), syscall.ENOTDIR)
	wantNames(t, m.CrashKeepNothing(), "/data/journal", "0")
}

// Random operations on one file, against a plain slice and, for crashes, against the set of values that each byte may have.
func TestMemAgainstModel(t *testing.T) {
	for seed := range uint64(120) {
		modelRun(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

const modelBytes = 2*BlockBytes + 900

type fileModel struct {
	now            []byte
	sure           []byte                // what is left when nothing unsynced is
	may            [modelBytes][256]bool // values that a byte may have after a power loss; one past the end counts as 0
	sizeLo, sizeHi int64                 // bounds of the size after a power loss
}

// overwrite returns file with b at off.
func overwrite(file []byte, off int, b []byte) []byte {
	file = append(file, make([]byte, max(off+len(b)-len(file), 0))...)
	copy(file[off:], b)
	return file
}

func (m *fileModel) settle(off int, b []byte) {
	for i, v := range b {
		m.may[off+i] = [256]bool{}
		m.may[off+i][v] = true
	}
}

func (m *fileModel) write(off int, b []byte) {
	m.now = overwrite(m.now, off, b)
	for i, v := range b {
		m.may[off+i][v] = true
	}
	m.sizeHi = max(m.sizeHi, int64(len(m.now)))
}

func (m *fileModel) writeSync(off int, b []byte) {
	m.write(off, b)
	m.settle(off, b)
	m.sure = overwrite(m.sure, off, b)
	m.sizeLo = max(m.sizeLo, int64(off+len(b)))
}

func (m *fileModel) resize(size int) {
	for i := size; i < len(m.now); i++ {
		m.may[i][0] = true
	}
	m.now = append(m.now[:min(size, len(m.now))], make([]byte, max(size-len(m.now), 0))...)
	m.sizeLo, m.sizeHi = min(m.sizeLo, int64(size)), max(m.sizeHi, int64(size))
}

func (m *fileModel) sync() {
	m.sure = slices.Clone(m.now)
	m.settle(0, m.now)
	m.settle(len(m.now), make([]byte, modelBytes-len(m.now)))
	m.sizeLo, m.sizeHi = int64(len(m.now)), int64(len(m.now))
}

// crashed checks what a power loss left.
func (m *fileModel) crashed(t *testing.T, got []byte) {
	t.Helper()
	if size := int64(len(got)); size < m.sizeLo || size > m.sizeHi {
		t.Errorf("after a crash: size %d, want %d to %d", size, m.sizeLo, m.sizeHi)
	}
	for i := range m.may {
		var v byte
		if i < len(got) {
			v = got[i]
		}
		if !m.may[i][v] {
			t.Errorf("after a crash: byte %d is %d, which it never was since its last sync", i, v)
			return
		}
	}
}

func modelRun(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := NewMem()
	f := open(t, m, "f", ReadWrite|Create)
	must(t, m.SyncDir("."))
	model := new(fileModel)
	model.sync()
	for step := range 60 {
		off := rng.IntN(modelBytes)
		b := make([]byte, 1+rng.IntN(min(modelBytes-off, 1<<rng.IntN(14))))
		if rng.IntN(2) == 0 { // whole blocks
			off = off / BlockBytes * BlockBytes
			b = make([]byte, min(modelBytes-off, BlockBytes*(1+rng.IntN(2))))
		}
		for i := range b {
			b[i] = byte(step*4 + rng.IntN(4))
		}
		switch k := rng.IntN(20); {
		case k < 8:
			writeAt(t, f, b, int64(off))
			model.write(off, b)
		case k < 14:
			cut := rng.IntN(len(b) + 1)
			writeSync(t, f, int64(off), b[:cut], b[cut:])
			model.writeSync(off, b)
		case k < 15:
			must(t, f.Truncate(int64(off)))
			model.resize(off)
		case k < 16:
			must(t, f.Allocate(int64(off+1)))
			model.resize(max(off+1, len(model.now)))
		case k < 18:
			must(t, f.Sync())
			model.sync()
		case k < 19: // go on with the process's successor
			m = m.CrashKeepAll()
			f = open(t, m, "f", ReadWrite)
		default: // go on after a power loss, from a synced file
			m = m.Crash(rng)
			f = open(t, m, "f", ReadWrite)
			model.now = contents(t, f)
			model.crashed(t, model.now)
			model.sync()
		}
		clear(b) // the caller's to reuse
		if !bytes.Equal(contents(t, f), model.now) {
			t.Errorf("step %d: read other bytes than the model's", step)
		}
		if read(t, m.CrashKeepNothing(), "f") != string(model.sure) {
			t.Errorf("step %d: not the synced bytes are left when nothing else is", step)
		}
		if step%4 == 0 { // not always: a copy makes the pages shared, and those that are not want testing too
			model.crashed(t, []byte(read(t, m.Crash(rng), "f")))
			model.crashed(t, []byte(read(t, m.CrashKeepAll().Crash(rng), "f")))
		}
		if t.Failed() {
			return
		}
	}
}

// Writers, renames, and crashes whose results are used at the same time. The race detector is what judges.
func TestMemConcurrent(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d"))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 0))
			name := fmt.Sprintf("d/%d", g)
			f, err := m.Open(name, ReadWrite|Create)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for i := range 100 {
				b := bytes.Repeat([]byte{byte(i)}, 6000)
				f.WriteAt(b, int64(rng.IntN(1<<16)))
				f.WriteSync([][]byte{b}, int64(rng.IntN(1<<16)))
				m.Rename(name, name+"x")
				f.Sync()
				m.SyncDir("d")
				m.Rename(name+"x", name)
				c := m.Crash(rng)
				if i%2 == 0 {
					c = m.CrashKeepAll()
				}
				names, err := c.List("d")
				if err != nil {
					t.Error(err)
					return
				}
				for _, n := range names {
					cf, err := c.Open(path.Join("d", n), ReadWrite)
					if err != nil {
						t.Error(err)
						return
					}
					cf.ReadAt(make([]byte, 1<<16), 0)
					cf.WriteAt(b, 100)
					cf.Close()
				}
			}
		})
	}
	wg.Wait()
	names, err := m.List("d")
	must(t, err)
	if !slices.Equal(names, []string{"0", "1", "2", "3"}) {
		t.Fatalf("left over: %q", names)
	}
}

// A clone of files with everything synced costs their number, not their bytes.
func BenchmarkMemCrash(b *testing.B) {
	m := NewMem()
	for i := range 4 {
		f, _ := m.Open(fmt.Sprint(i), ReadWrite|Create)
		f.WriteSync([][]byte{make([]byte, 16<<20)}, 0)
	}
	m.SyncDir(".")
	f, _ := m.Open("0", ReadWrite)
	block := [][]byte{make([]byte, BlockBytes)}
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		f.WriteSync(block, 1<<20)
		m.Crash(rng)
	}
}
