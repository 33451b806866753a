package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

// memFile is an open file, or a held lock, of a Mem.
type memFile struct {
	fs   *Mem   // immutable, as are node, name and mode
	node *inode // its fields are guarded by fs.mu
	name string
	mode Mode

	// guarded by fs.mu
	closed    bool
	holdsLock bool
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// usable returns why an operation on the file cannot start, if so.
func (f *memFile) usable(op string) error {
	if f.closed {
		return pathError(op, f.name, fs.ErrClosed)
	}
	return nil
}

// writable is usable for operations that change the file; refusal is what a read-only one gets.
func (f *memFile) writable(op string, refusal syscall.Errno) error {
	if err := f.usable(op); err != nil {
		return err
	}
	if f.mode&ReadWrite == 0 {
		return pathError(op, f.name, refusal)
	}
	return nil
}

func (f *memFile) aligned(bufs [][]byte, off int64) error {
	if f.mode&Direct == 0 {
		return nil
	}
	return CheckAligned(bufs, off)
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.aligned([][]byte{p}, off); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, syscall.EINVAL)
	}
	n := f.node.now.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.aligned([][]byte{p}, off); err != nil {
		return 0, err
	}
	return f.writeUnsynced(p, off)
}

// writeUnsynced is WriteAt that takes any alignment, for writes that Faulty cuts short.
func (f *memFile) writeUnsynced(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.room(len(p), off); err != nil {
		return 0, err
	}
	f.node.write(p, off)
	return len(p), nil
}

func (f *memFile) WriteSync(bufs [][]byte, off int64) (int, error) {
	if err := f.aligned(bufs, off); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	var total int
	for _, b := range bufs {
		total += len(b)
	}
	if err := f.room(total, off); err != nil {
		return 0, err
	}
	for _, b := range bufs {
		f.node.writeSync(b, off)
		off += int64(len(b))
	}
	return total, nil
}

// room checks a write of n bytes at off and takes the space that it needs.
func (f *memFile) room(n int, off int64) error {
	const op = "write"
	if err := f.writable(op, syscall.EBADF); err != nil {
		return err
	}
	if off < 0 {
		return pathError(op, f.name, syscall.EINVAL)
	}
	if off > memFileMax {
		return pathError(op, f.name, syscall.EFBIG)
	}
	if n == 0 {
		return nil
	}
	if errno := f.fs.extend(f.node, off+int64(n)); errno != 0 {
		return pathError(op, f.name, errno)
	}
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("sync"); err != nil {
		return err
	}
	f.node.sync()
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("truncate", syscall.EINVAL); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", f.name, syscall.EINVAL)
	}
	return f.resize("truncate", size)
}

func (f *memFile) Allocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.writable("fallocate", syscall.EBADF); err != nil {
		return err
	}
	if size <= 0 {
		return pathError("fallocate", f.name, syscall.EINVAL)
	}
	return f.resize("fallocate", max(size, f.node.now.size))
}

func (f *memFile) resize(op string, size int64) error {
	before := wholeBlocks(f.node.now.size)
	if errno := f.fs.extend(f.node, size); errno != 0 {
		return pathError(op, f.name, errno)
	}
	f.fs.used -= max(before-wholeBlocks(size), 0)
	f.node.resize(size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("stat"); err != nil {
		return 0, err
	}
	return f.node.now.size, nil
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("close"); err != nil {
		return err
	}
	f.close()
	return nil
}

func (f *memFile) close() {
	f.closed = true
	if f.holdsLock {
		f.node.locked = false
	}
	f.node.opens--
	f.fs.drop(f.node)
}
