package vfs

import (
	"path/filepath"
	"testing"
)

// Where the file system will have no direct I/O, a Direct file goes through the page cache and takes any alignment.
func TestDirectFallsBack(t *testing.T) {
	dir := t.TempDir()
	probed.Store(dir, ErrNoDirect)
	name := filepath.Join(dir, "f")
	f := open(t, OS{}, name, ReadWrite|Create|Direct)
	writeSync(t, f, 3, []byte("ab"), []byte("c"))
	wantRead(t, OS{}, name, "\x00\x00\x00abc")
}
