package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"tidemark/internal/planted"
)

// Sizes of the two headers, in bytes.
const (
	FrameHeaderBytes  = 80
	RecordHeaderBytes = 24
)

const (
	frameMagic   uint32 = 0x314d4454 // "TDM1", little-endian
	frameVersion byte   = 1
)

// FrameType says what a frame carries.
type FrameType uint8

const (
	FrameData       FrameType = 1 // records
	FrameEmpty      FrameType = 2 // nothing: Raft's no-op at the begin of a term
	FrameMembership FrameType = 3 // a change of the cluster's members
	FrameFiller     FrameType = 4 // the rest of a segment; its body is neither cached nor written
	FrameGap        FrameType = 5 // what Repair puts over damage; its body is not read, and BodyCRC is the chain value that the frame behind it names
)

// FrameHeader is the fixed head of a frame. docs/format.md has the table of bytes.
type FrameHeader struct {
	Type        FrameType
	BodyBytes   uint32 // bytes behind the header; a multiple of Align
	Records     uint32
	Start       Offset
	Term        Term
	Index       Index
	TimestampMs int64
	BodyCRC     uint32 // CRC-32C of the body; 0 in a filler
	PrevCRC     uint32 // header CRC of the frame before: the chain
	HeaderCRC   uint32 // CRC-32C over bytes 0–59, seeded with the journal's salt
	Flushed     Offset // local to this node: its flushed watermark when it wrote the frame
}

