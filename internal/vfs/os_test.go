package vfs

import (
	"bytes"
	"path/filepath"
	"testing"
)

// What every FS has to do is in conformance_test.go; here is what only the machine's has.

func TestProbeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	first := ProbeDirect(dir)
	wantNames(t, OS{}, dir)
	if again := ProbeDirect(dir + "/."); again != first {
		t.Fatalf("second answer %v, first %v", again, first)
	}
}

func TestProbeOfMissingDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	wantErr(t, ProbeDirect(dir), ErrNoDirect)
	must(t, OS{}.MkdirAll(dir))
	parent := ProbeDirect(filepath.Dir(dir))
	if got := ProbeDirect(dir); (got == nil) != (parent == nil) {
		t.Fatalf("after the directory was made: %v; its parent: %v", got, parent)
	}
}

// More buffers than the kernel takes in one call, with empty ones between.
func TestOSWriteSyncManyBuffers(t *testing.T) {
	for _, mode := range []Mode{0, Direct} {
		f := open(t, OS{}, filepath.Join(t.TempDir(), "f"), ReadWrite|Create|mode)
		var bufs [][]byte
		var want []byte
		for i := range 1600 {
			b := AlignedBytes(BlockBytes * (i % 3))
			for j := range b {
				b[j] = byte(i)
			}
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		writeSync(t, f, BlockBytes, bufs...)
		got := AlignedBytes(len(want))
		if _, err := f.ReadAt(got, BlockBytes); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("mode %d: read other bytes than were written", mode)
		}
	}
}

func TestAlignedBytes(t *testing.T) {
	for _, n := range []int{0, 1, 512, BlockBytes, BlockBytes + 1, 1 << 20} {
		b := AlignedBytes(n)
		if len(b) != n || cap(b) != n {
			t.Fatalf("asked for %d bytes, got %d of %d", n, len(b), cap(b))
		}
		if n > 0 && addressOf(b)%BlockBytes != 0 {
			t.Fatalf("%d bytes at address %#x", n, addressOf(b))
		}
	}
}
