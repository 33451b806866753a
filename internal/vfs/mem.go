package vfs

import (
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
)

// Mem is a file system in memory that can crash. Its fault model:
//
// Every file has two contents: the one that reads see, and the synced one, with the list of unsynced changes that lead from the second to the first. Crash
// returns another Mem, as a power loss at that moment could leave it; the old one goes on.
//
//	what was done                    what Crash leaves of it
//	WriteSync that returned          all of it, and a size of at least its end
//	any change before a Sync         all of it
//	WriteAt                          all; nothing; or torn: any of its 512-byte sectors. An extending write that is torn may leave the size without the bytes (zeros)
//	Truncate, Allocate               done or not
//	create, rename, remove           per directory the first so many of them, in the order in which they were asked for; SyncDir: all of them
//	MkdirAll, Remove of a directory  all of it: durable at once, as is everything done in the removed directory
//	a lock, an open File             gone
//
// Changes of one file are kept or lost each on its own, so a later write may be there while an earlier one is not, and where they overlap each sector has the
// old value or that of any one of them. Sectors are counted from the start of the file. Files, and names and bytes, do not wait for each other: a name may survive
// while its file's bytes do not. A file none of whose names survived is gone, synced or not: Sync makes no name durable.
//
// A rename is one step. Between two directories it is an operation of both: it survives in both or in neither, and a SyncDir of either makes it durable, with what
// had to come before it in the other (file systems with one journal do that).
//
// A WriteSync is one step here, so Crash never sees half of one. One that the crash cut short is made with Faulty: PartialWrite and CrashAfter leave its bytes
// unsynced, so that Crash may tear them.
//
// Not modelled: synced bytes that go bad, unreadable sectors, a disk that lies about a sync, and a Sync that fails (use Faulty for that; the changes then
// stay pending).
//
// Names are cleaned with package path. "/" and "." are there from the start; they are two different directories. Directories cannot be renamed or opened.
type Mem struct {
	capacity int64 // bytes; immutable

	// guarded by mu, as is all that hangs off them
	mu      sync.Mutex
	used    int64 // bytes of all files that have a name or are open, each in whole blocks, holes counted
	dirs    map[string]*memDir
	pending []nameChange // unsynced, oldest first
}

var _ FS = (*Mem)(nil)

type memDir struct {
	now    map[string]*inode // what List and Open see
	synced map[string]*inode // what a crash cannot take
}

// nameChange is a create (no from), a remove (no to) or a rename.
type nameChange struct {
	from, to memName
	file     *inode
}

// memName is a file's place; the zero value is none.
type memName struct{ dir, base string }

func (c nameChange) apply(names func(dir string) map[string]*inode) {
	if c.from.dir != "" {
		delete(names(c.from.dir), c.from.base)
	}
	if c.to.dir != "" {
		names(c.to.dir)[c.to.base] = c.file
	}
}

// NewMem returns an empty file system without a limit.
func NewMem() *Mem { return NewMemLimited(math.MaxInt64) }

// NewMemLimited returns an empty file system that holds capacityBytes, files being counted in whole blocks of BlockBytes and holes like any other bytes. An
// operation that would pass it gets ENOSPC and changes nothing. Names cost nothing. A crash may bring back more than the capacity, when a remove did not
// survive; Free is then 0.
func NewMemLimited(capacityBytes int64) *Mem {
	m := &Mem{capacity: capacityBytes, dirs: map[string]*memDir{}}
	for _, root := range []string{"/", "."} {
		m.dirs[root] = &memDir{now: map[string]*inode{}, synced: map[string]*inode{}}
	}
	return m
}

func (m *Mem) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.open(name, mode)
	if err != nil {
		return nil, err
	}
	return &memFile{fs: m, node: n, name: name, mode: mode}, nil
}

// open finds or makes a file and counts it as open.
func (m *Mem) open(name string, mode Mode) (*inode, error) {
	at, n, errno := m.find(name)
	switch {
	case errno == syscall.ENOENT && mode&Create != 0 && m.dirs[at.dir] != nil:
		n = new(inode)
		m.change(nameChange{to: at, file: n})
	case errno != 0:
		return nil, pathError("open", name, errno)
	case mode&Create != 0 && mode&Exclusive != 0:
		return nil, pathError("open", name, syscall.EEXIST)
	}
	n.opens++
	return n, nil
}

