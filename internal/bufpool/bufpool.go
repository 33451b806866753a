// Package bufpool lends large buffers that are used again, so that reading megabytes a second is no work for the garbage collector.
package bufpool

import (
	"math/bits"
	"sync"
)

// Buffers come in powers of two from 4 KiB to 64 MiB, and a slack above each, since what is read is a round size and a header.
const (
	smallest = 12
	largest  = 26
	slack    = 4 << 10
)

var pools [largest - smallest + 1]sync.Pool

// Buffer is lent memory. Who has it hands it on or gives it back, and nobody uses its bytes after that.
type Buffer struct {
	b    []byte
	pool *sync.Pool // nil: it is of no size that is kept
}

// Get lends a buffer with room for n bytes.
func Get(n int) *Buffer {
	class := max(bits.Len(uint(max(n-slack, 1)-1)), smallest) - smallest
	if class >= len(pools) {
		return &Buffer{b: make([]byte, 0, n)}
	}
	if b, ok := pools[class].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{b: make([]byte, 0, 1<<(class+smallest)+slack), pool: &pools[class]}
}

// Bytes is the buffer, of no length and at least the capacity that was asked for. What was in it before is there still.
func (b *Buffer) Bytes() []byte { return b.b[:0] }

// Put gives the buffer back. On nil it does nothing.
func (b *Buffer) Put() {
	if b != nil && b.pool != nil {
		b.pool.Put(b)
	}
}
