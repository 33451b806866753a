//go:build linux && !race

package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// allocateRing takes the cache's memory from the kernel, outside the Go heap and page-aligned. It is given back only by freeRing.
func allocateRing(n int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("journal cache: mmap of %d bytes: %w", n, err)
	}
	// Large pages make the pinning of a flush's pages, and every copy, cheaper; without them it works as well.
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	return mem, nil
}

func freeRing(mem []byte) error { return unix.Munmap(mem) }
