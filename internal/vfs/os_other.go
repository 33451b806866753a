//go:build !linux

package vfs

import (
	"math"
	"os"
)

// Elsewhere than on Linux there is neither O_DIRECT nor pwritev2: writes are pwrite + fsync.
func openOS(name string, flags int, _ Mode) (File, error) {
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

// ProbeDirect says why direct I/O is not used in dir.
func ProbeDirect(string) error { return ErrNoDirect }

func (f *osFile) WriteSync(bufs [][]byte, off int64) (int, error) { return f.writeThenSync(bufs, off) }
func (f *osFile) syncData() error                                 { return f.Sync() }
func (f *osFile) Allocate(size int64) error                       { return allocateByWriting(f, size) }
func (f *osFile) willNeed(int64, int64)                           {}
func freeBytes(string) (int64, error)                             { return math.MaxInt64, nil }
