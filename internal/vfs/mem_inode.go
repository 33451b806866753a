package vfs

import (
	"math/rand/v2"
	"slices"
)

const (
	memPageBytes   = 4096
	memSectorBytes = 512     // what a disk writes whole or not at all
	memFileMax     = 1 << 36 // bytes; a write past it is a bug in the caller, not a reason to make a table of that length
)

// content is the bytes of a file as a table of pages, cheap to copy: share gives a copy with the same pages, and either side copies a page, and the table, before
// it changes them. Bytes past size are zero in every page. Not safe for concurrent use; that two contents in two Mems share pages is no race, since shared
// pages are never written.
type content struct {
	size        int64
	pages       []*memPage // nil entries, and those past the end, are zeros
	sharedTable bool       // another content has the same table
	owner       *memOwner  // pages with this owner may be written in place; nil until there is one
}

type memPage struct {
	owner *memOwner // immutable; nil: never written again
	bytes [memPageBytes]byte
}

type memOwner struct{ _ byte } // not of size zero: each has to have its own address

func (c *content) share() content {
	c.owner, c.sharedTable = nil, true
	return content{size: c.size, pages: c.pages, sharedTable: true}
}

func (c *content) read(b []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	b = b[:min(int64(len(b)), c.size-off)]
	for n := 0; n < len(b); {
		i, at := (off+int64(n))/memPageBytes, (off+int64(n))%memPageBytes
		part := b[n:min(len(b), n+int(memPageBytes-at))]
		if i < int64(len(c.pages)) && c.pages[i] != nil {
			copy(part, c.pages[i].bytes[at:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(b)
}

func (c *content) write(b []byte, off int64) {
	for len(b) > 0 {
		n := copy(c.writable(off / memPageBytes)[off%memPageBytes:], b)
		b, off = b[n:], off+int64(n)
		c.size = max(c.size, off)
	}
}

// put makes p, which nobody writes again, page i.
func (c *content) put(i int64, p *memPage) {
	c.ownTable(i + 1)
	c.pages[i] = p
	c.size = max(c.size, (i+1)*memPageBytes)
}

func (c *content) resize(size int64) {
	if size < c.size {
		if keep := (size + memPageBytes - 1) / memPageBytes; keep < int64(len(c.pages)) {
			c.pages = c.pages[:keep]
		}
		if i, at := size/memPageBytes, size%memPageBytes; at > 0 && i < int64(len(c.pages)) && c.pages[i] != nil {
			clear(c.writable(i)[at:])
		}
	}
	c.size = size
}

func (c *content) writable(i int64) []byte {
	c.ownTable(i + 1)
	if c.owner == nil {
		c.owner = new(memOwner)
	}
	p := c.pages[i]
	if p == nil || p.owner != c.owner {
		mine := &memPage{owner: c.owner}
		if p != nil {
			mine.bytes = p.bytes
		}
		c.pages[i], p = mine, mine
	}
	return p.bytes[:]
}

// ownTable makes the table this content's own and at least n pages long.
func (c *content) ownTable(n int64) {
	if c.sharedTable {
		c.pages, c.sharedTable = slices.Clone(c.pages), false
	}
	if more := n - int64(len(c.pages)); more > 0 {
		c.pages = append(c.pages, make([]*memPage, more)...)
	}
}

// inode is a file, whatever its names are. Guarded by the Mem's mu.
type inode struct {
	now     content  // what reads see
	synced  content  // what a crash cannot take
	pending []change // what leads from synced to now, in the order in which it was asked for

	links  int  // names in the volatile view: 1 or 0
	opens  int  // open Files and locks
	locked bool // by a Lock of this Mem
}

// change is one unsynced thing done to a file. Immutable, so that copies of a file share its data.
type change struct {
	kind changeKind
	off  int64  // of a write
	data []byte // of a write
	size int64  // of a grow or shrink
}

type changeKind uint8

const (
	changeWrite  changeKind = iota
	changeSynced            // a WriteSync that came after a shrink, and so has to be replayed after it
	changeGrow
	changeShrink
)

func (n *inode) write(b []byte, off int64) {
	if len(b) == 0 {
		return
	}
	n.now.write(b, off)
	n.pending = append(n.pending, change{kind: changeWrite, off: off, data: slices.Clone(b)})
}

// writeSync writes b to both views. Earlier unsynced writes lose the bytes that it covers: they must not come back over it.
func (n *inode) writeSync(b []byte, off int64) {
	if slices.ContainsFunc(n.pending, func(c change) bool { return c.kind == changeShrink }) {
		n.now.write(b, off)
		n.pending = append(n.pending, change{kind: changeSynced, off: off, data: slices.Clone(b)})
		return
	}
	n.pending = cutWrites(n.pending, off, off+int64(len(b)))
	for len(b) > 0 {
		part := b[:min(int64(len(b)), memPageBytes-off%memPageBytes)]
		if len(part) == memPageBytes {
			p := new(memPage)
			copy(p.bytes[:], part)
			n.now.put(off/memPageBytes, p)
			n.synced.put(off/memPageBytes, p)
		} else {
			n.now.write(part, off)
			n.synced.write(part, off)
		}
		b, off = b[len(part):], off+int64(len(part))
	}
}

// cutWrites returns changes without the bytes of writes that lie in [from, to).
func cutWrites(changes []change, from, to int64) []change {
	var out []change // never changes itself: a copy of the file may have the same array
	for _, c := range changes {
		end := c.off + int64(len(c.data))
		if c.kind != changeWrite || end <= from || c.off >= to {
			out = append(out, c)
			continue
		}
		if c.off < from {
			out = append(out, change{kind: changeWrite, off: c.off, data: c.data[:from-c.off]})
		}
		if end > to {
			out = append(out, change{kind: changeWrite, off: to, data: c.data[to-c.off:]})
		}
	}
	return out
}

func (n *inode) resize(size int64) {
	switch {
	case size > n.now.size:
		n.pending = append(n.pending, change{kind: changeGrow, size: size})
	case size < n.now.size:
		n.pending = append(n.pending, change{kind: changeShrink, size: size})
	}
	n.now.resize(size)
}

func (n *inode) sync() {
	if len(n.pending) > 0 {
		n.synced, n.pending = n.now.share(), nil
	}
}

// processCopy is the file as a new process of the same machine finds it.
func (n *inode) processCopy() *inode {
	return &inode{now: n.now.share(), synced: n.synced.share(), pending: slices.Clone(n.pending)}
}

// powerCopy is the file as it may be found after a power loss; without rng it has nothing that was not synced.
func (n *inode) powerCopy(rng *rand.Rand) *inode {
	c := n.synced.share()
	var keep, lose, tear int
	if rng != nil && len(n.pending) > 0 {
		// Weights per file, so that with many changes pending "all of them" and "none of them" happen too.
		keep, lose, tear = rng.IntN(3), rng.IntN(3), rng.IntN(3)
		if keep+lose+tear == 0 {
			keep = 1
		}
	}
	for _, p := range n.pending {
		if p.kind == changeSynced {
			c.write(p.data, p.off)
			continue
		}
		if rng == nil {
			continue
		}
		fate := rng.IntN(keep + lose + tear)
		switch {
		case fate >= keep+tear: // lost
		case p.kind == changeGrow:
			c.resize(max(c.size, p.size))
		case p.kind == changeShrink:
			c.resize(p.size)
		case fate < keep:
			c.write(p.data, p.off)
		default:
			c.writeTorn(p.data, p.off, rng)
		}
	}
	return &inode{now: c.share(), synced: c}
}

// writeTorn writes some of the sectors of b, perhaps none, perhaps all. The size may get to the write's end without the bytes that should be there.
func (c *content) writeTorn(b []byte, off int64, rng *rand.Rand) {
	if rng.IntN(2) == 0 {
		c.size = max(c.size, off+int64(len(b)))
	}
	for len(b) > 0 {
		n := min(int64(len(b)), memSectorBytes-off%memSectorBytes)
		if rng.IntN(2) == 0 {
			c.write(b[:n], off)
		}
		b, off = b[n:], off+n
	}
}
