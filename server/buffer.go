package server

import (
	"sync"
	"sync/atomic"
)

// Requests' bytes live in chunks. A chunk is shared by the requests that were copied into it and is used again when the last of them has been serialized. The IO goroutine that fills it holds it
// too, so that many small requests share one.

const chunkBytes = 64 << 10

// chunk is a counted buffer.
type chunk struct {
	buf     []byte
	holders atomic.Int32
}

var chunkPool = sync.Pool{New: func() any { return &chunk{buf: make([]byte, chunkBytes)} }}

// newChunk has one holder, the caller. Larger ones than chunkBytes are not kept for use again.
func newChunk(n int) *chunk {
	var c *chunk
	if n <= chunkBytes {
		c = chunkPool.Get().(*chunk)
	} else {
		c = &chunk{buf: make([]byte, n)}
	}
	c.holders.Store(1)
	return c
}

// Release lets go of the chunk.
func (c *chunk) Release() { c.let(1) }

func (c *chunk) let(holders int32) {
	switch n := c.holders.Add(-holders); {
	case n > 0:
	case n < 0:
		panic("server: chunk released more often than it was held")
	case len(c.buf) == chunkBytes:
		chunkPool.Put(c)
	}
}

// arena copies small frames into shared chunks. One IO goroutine owns it.
//
// The count of a chunk in hand is not touched for each request: it begins with lent, more than a chunk can ever have, and what was not lent out is taken off when the chunk is let go. So the two
// goroutines that hold a chunk do not fight over its count.
type arena struct {
	current *chunk
	used    int
	copies  int32 // handed out of current
}

const lent = 1 << 30

// copy returns frame's bytes in a chunk that the caller holds.
func (a *arena) copy(frame []byte) ([]byte, *chunk) {
	if len(frame) > chunkBytes/4 {
		c := newChunk(len(frame))
		return c.buf[:copy(c.buf, frame):len(frame)], c
	}
	if a.current == nil || a.used+len(frame) > chunkBytes {
		a.drop()
		a.current = newChunk(chunkBytes)
		a.current.holders.Store(lent)
	}
	b := a.current.buf[a.used : a.used+len(frame) : a.used+len(frame)]
	copy(b, frame)
	a.used += len(frame)
	a.copies++
	return b, a.current
}

// drop lets go of the chunk in hand.
func (a *arena) drop() {
	if a.current != nil {
		a.current.let(lent - a.copies)
	}
	*a = arena{}
}