// find returns a file and its place; ENOENT with a place whose directory exists says that a file could be made there.
func (m *Mem) find(name string) (memName, *inode, syscall.Errno) {
	name = path.Clean(name)
	at := memName{path.Dir(name), path.Base(name)}
	if m.dirs[name] != nil {
		return at, nil, syscall.EISDIR
	}
	d := m.dirs[at.dir]
	if d == nil || d.now[at.base] == nil {
		return at, nil, syscall.ENOENT
	}
	return at, d.now[at.base], 0
}

// change does c to the names that are seen and leaves it pending.
func (m *Mem) change(c nameChange) {
	if c.to.dir != "" {
		if old := m.dirs[c.to.dir].now[c.to.base]; old != nil {
			old.links--
			m.drop(old)
		}
		c.file.links++
	}
	if c.from.dir != "" {
		c.file.links--
		m.drop(c.file)
	}
	c.apply(func(dir string) map[string]*inode { return m.dirs[dir].now })
	m.pending = append(m.pending, c)
}

// drop gives a file's space back when nothing can reach it any more.
func (m *Mem) drop(n *inode) {
	if n.links == 0 && n.opens == 0 {
		m.used -= wholeBlocks(n.now.size)
	}
}

// extend takes the space by which n is to grow to size, or says ENOSPC or EFBIG.
func (m *Mem) extend(n *inode, size int64) syscall.Errno {
	if size <= n.now.size {
		return 0
	}
	if size > memFileMax {
		return syscall.EFBIG
	}
	more := wholeBlocks(size) - wholeBlocks(n.now.size)
	if more > 0 && more > m.capacity-m.used {
		return syscall.ENOSPC
	}
	m.used += more
	return 0
}

func wholeBlocks(n int64) int64 { return (n + BlockBytes - 1) / BlockBytes * BlockBytes }

// Rename refuses directories with EISDIR.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	src, n, errno := m.find(from)
	if errno != 0 {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: errno}
	}
	dst, old, errno := m.find(to)
	if errno != 0 && (errno != syscall.ENOENT || m.dirs[dst.dir] == nil) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: errno}
	}
	if old != n {
		m.change(nameChange{from: src, to: dst, file: n})
	}
	return nil
}

func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, n, errno := m.find(name)
	switch errno {
	case syscall.EISDIR:
		errno = m.removeDir(path.Clean(name))
	case 0:
		m.change(nameChange{from: at, file: n})
	}
	if errno != 0 {
		return pathError("remove", name, errno)
	}
	return nil
}

func (m *Mem) removeDir(dir string) syscall.Errno {
	if dir == "/" || dir == "." {
		return syscall.EBUSY
	}
	if len(m.list(dir)) > 0 {
		return syscall.ENOTEMPTY
	}
	m.syncNames(dir)
	delete(m.dirs, dir)
	return 0
}

func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []string
	for d := path.Clean(dir); m.dirs[d] == nil; d = path.Dir(d) {
		if _, _, errno := m.find(d); errno == 0 {
			return pathError("mkdir", d, syscall.ENOTDIR)
		}
		missing = append(missing, d)
	}
	for _, d := range missing {
		m.dirs[d] = &memDir{now: map[string]*inode{}, synced: map[string]*inode{}}
	}
	return nil
}

func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.needDir("open", dir); err != nil {
		return nil, err
	}
	return m.list(path.Clean(dir)), nil
}

func (m *Mem) list(dir string) []string {
	names := slices.Collect(maps.Keys(m.dirs[dir].now))
	for d := range m.dirs {
		if d != dir && path.Dir(d) == dir {
			names = append(names, path.Base(d))
		}
	}
	slices.Sort(names)
	return names
}

func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.needDir("open", dir); err != nil {
		return err
	}
	m.syncNames(path.Clean(dir))
	return nil
}

// syncNames makes the names in dir durable, and in another directory those changes that a rename between the two comes after.
func (m *Mem) syncNames(dir string) {
	dirs := map[string]bool{dir: true}
	due := make([]bool, len(m.pending))
	for i, c := range slices.Backward(m.pending) {
		if !dirs[c.from.dir] && !dirs[c.to.dir] {
			continue
		}
		due[i] = true
		for _, d := range []string{c.from.dir, c.to.dir} {
			if d != "" {
				dirs[d] = true
			}
		}
	}
	var rest []nameChange
	for i, c := range m.pending {
		if due[i] {
			c.apply(func(dir string) map[string]*inode { return m.dirs[dir].synced })
		} else {
			rest = append(rest, c)
		}
	}
	m.pending = rest
}

