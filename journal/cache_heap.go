//go:build !linux || race

package journal

import "tidemark/internal/vfs"

// allocateRing uses the Go heap where the race detector has to see the cache, or where there is no mmap.
func allocateRing(n int) ([]byte, error) { return vfs.AlignedBytes(n), nil }

func freeRing([]byte) error { return nil }
