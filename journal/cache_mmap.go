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
	return mem, nil
}

func freeRing(mem []byte) error { return unix.Munmap(mem) }
