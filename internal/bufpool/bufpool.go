// Package bufpool lends large buffers that are used again, so that reading megabytes a second is no work for the garbage collector.
package bufpool

import (
	"math/bits"
	"sync"
)

// Sizes are four to a power of two, so a buffer is at most a quarter larger than what was asked for. Outside of these bounds it is made as asked, and not kept: what is small costs little, and many small ones would hold more than they are asked for.
const (
	smallest = 64 << 10
	largest  = 64 << 20
)

var pools [8 * 64]sync.Pool // by sizeOf's class

// Buffer is lent memory. Who has it hands it on or gives it back, and nobody uses its bytes after that.
type Buffer struct {
	b    []byte
	pool *sync.Pool // nil: it is of no size that is kept
}

// sizeOf is the size of a kept buffer for n bytes, and its place in pools.
func sizeOf(n int) (size, class int) {
	shift := bits.Len(uint(n-1)) - 3
	steps := (n + 1<<shift - 1) >> shift // 5 to 8
	return steps << shift, 8*shift + steps - 1
}

// Get lends a buffer with room for n bytes.
func Get(n int) *Buffer {
	if n < smallest || n > largest {
		return &Buffer{b: make([]byte, 0, n)}
	}
	size, class := sizeOf(n)
	if b, ok := pools[class].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{b: make([]byte, 0, size), pool: &pools[class]}
}

// Bytes is the buffer, of no length and at least the capacity that was asked for. What was in it before is there still.
func (b *Buffer) Bytes() []byte { return b.b[:0] }

// Put gives the buffer back. On nil it does nothing.
func (b *Buffer) Put() {
	if b != nil && b.pool != nil {
		b.pool.Put(b)
	}
}
