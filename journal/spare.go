package journal

import (
	"path"
	"strings"

	"tidemark/internal/vfs"
)

// zeroChunkBytes is what one step of zeroing writes: small, so that a flush beside it waits little.
const zeroChunkBytes = 256 << 10

// zeroing is a spare in the making: allocated, and written with zeros chunk by chunk, so that a later flush into it changes no metadata.
type zeroing struct {
	name string
	file vfs.File
	done int64
	zero []byte
}

// spareStep does one chunk of work towards a pool of want spares and says whether there is more to do. Maintenance goroutine only; the caller paces it
// and calls it while the disk is idle.
func (s *segments) spareStep(want int) (more bool, err error) {
	if s.zeroing == nil {
		if len(s.spares) >= want {
			return false, nil
		}
		name, err := s.allocate(zeroingPrefix)
		if err != nil {
			return false, err
		}
		f, err := s.fsys.Open(path.Join(s.dir, name), vfs.ReadWrite|vfs.Direct)
		if err != nil {
			return false, err
		}
		s.zeroing = &zeroing{name: name, file: f, zero: vfs.AlignedBytes(zeroChunkBytes)}
		return true, nil
	}
	z := s.zeroing
	if z.done < s.bytes {
		n := min(int64(len(z.zero)), s.bytes-z.done)
		if _, err := z.file.WriteAt(z.zero[:n], z.done); err != nil {
			s.abandonZeroing()
			return false, err
		}
		z.done += n
		return true, nil
	}
	if err = syncError("sync of a spare", z.file.Sync()); err != nil {
		s.abandonZeroing()
		return false, err
	}
	s.zeroing = nil
	if err := z.file.Close(); err != nil {
		return false, err
	}
	name := sparePrefix + strings.TrimPrefix(z.name, zeroingPrefix)
	if err := s.fsys.Rename(path.Join(s.dir, z.name), path.Join(s.dir, name)); err != nil {
		return false, err
	}
	s.spares = append(s.spares, name)
	return len(s.spares) < want, nil
}

// abandonZeroing throws the unfinished spare away; a spare that failed has nothing in it to lose.
func (s *segments) abandonZeroing() {
	if s.zeroing == nil {
		return
	}
	s.zeroing.file.Close()
	s.fsys.Remove(path.Join(s.dir, s.zeroing.name))
	s.zeroing = nil
}