func (m *Mem) Free(dir string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.needDir("statfs", dir); err != nil {
		return 0, err
	}
	return max(m.capacity-m.used, 0), nil
}

// Lock holds among the users of this Mem; a Mem after a crash starts without locks.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.open(name, ReadWrite|Create)
	if err != nil {
		return nil, err
	}
	f := &memFile{fs: m, node: n, name: name}
	if n.locked {
		f.close()
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	n.locked, f.holdsLock = true, true
	return f, nil
}

func (m *Mem) needDir(op, dir string) error {
	if m.dirs[path.Clean(dir)] != nil {
		return nil
	}
	if _, _, errno := m.find(dir); errno != 0 {
		return pathError(op, dir, errno)
	}
	return pathError(op, dir, syscall.ENOTDIR)
}

// Crash returns what a power loss at this moment may leave, chosen with rng. The same operations and the same seed give the same bytes, when the operations came
// in the same order. Everything in the result is durable.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.powerLoss(rng)
}

// CrashKeepNothing returns what is left when nothing survives but what was synced.
func (m *Mem) CrashKeepNothing() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.powerLoss(nil)
}

func (m *Mem) powerLoss(rng *rand.Rand) *Mem {
	out := &Mem{capacity: m.capacity, dirs: make(map[string]*memDir, len(m.dirs))}
	for dir, d := range m.dirs {
		out.dirs[dir] = &memDir{synced: maps.Clone(d.synced)}
	}
	if rng != nil {
		for _, c := range m.survivors(rng) {
			c.apply(func(dir string) map[string]*inode { return out.dirs[dir].synced })
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(out.dirs)) {
		d := out.dirs[dir]
		for _, name := range slices.Sorted(maps.Keys(d.synced)) {
			n := d.synced[name].powerCopy(rng)
			n.links = 1
			out.used += wholeBlocks(n.now.size)
			d.synced[name] = n
		}
		d.now = maps.Clone(d.synced)
	}
	return out
}

// survivors draws, per directory, how many of its pending changes were on the disk. A change of two directories that is past the end of one ends the other's too.
func (m *Mem) survivors(rng *rand.Rand) []nameChange {
	left := map[string]int{}
	for _, c := range m.pending {
		for _, d := range c.dirs() {
			left[d]++
		}
	}
	for _, d := range slices.Sorted(maps.Keys(left)) {
		left[d] = rng.IntN(left[d] + 1)
	}
	var out []nameChange
	for _, c := range m.pending {
		if slices.ContainsFunc(c.dirs(), func(d string) bool { return left[d] == 0 }) {
			for _, d := range c.dirs() {
				left[d] = 0
			}
			continue
		}
		for _, d := range c.dirs() {
			left[d]--
		}
		out = append(out, c)
	}
	return out
}

// dirs returns the one or two directories that c changes.
func (c nameChange) dirs() []string {
	switch {
	case c.from.dir == "" || c.from.dir == c.to.dir:
		return []string{c.to.dir}
	case c.to.dir == "":
		return []string{c.from.dir}
	}
	return []string{c.from.dir, c.to.dir}
}

// CrashKeepAll returns what the next process finds when this one dies and the machine does not: everything, but without locks and open files. What was
// unsynced is so still, and a Crash of the result can take it.
func (m *Mem) CrashKeepAll() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &Mem{capacity: m.capacity, dirs: make(map[string]*memDir, len(m.dirs))}
	copies := map[*inode]*inode{}
	copyOf := func(n *inode) *inode {
		if copies[n] == nil {
			copies[n] = n.processCopy()
		}
		return copies[n]
	}
	for dir, d := range m.dirs {
		names := &memDir{now: map[string]*inode{}, synced: map[string]*inode{}}
		for name, n := range d.now {
			names.now[name] = copyOf(n)
			names.now[name].links = 1
			out.used += wholeBlocks(n.now.size)
		}
		for name, n := range d.synced {
			names.synced[name] = copyOf(n)
		}
		out.dirs[dir] = names
	}
	for _, c := range m.pending {
		c.file = copyOf(c.file)
		out.pending = append(out.pending, c)
	}
	return out
}