// End is the position behind the frame's last byte.
func (h *FrameHeader) End() Offset { return h.Start + FrameHeaderBytes + Offset(h.BodyBytes) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Salt makes one journal's header checksums differ from every other's.
type Salt [8]byte

func (s Salt) seed() uint32 { return crc32.Checksum(s[:], castagnoli) }

// encode stamps the header into dst and sets h.HeaderCRC.
func (h *FrameHeader) encode(dst *[FrameHeaderBytes]byte, saltSeed uint32) {
	le := binary.LittleEndian
	le.PutUint32(dst[0:], frameMagic)
	dst[4] = frameVersion
	dst[5] = byte(h.Type)
	le.PutUint16(dst[6:], FrameHeaderBytes)
	le.PutUint32(dst[8:], h.BodyBytes)
	le.PutUint32(dst[12:], h.Records)
	le.PutUint64(dst[16:], uint64(h.Start))
	le.PutUint64(dst[24:], uint64(h.Term))
	le.PutUint64(dst[32:], uint64(h.Index))
	le.PutUint64(dst[40:], uint64(h.TimestampMs))
	le.PutUint32(dst[48:], h.BodyCRC)
	le.PutUint32(dst[52:], h.PrevCRC)
	le.PutUint32(dst[56:], 0)
	h.HeaderCRC = crc32.Update(saltSeed, castagnoli, dst[:60])
	le.PutUint32(dst[60:], h.HeaderCRC)
	le.PutUint64(dst[64:], uint64(h.Flushed))
	le.PutUint32(dst[72:], 0)
	le.PutUint32(dst[76:], localCRC(dst))
}

// localCRC covers the node's own bytes 64–75 and the header CRC that they belong to.
func localCRC(head *[FrameHeaderBytes]byte) uint32 {
	return crc32.Update(crc32.Checksum(head[60:64], castagnoli), castagnoli, head[64:76])
}

// Why a header is not sound. A caller learns no more than that: where frames end is the recovery's to say.
var (
	errNoMagic   = errors.New("no frame magic")
	errHeader    = errors.New("frame header checksum mismatch")
	errPlace     = errors.New("frame header names another offset")
	errVersion   = errors.New("frame version or header size is unknown")
	errLocal     = errors.New("checksum mismatch of the frame header's local bytes")
	errChain     = errors.New("chain broken: the frame does not follow the one before it")
	errBody      = errors.New("frame body checksum mismatch")
	errOverrun   = errors.New("frame runs past its segment")
	errFrameType = errors.New("frame type is unknown")
)

// opaque says that the frame's body is nothing: a filler's or a gap's.
func (t FrameType) opaque() bool { return t == FrameFiller || t == FrameGap }

// decodeFrame checks that src begins with a sound header of this journal at offset at. It does not look at the chain or at the body.
func decodeFrame(src []byte, saltSeed uint32, at Offset) (FrameHeader, error) {
	var h FrameHeader
	le := binary.LittleEndian
	if planted.Is(planted.ZerosAreFrames) && len(src) >= FrameHeaderBytes && [FrameHeaderBytes]byte(src) == [FrameHeaderBytes]byte{} {
		return FrameHeader{Type: FrameEmpty, Start: at}, nil
	}
	if len(src) < FrameHeaderBytes || le.Uint32(src) != frameMagic {
		return h, errNoMagic
	}
	head := (*[FrameHeaderBytes]byte)(src)
	if crc32.Update(saltSeed, castagnoli, head[:60]) != le.Uint32(head[60:]) {
		return h, errHeader
	}
	if head[4] != frameVersion || le.Uint16(head[6:]) != FrameHeaderBytes {
		return h, errVersion
	}
	h = trustedHeader(head)
	if planted.Is(planted.StaleFrames) {
		h.Start = at
	}
	if h.Start != at {
		return h, errPlace
	}
	if localCRC(head) != le.Uint32(head[76:]) {
		return h, errLocal
	}
	if h.Type < FrameData || h.Type > FrameGap {
		return h, errFrameType
	}
	if h.BodyBytes%Align != 0 {
		return h, errOverrun
	}
	return h, nil
}

// trustedHeader reads a header's fields without a check: for bytes that this process wrote, or that decodeFrame looks at.
func trustedHeader(head *[FrameHeaderBytes]byte) FrameHeader {
	le := binary.LittleEndian
	return FrameHeader{
		Type:        FrameType(head[5]),
		BodyBytes:   le.Uint32(head[8:]),
		Records:     le.Uint32(head[12:]),
		Start:       Offset(le.Uint64(head[16:])),
		Term:        Term(le.Uint64(head[24:])),
		Index:       Index(le.Uint64(head[32:])),
		TimestampMs: int64(le.Uint64(head[40:])),
		BodyCRC:     le.Uint32(head[48:]),
		PrevCRC:     le.Uint32(head[52:]),
		HeaderCRC:   le.Uint32(head[60:]),
		Flushed:     Offset(le.Uint64(head[64:])),
	}
}

// RecordKind says what a record's payload is.
type RecordKind uint8

const (
	RecordBatch     RecordKind = 1 // a Kafka record batch, version 2
	RecordCommand   RecordKind = 2 // a catalog command
	RecordTxnMarker RecordKind = 3 // the end of a transaction
)

// Record is one record of a frame. Payload aliases the buffer that it was parsed from.
type Record struct {
	Kind      RecordKind
	Flags     uint8
	Partition uint32
	Base      LogicalOffset // of the batch's first record; 0 for commands
	At        Offset        // where the record's header begins
	Payload   []byte
}

// RecordBytes is the room that a payload takes in a frame, its header and padding counted.
func RecordBytes(payload int) int { return RecordHeaderBytes + alignUp(payload) }

// End is the position behind the record's padding.
func (r *Record) End() Offset { return r.At + Offset(RecordBytes(len(r.Payload))) }

// encodeRecordHeader takes what the header says one by one: a Record that is put together for it costs more than the rest (docs/bench/NOTES.md, stores).
func encodeRecordHeader(dst *[RecordHeaderBytes]byte, kind RecordKind, flags uint8, partition uint32, base LogicalOffset, payloadBytes int) {
	le := binary.LittleEndian
	dst[0] = byte(kind)
	dst[1] = flags
	le.PutUint16(dst[2:], 0)
	le.PutUint32(dst[4:], partition)
	le.PutUint32(dst[8:], uint32(payloadBytes))
	le.PutUint32(dst[12:], 0)
	le.PutUint64(dst[16:], uint64(base))
}

// DecodeRecord parses the record at the head of src, which begins at offset at, and refuses one that does not lie wholly in src.
func DecodeRecord(src []byte, at Offset) (Record, error) {
	if len(src) < RecordHeaderBytes {
		return Record{}, fmt.Errorf("record at %d: %d bytes left, a header takes %d", at, len(src), RecordHeaderBytes)
	}
	le := binary.LittleEndian
	r := Record{
		Kind: RecordKind(src[0]), Flags: src[1], Partition: le.Uint32(src[4:]),
		Base: LogicalOffset(le.Uint64(src[16:])), At: at,
	}
	n := le.Uint32(src[8:])
	if r.Kind < RecordBatch || r.Kind > RecordTxnMarker {
		return Record{}, fmt.Errorf("record at %d: kind %d is unknown", at, src[0])
	}
	if uint64(n) > uint64(len(src)-RecordHeaderBytes) || RecordBytes(int(n)) > len(src) {
		return Record{}, fmt.Errorf("record at %d: %d payload bytes, %d left in the frame", at, n, len(src)-RecordHeaderBytes)
	}
	r.Payload = src[RecordHeaderBytes : RecordHeaderBytes+int(n) : RecordHeaderBytes+int(n)]
	return r, nil
}

// PeekRecord reads the fields of a record's header, without a look at what they say. b has at least RecordHeaderBytes.
func PeekRecord(b []byte) (kind RecordKind, partition uint32, payloadBytes int, base LogicalOffset) {
	le := binary.LittleEndian
	_ = b[RecordHeaderBytes-1]
	return RecordKind(b[0]), le.Uint32(b[4:]), int(le.Uint32(b[8:])), LogicalOffset(le.Uint64(b[16:]))
}

// Frame is a checked frame: its header and the body that the header's checksum was compared with. Body aliases a buffer of whoever handed the frame out.
type Frame struct {
	FrameHeader
	Body []byte
}

// EachRecord calls fn for every record in order and stops at the first error, fn's or one that says the body is not made of Records records.
func (f *Frame) EachRecord(fn func(Record) error) error {
	rest, at := f.Body, f.Start+FrameHeaderBytes
	for range f.Records {
		r, err := DecodeRecord(rest, at)
		if err != nil {
			return err
		}
		if err := fn(r); err != nil {
			return err
		}
		n := RecordBytes(len(r.Payload))
		rest, at = rest[n:], at+Offset(n)
	}
	if !f.Type.opaque() && len(rest) != 0 {
		return fmt.Errorf("frame at %d: %d bytes behind its last record", f.Start, len(rest))
	}
	return nil
}
