package vfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// probed remembers, per directory, what ProbeDirect found.
var probed sync.Map // directory string → error or nil

// ProbeDirect tries a synced direct write on a scratch file in dir and returns nil when it works, else why not (wrapping ErrNoDirect). The answer is kept for the
// life of the process, and files opened with Direct in that directory fall back to the page cache when it is an error.
func ProbeDirect(dir string) error {
	dir = filepath.Clean(dir)
	if v, ok := probed.Load(dir); ok {
		if v == nil {
			return nil
		}
		return v.(error)
	}
	err := probeDirect(dir)
	if err == nil {
		probed.Store(dir, nil)
		return nil
	}
	err = fmt.Errorf("%w in %s: %w", ErrNoDirect, dir, err)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		probed.Store(dir, err) // the file system's own no; a full disk or a missing directory may pass
	}
	return err
}

func directFor(dir string) bool { return ProbeDirect(dir) == nil }

func probeDirect(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	name := f.Name()
	f.Close()
	defer os.Remove(name)
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Pwritev2(fd, [][]byte{AlignedBytes(BlockBytes)}, 0, unix.RWF_DSYNC)
	return err
}
