package vfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// OpKind is a kind of operation, or with | a set of them.
type OpKind uint32

const (
	OpOpen   OpKind = 1 << iota // Open without Create
	OpCreate                    // Open with Create, whether or not the file was there
	OpRead
	OpWrite
	OpWriteSync
	OpSync
	OpTruncate
	OpAllocate
	OpRename
	OpRemove
	OpMkdir
	OpSyncDir
	OpList
	OpLock
	OpFree
	opEnd

	OpAll = opEnd - 1
	// OpMutating are those that change what is on the disk, or what of it is durable. Lock is one: it may make the file.
	OpMutating = OpCreate | OpWrite | OpWriteSync | OpSync | OpTruncate | OpAllocate | OpRename | OpRemove | OpMkdir | OpSyncDir | OpLock
)

// Op is an operation that is about to be done. Close and Size are not operations here and always go through.
type Op struct {
	Kind  OpKind
	Name  string // of the file or directory, as it was opened or given; Rename: the old name
	To    string // Rename: the new name
	Off   int64  // reads and writes
	Bytes int64  // reads and writes: length; Truncate and Allocate: size
	N     int64  // running number in its Faulty, from 1
}

// Hook is called before an operation, from the goroutine that asked for it. An error is what the operation then returns, without being done. A hook may block.
type Hook func(Op) error

// PartialWrite, returned by a hook before a WriteAt or WriteSync, has the first Bytes bytes (at most all) written, but not synced, and the operation fail with
// Err, which is not nil. On a Mem any number will do; on another Direct file it is rounded down to whole blocks. Before another operation it is the same as Err.
type PartialWrite struct {
	Bytes int
	Err   error
}

func (p PartialWrite) Error() string { return fmt.Sprintf("%d bytes written: %v", p.Bytes, p.Err) }
func (p PartialWrite) Unwrap() error { return p.Err }

// Faulty wraps a file system so that chosen operations fail, stall or are counted.
type Faulty struct {
	inner FS // immutable

	hooks  atomic.Pointer[[]Hook]
	asked  atomic.Int64
	counts [32]atomic.Int64 // by bit number of the kind
}

var _ FS = (*Faulty)(nil)

// NewFaulty wraps inner. Hooks are called in order up to the first that returns an error.
func NewFaulty(inner FS, hooks ...Hook) *Faulty {
	f := &Faulty{inner: inner}
	f.SetHooks(hooks...)
	return f
}

// SetHooks replaces the hooks. An operation that has begun keeps those that it began with.
func (f *Faulty) SetHooks(hooks ...Hook) {
	hooks = slices.Clone(hooks)
	f.hooks.Store(&hooks)
}

// Count returns how many operations of these kinds were asked for, those that a hook made fail included.
func (f *Faulty) Count(kinds OpKind) int64 {
	var n int64
	for i := range f.counts {
		if kinds&(1<<i) != 0 {
			n += f.counts[i].Load()
		}
	}
	return n
}

