package journal

import (
	"fmt"
	"hash/crc32"
	"sync/atomic"

	"tidemark/internal/vfs"
)

// Cache is the JournalCache: the in-memory window of the stream, a ring of bytes cut into slabs. Byte o of the stream lies at o modulo the ring's size, so one
// frame may lie in two pieces.
//
// Who touches which bytes: the write goroutine alone writes, and only at or past written; bytes below written never change until their slab is turned over
// to the next lap. A slab is turned over only when all it holds is below the bound that the write goroutine gives (min of flushed and indexed) and nobody
// has it pinned. The flush goroutine reads [flushed, written) without a pin: that range is above the bound.
//
// The race between a reader's Pin and the turnover: the reader adds a pin, then looks at the slab's base again. The writer swaps a pin count of 0 for
// turning (−1), then sets the base. So either the reader's CAS comes first, and the writer sees the pin and waits, or the writer's comes first, and
// the reader finds turning or, later, another base.
type Cache struct {
	// immutable after newCache
	mem       []byte
	slabBytes int64
	slabs     []slab
	floor     Offset // bytes below it were never loaded

	// write goroutine only
	reserved Offset // slabs are turned over up to here

	// waiting is set by the write goroutine while it waits for pins; unpinned wakes it.
	waiting  atomic.Bool
	unpinned chan struct{}
}

type slab struct {
	pins atomic.Int64 // readers that hold it, or turning
	base atomic.Int64 // offset of its first byte in the lap that it holds
}

const turning = -1

// newCache makes a window of ringBytes (a multiple of slab size) whose first byte is floor rounded down to a slab.
func newCache(ringBytes int64, floor Offset) (*Cache, error) {
	slabBytes := int64(1 << 20)
	for slabBytes > vfs.BlockBytes && (ringBytes%slabBytes != 0 || ringBytes/slabBytes < 8) {
		slabBytes /= 2
	}
	if ringBytes%slabBytes != 0 || ringBytes/slabBytes < 8 {
		return nil, fmt.Errorf("journal cache: %d bytes are not eight or more blocks of %d", ringBytes, vfs.BlockBytes)
	}
	mem, err := allocateRing(int(ringBytes))
	if err != nil {
		return nil, err
	}
	c := &Cache{
		mem: mem, slabBytes: slabBytes, slabs: make([]slab, ringBytes/slabBytes),
		floor: floor, reserved: roundDown(floor, slabBytes), unpinned: make(chan struct{}, 1),
	}
	for i := range c.slabs {
		c.slabs[i].base.Store(-1)
	}
	return c, nil
}

func (c *Cache) slab(o Offset) *slab {
	return &c.slabs[int64(o)%int64(len(c.mem))/c.slabBytes]
}

// Reserve makes [.., to) writable. Bytes below bound may be forgotten. It returns false when it has to wait: for bound to
// move (pinned false), or for a reader to let go (pinned true; then Unpinned gets a signal). Write goroutine only.
func (c *Cache) reserve(to, bound Offset) (ok, pinned bool) {
	for c.reserved < to {
		s := c.slab(c.reserved)
		base := s.base.Load()
		if base >= 0 {
			if Offset(base+c.slabBytes) > bound {
				return false, false
			}
			if !s.pins.CompareAndSwap(0, turning) {
				c.waiting.Store(true)
				if !s.pins.CompareAndSwap(0, turning) {
					return false, true
				}
				c.waiting.Store(false)
			}
			s.base.Store(int64(c.reserved))
			s.pins.Store(0)
		} else {
			s.base.Store(int64(c.reserved))
		}
		c.reserved += Offset(c.slabBytes)
	}
	return true, false
}

// Unpinned is signalled after reserve reported a pinned slab and a pin was let go.
func (c *Cache) Unpinned() <-chan struct{} { return c.unpinned }

// pin holds the slabs of [from, to) in place, or none of them and returns false when a byte of it is not in the cache.
func (c *Cache) pin(from, to Offset) bool {
	if from < c.floor {
		return false
	}
	for o := roundDown(from, c.slabBytes); o < to; o += Offset(c.slabBytes) {
		if !c.pinSlab(c.slab(o), o) {
			c.unpin(from, o)
			return false
		}
	}
	return true
}

func (c *Cache) pinSlab(s *slab, base Offset) bool {
	for {
		n := s.pins.Load()
		if n == turning || s.base.Load() != int64(base) {
			return false
		}
		if s.pins.CompareAndSwap(n, n+1) {
			break
		}
	}
	if s.base.Load() != int64(base) {
		c.unpinSlab(s)
		return false
	}
	return true
}

func (c *Cache) unpin(from, to Offset) {
	for o := roundDown(from, c.slabBytes); o < to; o += Offset(c.slabBytes) {
		c.unpinSlab(c.slab(o))
	}
}

func (c *Cache) unpinSlab(s *slab) {
	if s.pins.Add(-1) == 0 && c.waiting.Swap(false) {
		select {
		case c.unpinned <- struct{}{}:
		default:
		}
	}
}

// span returns the bytes of [from, from+n) as they lie: b is empty unless the range passes the ring's end.
func (c *Cache) span(from Offset, n int) (a, b []byte) {
	at := int(int64(from) % int64(len(c.mem)))
	if at+n <= len(c.mem) {
		return c.mem[at : at+n : at+n], nil
	}
	k := len(c.mem) - at
	return c.mem[at:], c.mem[: n-k : n-k]
}

// put copies p to offset at. Write goroutine only.
func (c *Cache) put(at Offset, p []byte) {
	a, b := c.span(at, len(p))
	copy(b, p[copy(a, p):])
}

// get copies [at, at+len(p)) to p. The caller holds a pin or knows that the range cannot be turned over.
func (c *Cache) get(p []byte, at Offset) {
	a, b := c.span(at, len(p))
	copy(p[copy(p, a):], b)
}

func (c *Cache) sum(at Offset, n int) uint32 {
	a, b := c.span(at, n)
	return crc32.Update(crc32.Checksum(a, castagnoli), castagnoli, b)
}

// Read copies [at, at+len(p)) to p and returns true if all of it is in the cache. Any goroutine; the range lies below written.
func (c *Cache) Read(p []byte, at Offset) bool {
	to := at + Offset(len(p))
	if !c.pin(at, to) {
		return false
	}
	c.get(p, at)
	c.unpin(at, to)
	return true
}
