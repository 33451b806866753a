package server

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Bytes of requests that outlive the turn in which they were read live in chunks. A chunk is shared by the requests that were copied into it and is used again when the last of them has been serialized. The IO goroutine that fills it holds it
// too, so that many small requests share one.

const chunkBytes = 64 << 10

// chunk is a counted buffer.
type chunk struct {
	buf     []byte
	holders atomic.Int32
	pool    *sync.Pool // that it goes back to; nil: to none
}

// chunkSizes are those that are kept for use again: a batch of a round size fits, with the request around it.
var chunkSizes = [...]int{chunkBytes, 128<<10 + chunkSlack, 256<<10 + chunkSlack, 512<<10 + chunkSlack, 1<<20 + chunkSlack, 2<<20 + chunkSlack, 4<<20 + chunkSlack, 8<<20 + chunkSlack, 16<<20 + chunkSlack}

const chunkSlack = 4 << 10

var chunkPools [len(chunkSizes)]sync.Pool

// newChunk has room for n bytes and one holder, the caller.
func newChunk(n int) *chunk {
	i := chunkClass(n)
	if i < 0 {
		return ownChunk(make([]byte, n))
	}
	c, ok := chunkPools[i].Get().(*chunk)
	if !ok {
		c = &chunk{buf: make([]byte, chunkSizes[i]), pool: &chunkPools[i]}
	}
	c.holders.Store(1)
	return c
}

// chunkClass is where chunkSizes has room for n bytes; −1: nowhere.
func chunkClass(n int) int {
	return slices.IndexFunc(chunkSizes[:], func(size int) bool { return n <= size })
}

// ownChunk is a buffer that is not kept for use again.
func ownChunk(b []byte) *chunk {
	c := &chunk{buf: b}
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
	case c.pool != nil:
		c.pool.Put(c)
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

// sharedMax is the most bytes for which a chunk is shared.
const sharedMax = chunkBytes / 4

// copyRoom is how much memory a copy of n bytes holds.
func copyRoom(n int) int {
	if i := chunkClass(n); n > sharedMax && i >= 0 {
		return chunkSizes[i]
	}
	return n
}

// copy returns frame's bytes in a chunk that the caller holds.
func (a *arena) copy(frame []byte) ([]byte, *chunk) {
	if len(frame) > sharedMax {
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
