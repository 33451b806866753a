// Package batch reads and patches the header of a Kafka record batch, version 2. Records behind the header are never unpacked here.
//
// The layout is that of Apache Kafka's DefaultRecordBatch: base offset 0–7, batch length 8–11, partition leader epoch 12–15, magic 16, CRC-32C 17–20
// over everything from 21 to the end, attributes 21–22, last offset delta 23–26, base timestamp 27–34, max timestamp 35–42, producer id 43–50, producer
// epoch 51–52, base sequence 53–56, record count 57–60; big-endian.
package batch

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// HeaderBytes is the size of a batch's header, and so of the smallest batch.
const HeaderBytes = 61

// lengthFrom is where the bytes begin that the batch length counts.
const lengthFrom = 12

// Info is what a batch's header says. Sequences and counts are those of the batch's records.
type Info struct {
	Base            int64 // logical offset of the first record
	LeaderEpoch     int32
	Attributes      int16
	LastOffsetDelta int32
	BaseTimestamp   int64 // ms
	MaxTimestamp    int64 // ms
	ProducerID      int64 // −1: not idempotent
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32
}

// Codec is the compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
func (i *Info) Codec() int { return int(i.Attributes & 7) }

// CodecZstd is the one codec that older request versions may not carry.
const CodecZstd = 4

// Codecs names them.
var Codecs = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

const (
	attrLogAppendTime = 1 << 3
	attrTransactional = 1 << 4
	attrControl       = 1 << 5
)

// LogAppendTime says that the batch's time was set by a broker.
func (i *Info) LogAppendTime() bool { return i.Attributes&attrLogAppendTime != 0 }

// Transactional says that the batch is part of a transaction.
func (i *Info) Transactional() bool { return i.Attributes&attrTransactional != 0 }

// Control says that the batch holds a marker and no records of a client.
func (i *Info) Control() bool { return i.Attributes&attrControl != 0 }

// Idempotent says that the batch carries a producer id and sequence numbers.
func (i *Info) Idempotent() bool { return i.ProducerID >= 0 && !i.Control() }

// Why bytes are not one sound batch of a client.
var (
	ErrEmpty     = errors.New("no record batch")
	ErrMagic     = errors.New("record batch of magic 0 or 1: only version 2 is taken")
	ErrLength    = errors.New("record batch length does not match its bytes; one batch a partition is taken")
	ErrCount     = errors.New("record batch count and last offset delta do not match")
	ErrCRC       = errors.New("record batch checksum mismatch")
	ErrCodec     = errors.New("record batch has an unknown compression codec")
	ErrSequence  = errors.New("record batch has a producer id without an epoch or a sequence")
	ErrTimestamp = errors.New("record batch of a client has LogAppendTime")
	ErrControl   = errors.New("control batch from a client")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Head reads the header without a check; b has at least HeaderBytes.
func Head(b []byte) (i Info) {
	i.read(b)
	return i
}

func (i *Info) read(b []byte) {
	be := binary.BigEndian
	h := (*[HeaderBytes]byte)(b)
	i.Base, i.LeaderEpoch, i.Attributes = int64(be.Uint64(h[0:])), int32(be.Uint32(h[12:])), int16(be.Uint16(h[21:]))
	i.LastOffsetDelta, i.BaseTimestamp, i.MaxTimestamp = int32(be.Uint32(h[23:])), int64(be.Uint64(h[27:])), int64(be.Uint64(h[35:]))
	i.ProducerID, i.ProducerEpoch = int64(be.Uint64(h[43:])), int16(be.Uint16(h[51:]))
	i.BaseSequence, i.Count = int32(be.Uint32(h[53:])), int32(be.Uint32(h[57:]))
}

// Parse reads the header of bytes that should be one whole batch, and checks its shape and its checksum.
func Parse(b []byte) (i Info, err error) {
	return i, i.parse(b)
}

func (i *Info) parse(b []byte) error {
	switch {
	case len(b) == 0:
		return ErrEmpty
	case len(b) > 16 && b[16] != 2:
		return ErrMagic
	case len(b) < HeaderBytes || int64(binary.BigEndian.Uint32(b[8:])) != int64(len(b)-lengthFrom):
		return ErrLength
	}
	i.read(b)
	switch {
	case i.Count <= 0 || i.LastOffsetDelta != i.Count-1:
		return ErrCount
	case !SoundCRC(b):
		return ErrCRC
	}
	return nil
}

// Accept is Parse into i, and refuses what a client may not send outside of a transaction.
func (i *Info) Accept(b []byte) error {
	if err := i.parse(b); err != nil {
		return err
	}
	switch {
	case i.Control():
		return ErrControl
	case i.Codec() >= len(Codecs):
		return ErrCodec
	case i.LogAppendTime():
		return ErrTimestamp
	case i.Idempotent() && (i.ProducerEpoch < 0 || i.BaseSequence < 0), i.Transactional() && !i.Idempotent():
		return ErrSequence
	}
	return nil
}

// SoundCRC compares the checksum of a batch of at least HeaderBytes.
func SoundCRC(b []byte) bool {
	return len(b) >= HeaderBytes && crc32.Checksum(b[21:], castagnoli) == binary.BigEndian.Uint32(b[17:])
}

// Patch sets the two fields that the broker owns. The checksum does not cover them.
func Patch(b []byte, base int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[12:], uint32(leaderEpoch))
}

// Bytes is the size that a batch's own header claims; b has at least 12 bytes.
func Bytes(b []byte) int { return lengthFrom + int(int32(binary.BigEndian.Uint32(b[8:]))) }
