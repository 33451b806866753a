package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"tidemark/internal/vfs"
)

// Mark is what a node remembers of its journal's synced end outside of the journal, so that damage to acknowledged bytes can be told from
// a torn tail. It lags behind flushed by up to the mark interval and never runs ahead of it.
type Mark struct {
	Flushed Offset // a frame end; everything below it was synced
	Term    Term   // the newest term this node has used; at least that of the last frame below Flushed
	Index   Index  // of the last frame below Flushed
	Chain   uint32 // header CRC of the last frame (a filler counts) below Flushed
	First   Offset // log start: segments below it were dropped on purpose; any other that is missing is lost
	Cut     Offset // a cut that was begun at this offset and may be unfinished; NoCut otherwise
}

// NoCut says that no cut is pending.
const NoCut Offset = -1

const (
	markName         = "mark"
	markMagic uint32 = 0x314b4d54 // "TMK1"
	markBytes        = 64
	markSlots        = 2
)

// marker writes the mark file: two slots a block apart, written in turns, so that a torn write leaves the older one. One goroutine at a time.
type marker struct {
	file  vfs.File
	seed  uint32
	seq   uint64
	block []byte
}

// encodeMark lays a mark out as docs/format.md has it.
func encodeMark(dst []byte, m Mark, seq uint64, seed uint32) {
	le := binary.LittleEndian
	clear(dst)
	le.PutUint32(dst[0:], markMagic)
	le.PutUint32(dst[4:], m.Chain)
	le.PutUint64(dst[8:], seq)
	le.PutUint64(dst[16:], uint64(m.Flushed))
	le.PutUint64(dst[24:], uint64(m.Term))
	le.PutUint64(dst[32:], uint64(m.Index))
	le.PutUint64(dst[40:], uint64(m.Cut))
	le.PutUint64(dst[48:], uint64(m.First))
	le.PutUint32(dst[60:], crc32.Update(seed, castagnoli, dst[:60]))
}

// decodeMark returns the slot's mark and its sequence number, or false when the slot is not sound.
func decodeMark(src []byte, seed uint32) (Mark, uint64, bool) {
	le := binary.LittleEndian
	if len(src) < markBytes || le.Uint32(src) != markMagic ||
		le.Uint32(src[60:]) != crc32.Update(seed, castagnoli, src[:60]) {
		return Mark{}, 0, false
	}
	m := Mark{
		Chain:   le.Uint32(src[4:]),
		Flushed: Offset(le.Uint64(src[16:])),
		Term:    Term(le.Uint64(src[24:])),
		Index:   Index(le.Uint64(src[32:])),
		Cut:     Offset(le.Uint64(src[40:])),
		First:   Offset(le.Uint64(src[48:])),
	}
	return m, le.Uint64(src[8:]), m.Flushed >= 0 && m.First >= 0 && m.Cut >= NoCut
}

// writeMark makes the mark file, with m in both slots. A crash leaves the file as it was, or as it is now.
func writeMark(fsys vfs.FS, dir string, m Mark, seed uint32) error {
	b := make([]byte, markSlots*vfs.BlockBytes)
	for slot := range markSlots {
		encodeMark(b[slot*vfs.BlockBytes:], m, uint64(slot), seed)
	}
	return WriteFileAtomic(fsys, path.Join(dir, markName), b)
}

// openMark reads the newer sound slot and opens the file for writing.
func openMark(fsys vfs.FS, dir string, salt Salt) (*marker, Mark, error) {
	m, seq, err := readMark(fsys, dir, salt)
	if err != nil {
		return nil, m, err
	}
	f, err := fsys.Open(path.Join(dir, markName), vfs.ReadWrite|vfs.Direct)
	if err != nil {
		return nil, m, err
	}
	return &marker{file: f, seed: salt.seed(), seq: seq, block: vfs.AlignedBytes(vfs.BlockBytes)}, m, nil
}

func readMark(fsys vfs.FS, dir string, salt Salt) (best Mark, seq uint64, err error) {
	name := path.Join(dir, markName)
	b, err := ReadFile(fsys, name, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return best, 0, &CorruptError{Segment: -1, File: name, Cause: "the file is missing"}
	}
	if err != nil {
		return best, 0, err
	}
	found := false
	for slot := range markSlots {
		at := slot * vfs.BlockBytes
		if at+markBytes > len(b) {
			break
		}
		if m, s, ok := decodeMark(b[at:at+markBytes], salt.seed()); ok && (!found || s > seq) {
			best, seq, found = m, s, true
		}
	}
	if !found {
		return best, 0, &CorruptError{Segment: -1, File: name, Cause: "neither slot has a sound checksum"}
	}
	return best, seq, nil
}

// write makes m durable in the older slot.
func (k *marker) write(m Mark) error {
	k.seq++
	clear(k.block)
	encodeMark(k.block[:markBytes], m, k.seq, k.seed)
	_, err := k.file.WriteSync([][]byte{k.block}, int64(k.seq%markSlots)*vfs.BlockBytes)
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	return nil
}

func (k *marker) close() error { return k.file.Close() }
