package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// OS is the machine's file system.
type OS struct{}

var _ FS = OS{}

func (OS) Open(name string, mode Mode) (File, error) {
	flags := os.O_RDONLY
	if mode&ReadWrite != 0 {
		flags = os.O_RDWR
	}
	if mode&Create != 0 {
		flags |= os.O_CREATE
	}
	if mode&Exclusive != 0 {
		flags |= os.O_EXCL
	}
	return openOS(name, flags, mode)
}

func (OS) Rename(from, to string) error   { return os.Rename(from, to) }
func (OS) Remove(name string) error       { return os.Remove(name) }
func (OS) Free(dir string) (int64, error) { return freeBytes(dir) }

// MkdirAll makes the names of the directories that it makes durable, too.
func (o OS) MkdirAll(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o755) // it is there, or says why not
	}
	parent := filepath.Dir(dir)
	if err := o.MkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

func (OS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

// osFile is an open file of the machine.
type osFile struct {
	*os.File
	direct bool // opened with O_DIRECT; immutable after open
}

func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// ReadAt on a Direct file checks the alignment itself: tmpfs would take anything.
func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if f.direct {
		if err := CheckAligned([][]byte{p}, off); err != nil {
			return 0, err
		}
	}
	return f.File.ReadAt(p, off)
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if f.direct {
		if err := CheckAligned([][]byte{p}, off); err != nil {
			return 0, err
		}
	}
	return f.File.WriteAt(p, off)
}

// writeThenSync is WriteSync for files and systems without a synced write.
func (f *osFile) writeThenSync(bufs [][]byte, off int64) (int, error) {
	var n int
	for _, b := range bufs {
		m, err := f.File.WriteAt(b, off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, f.syncData()
}
