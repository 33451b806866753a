// Package vfs is the only way by which Tidemark touches a disk.
//
// Three implementations share the interfaces below:
//
//   - OS: the real one. On Linux a File opened with Direct writes with pwritev2(O_DIRECT, RWF_DSYNC) where the file
//     system takes it, else with pwrite + fdatasync.
//   - Mem: a file system in memory that can crash: it forgets, reorders or tears whatever was not synced.
//   - Faulty: a wrapper that makes chosen operations fail, stall or be counted.
//
// The contract is that of a POSIX file system with no kindness added: a write is durable when WriteSync or a later Sync of the same file has returned
// without error; a created, renamed or removed name is durable when SyncDir of its directory has returned without error. After a failed WriteSync or Sync nothing is known
// about any byte that was not durable before, and trying again proves nothing.
package vfs

import (
	"errors"
	"fmt"
	"io"
)

// BlockBytes is the unit of direct I/O: offset, length and memory address of every WriteSync on a Direct file are multiples of it.
const BlockBytes = 4096

// Mode says how a file is opened. Modes are combined with |.
type Mode uint8

const (
	// ReadOnly opens an existing file for reading; ReadWrite for both. Exactly one of them is given.
	ReadOnly Mode = 1 << iota
	ReadWrite
	// Create makes the file when it is missing. With Exclusive an existing one is an error (fs.ErrExist).
	Create
	Exclusive
	// Direct bypasses the page cache: WriteSync, ReadAt and WriteAt then want offset, length and address in multiples of BlockBytes.
	Direct
)

// ErrUnaligned is returned, before anything is done, for I/O on a Direct file that is not block-aligned in offset, length or address.
var ErrUnaligned = errors.New("vfs: unaligned direct I/O")

// FS is a file system. Names are slash-separated paths as the caller has them; directories must exist. Errors are those of package os (*fs.PathError around
// fs.ErrNotExist, syscall.ENOSPC, ...). All methods may be called from any goroutine.
type FS interface {
	Open(name string, mode Mode) (File, error)
	// Rename moves a file, over an existing one if there is one, in one step.
	Rename(from, to string) error
	Remove(name string) error
	MkdirAll(dir string) error
	// List returns the names (not paths) in a directory, sorted.
	List(dir string) ([]string, error)
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, made when missing, until the Closer is closed or the process ends. A lock held by
	// another is an error that wraps ErrLocked.
	Lock(name string) (io.Closer, error)
	// Free says how many bytes an unprivileged writer can still allocate in dir.
	Free(dir string) (int64, error)
}

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("vfs: held by another process")

// File is an open file. ReadAt and WriteAt are those of io: a short count comes with an error. Offsets and sizes are bytes.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WriteSync writes bufs one behind the other at off and returns when the bytes are durable. Interrupted and short writes are carried on;
	// any error is final, and n says only how much was handed to the kernel. The file's size and blocks must be there already for it to change no metadata; it may also
	// extend the file. On a Direct file off, every length and every address are multiples of BlockBytes.
	WriteSync(bufs [][]byte, off int64) (n int, err error)
	// Sync makes all earlier writes, and the file's size, durable.
	Sync() error
	// Truncate sets the size. Bytes past an old end read as zeros.
	Truncate(size int64) error
	// Allocate reserves disk space for [0, size) and sets the size to at least that; new bytes read as zeros. Where the file system has no such call it writes zeros.
	Allocate(size int64) error
	Size() (int64, error)
}

// WillNeed is a hint that [off, off+n) of a file is read soon, by way of the page cache: the disk works while the caller does something else. Where there is no such thing it does nothing.
func WillNeed(f File, off, n int64) {
	if o, ok := f.(*osFile); ok && !o.direct {
		o.willNeed(off, n)
	}
}

// CheckAligned returns ErrUnaligned, with the figures, unless off and each of bufs may go to a Direct file.
func CheckAligned(bufs [][]byte, off int64) error {
	if off%BlockBytes != 0 {
		return fmt.Errorf("%w: offset %d", ErrUnaligned, off)
	}
	for _, b := range bufs {
		if len(b)%BlockBytes != 0 {
			return fmt.Errorf("%w: length %d", ErrUnaligned, len(b))
		}
		if len(b) > 0 && addressOf(b)%BlockBytes != 0 {
			return fmt.Errorf("%w: address modulo %d is %d", ErrUnaligned, BlockBytes, addressOf(b)%BlockBytes)
		}
	}
	return nil
}