// before returns the error of an operation that is not to be done, and how many bytes of a write are to be written all the same.
func (f *Faulty) before(op Op) (part int, err error) {
	f.counts[bits.TrailingZeros32(uint32(op.Kind))].Add(1)
	op.N = f.asked.Add(1)
	for _, hook := range *f.hooks.Load() {
		err := hook(op)
		if p, ok := errors.AsType[PartialWrite](err); ok && p.Err != nil {
			return p.Bytes, p.Err
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (f *Faulty) Open(name string, mode Mode) (File, error) {
	kind := OpOpen
	if mode&Create != 0 {
		kind = OpCreate
	}
	if _, err := f.before(Op{Kind: kind, Name: name}); err != nil {
		return nil, err
	}
	file, err := f.inner.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: file, fs: f, name: name}, nil
}

func (f *Faulty) Rename(from, to string) error {
	if _, err := f.before(Op{Kind: OpRename, Name: from, To: to}); err != nil {
		return err
	}
	return f.inner.Rename(from, to)
}

func (f *Faulty) Remove(name string) error {
	if _, err := f.before(Op{Kind: OpRemove, Name: name}); err != nil {
		return err
	}
	return f.inner.Remove(name)
}

func (f *Faulty) MkdirAll(dir string) error {
	if _, err := f.before(Op{Kind: OpMkdir, Name: dir}); err != nil {
		return err
	}
	return f.inner.MkdirAll(dir)
}

func (f *Faulty) List(dir string) ([]string, error) {
	if _, err := f.before(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, err
	}
	return f.inner.List(dir)
}

func (f *Faulty) SyncDir(dir string) error {
	if _, err := f.before(Op{Kind: OpSyncDir, Name: dir}); err != nil {
		return err
	}
	return f.inner.SyncDir(dir)
}

func (f *Faulty) Lock(name string) (io.Closer, error) {
	if _, err := f.before(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	return f.inner.Lock(name)
}

func (f *Faulty) Free(dir string) (int64, error) {
	if _, err := f.before(Op{Kind: OpFree, Name: dir}); err != nil {
		return 0, err
	}
	return f.inner.Free(dir)
}

// faultyFile passes Close and Size through.
type faultyFile struct {
	File
	fs   *Faulty
	name string
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if _, err := f.fs.before(Op{Kind: OpRead, Name: f.name, Off: off, Bytes: int64(len(p))}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	part, err := f.fs.before(Op{Kind: OpWrite, Name: f.name, Off: off, Bytes: int64(len(p))})
	if err != nil {
		return f.writePart(p, off, part), err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultyFile) WriteSync(bufs [][]byte, off int64) (int, error) {
	var total int64
	for _, b := range bufs {
		total += int64(len(b))
	}
	part, err := f.fs.before(Op{Kind: OpWriteSync, Name: f.name, Off: off, Bytes: total})
	if err != nil {
		return f.writePart(slices.Concat(bufs...), off, part), err
	}
	return f.File.WriteSync(bufs, off)
}

// writePart writes the first part bytes of p, unsynced, and returns how many it wrote.
func (f *faultyFile) writePart(p []byte, off int64, part int) int {
	if part <= 0 {
		return 0
	}
	b := AlignedBytes(min(part, len(p)))
	copy(b, p)
	if m, ok := f.File.(*memFile); ok {
		n, _ := m.writeUnsynced(b, off)
		return n
	}
	n, err := f.File.WriteAt(b, off)
	if errors.Is(err, ErrUnaligned) {
		n, _ = f.File.WriteAt(b[:len(b)-len(b)%BlockBytes], off)
	}
	return n
}

func (f *faultyFile) Sync() error {
	if _, err := f.fs.before(Op{Kind: OpSync, Name: f.name}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) Truncate(size int64) error {
	if _, err := f.fs.before(Op{Kind: OpTruncate, Name: f.name, Bytes: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Allocate(size int64) error {
	if _, err := f.fs.before(Op{Kind: OpAllocate, Name: f.name, Bytes: size}); err != nil {
		return err
	}
	return f.File.Allocate(size)
}

// FailNth makes the n-th operation (from 1) of these kinds, counted from now, fail with err, and only that one.
func FailNth(kinds OpKind, n int64, err error) Hook {
	var seen atomic.Int64
	return func(op Op) error {
		if op.Kind&kinds != 0 && seen.Add(1) == n {
			return err
		}
		return nil
	}
}

// ErrCrashed is what operations return after a CrashAfter.
var ErrCrashed = errors.New("vfs: crashed")

// CrashAfter pulls the plug when n mutating operations were done, counted from now: every later operation of any kind fails with ErrCrashed. If the first of
// the mutating ones among them is a write, the plug is pulled in the middle of it: it is written, but not synced, so that Mem.Crash may lose, keep or tear
// it. A test that goes through n = 0, 1, 2, ... up to the Count of OpMutating in a whole run, and takes a Mem.Crash each time, has crashed at every step.
func CrashAfter(n int64) Hook {
	var begun atomic.Int64
	return func(op Op) error {
		if op.Kind&OpMutating == 0 {
			if begun.Load() < n {
				return nil
			}
			return ErrCrashed
		}
		switch k := begun.Add(1); {
		case k <= n:
			return nil
		case k == n+1:
			return PartialWrite{Bytes: math.MaxInt, Err: ErrCrashed}
		}
		return ErrCrashed
	}
}

// Gate stalls a disk: while it is held, the WriteAts, WriteSyncs and Syncs of files whose name ends in suffix wait, without having begun. Give its Hook to a Faulty.
type Gate struct {
	suffix string // immutable

	mu   sync.Mutex
	held chan struct{} // guarded by mu: nil while open, else closed by Release
}

// NewGate returns an open gate. An empty suffix is for all files.
func NewGate(suffix string) *Gate { return &Gate{suffix: suffix} }

// Hold shuts the gate; on one that is shut it does nothing.
func (g *Gate) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
}

// Release lets those who wait go on; on an open gate it does nothing.
func (g *Gate) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

// Hook is the gate's Hook.
func (g *Gate) Hook(op Op) error {
	if op.Kind&(OpWrite|OpWriteSync|OpSync) == 0 || !strings.HasSuffix(op.Name, g.suffix) {
		return nil
	}
	g.mu.Lock()
	held := g.held
	g.mu.Unlock()
	if held != nil {
		<-held
	}
	return nil
}
