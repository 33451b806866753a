package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func openOS(name string, flags int, mode Mode) (File, error) {
	direct := mode&Direct != 0 && directFor(filepath.Dir(name))
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f, direct: direct}, nil
}

// adviseBytes is what one call of posix_fadvise reads ahead at least; it may stop at the size of the device's largest request.
const adviseBytes = 1 << 20

func (f *osFile) willNeed(off, n int64) {
	for end := off + n; off < end; off += adviseBytes {
		_ = unix.Fadvise(int(f.Fd()), off, min(adviseBytes, end-off), unix.FADV_WILLNEED) // it is a hint
	}
}

// iovMax is how many buffers the kernel takes in one call (UIO_MAXIOV); more get EINVAL.
const iovMax = 1024

// WriteSync writes with pwritev2(RWF_DSYNC) on a direct file: one system call, and no flush of other files' pages.
func (f *osFile) WriteSync(bufs [][]byte, off int64) (int, error) {
	if !f.direct {
		return f.writeThenSync(bufs, off)
	}
	if err := CheckAligned(bufs, off); err != nil {
		return 0, err
	}
	var total int
	rest := bufs
	var scratch [4][]byte
	for {
		n, err := unix.Pwritev2(int(f.Fd()), rest[:min(len(rest), iovMax)], off+int64(total), unix.RWF_DSYNC)
		if errors.Is(err, unix.EINTR) && n <= 0 {
			continue
		}
		if err != nil {
			return total, &os.PathError{Op: "pwritev2", Path: f.Name(), Err: err}
		}
		if n%BlockBytes != 0 {
			return total + n, fmt.Errorf("vfs: pwritev2 %s: %d bytes taken, not a multiple of %d", f.Name(), n, BlockBytes)
		}
		total += n
		skip := n
		next := scratch[:0]
		for _, b := range rest {
			if skip >= len(b) {
				skip -= len(b)
				continue
			}
			next = append(next, b[skip:])
			skip = 0
		}
		if len(next) == 0 {
			return total, nil
		}
		if n == 0 {
			return total, &os.PathError{Op: "pwritev2", Path: f.Name(), Err: io.ErrShortWrite}
		}
		rest = next
	}
}

func (f *osFile) syncData() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}

func (f *osFile) Allocate(size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return allocateByWriting(f, size)
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}
