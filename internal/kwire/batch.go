package kwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Record batch v2, big-endian (kafka.apache.org/documentation/#recordbatch):
//
//	at  size field                  at  size field
//	 0  8    base offset            23  4    last offset delta
//	 8  4    bytes after this one   27  8    first timestamp, ms
//	12  4    leader epoch           35  8    max timestamp, ms
//	16  1    magic, 2               43  8    producer id, -1 for none
//	17  4    CRC-32C of 21 to end   51  2    producer epoch
//	21  2    attributes             53  4    first sequence
//	                                57  4    record count
//	                                61       records, compressed as attributes say
const (
	// BatchHeaderBytes is what a batch has before its first record.
	BatchHeaderBytes = 61

	batchLengthAt     = 8
	batchMagicAt      = 16
	batchCRCAt        = 17
	batchAttributesAt = 21
	batchMagic        = 2
	compressionMask   = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCompress is returned when a compressor gives up.
var ErrCompress = errors.New("kwire: compression failed")

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a batch. A nil Key or Value is null on the wire, an empty one is empty.
type Record struct {
	Key       []byte
	Value     []byte
	Headers   []Header
	Timestamp int64 // ms since 1970
}

// Producer identifies an idempotent producer. Batches without one carry NoProducer.
type Producer struct {
	ID       int64
	Epoch    int16
	Sequence int32 // of the batch's first record; counts per partition, wraps to 0 after MaxInt32
}

// NoProducer is the producer of batches that ask for no duplicate check.
var NoProducer = Producer{ID: -1, Epoch: -1, Sequence: -1}

// Advance returns p with its sequence moved on by n records.
func (p Producer) Advance(n int) Producer {
	p.Sequence = int32((int64(p.Sequence) + int64(n)) & math.MaxInt32)
	return p
}

// BatchBuilder collects records and makes a batch of them. The zero value is an empty batch. Not safe for concurrent use.
type BatchBuilder struct {
	records []byte
	count   int
	first   int64
	last    int64 // largest timestamp, not the last record's
}

// Len is the number of records.
func (b *BatchBuilder) Len() int { return b.count }

// Bytes is the size of the batch as it stands, uncompressed; 0 without records.
func (b *BatchBuilder) Bytes() int {
	if b.count == 0 {
		return 0
	}
	return BatchHeaderBytes + len(b.records)
}

// BytesWith is what Bytes would be after Append(r).
func (b *BatchBuilder) BytesWith(r Record) int {
	body := b.bodyBytes(r)
	return BatchHeaderBytes + len(b.records) + varintBytes(int64(body)) + body
}

func (b *BatchBuilder) timestampDelta(r Record) int64 {
	if b.count == 0 {
		return 0
	}
	return r.Timestamp - b.first
}

// bodyBytes is the size of a record after its length.
func (b *BatchBuilder) bodyBytes(r Record) int {
	n := 1 + varintBytes(b.timestampDelta(r)) + varintBytes(int64(b.count)) + blobBytes(r.Key) + blobBytes(r.Value) + varintBytes(int64(len(r.Headers)))
	for _, h := range r.Headers {
		n += varintBytes(int64(len(h.Key))) + len(h.Key) + blobBytes(h.Value)
	}
	return n
}

// Append adds a record; its bytes are copied.
func (b *BatchBuilder) Append(r Record) {
	body, delta := b.bodyBytes(r), b.timestampDelta(r)
	if b.count == 0 {
		b.first, b.last = r.Timestamp, r.Timestamp
	}
	b.last = max(b.last, r.Timestamp)
	dst := binary.AppendVarint(b.records, int64(body))
	dst = append(dst, 0) // attributes, unused
	dst = binary.AppendVarint(dst, delta)
	dst = binary.AppendVarint(dst, int64(b.count))
	dst = appendBlob(dst, r.Key)
	dst = appendBlob(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBlob(dst, h.Value)
	}
	b.records = dst
	b.count++
}

// Reset empties the builder and keeps its memory.
func (b *BatchBuilder) Reset() { b.records, b.count = b.records[:0], 0 }

// AppendTo appends the batch to dst: base offset 0, leader epoch -1, create time. A nil compressor compresses nothing. The
// builder is unchanged. A batch without records is the caller's mistake; brokers refuse it.
func (b *BatchBuilder) AppendTo(dst []byte, p Producer, compressor kgo.Compressor) ([]byte, error) {
	records, attributes := b.records, int16(0)
	if compressor != nil {
		packed, codec := compressor.Compress(new(bytes.Buffer), records)
		if codec == kgo.CodecError {
			return nil, ErrCompress
		}
		records, attributes = packed, int16(codec)
	}
	head := kmsg.RecordBatch{
		Length:               int32(BatchHeaderBytes - batchLengthAt - 4 + len(records)),
		PartitionLeaderEpoch: -1,
		Magic:                batchMagic,
		Attributes:           attributes,
		LastOffsetDelta:      int32(b.count - 1),
		FirstTimestamp:       b.first,
		MaxTimestamp:         b.last,
		ProducerID:           p.ID,
		ProducerEpoch:        p.Epoch,
		FirstSequence:        p.Sequence,
		NumRecords:           int32(b.count),
		Records:              records,
	}
	start := len(dst)
	dst = head.AppendTo(dst)
	Seal(dst[start:])
	return dst, nil
}

// AppendBatch appends one batch of records to dst; see BatchBuilder.AppendTo.
func AppendBatch(dst []byte, p Producer, compressor kgo.Compressor, records ...Record) ([]byte, error) {
	var b BatchBuilder
	for _, r := range records {
		b.Append(r)
	}
	return b.AppendTo(dst, p, compressor)
}

// Seal writes the CRC of a batch whose other bytes are in place; after a change of a field that the CRC covers. batch is the
// whole batch, at least BatchHeaderBytes.
func Seal(batch []byte) {
	binary.BigEndian.PutUint32(batch[batchCRCAt:], crc32.Checksum(batch[batchAttributesAt:], castagnoli))
}

// Compressor returns the compressor for none, gzip, snappy, lz4 or zstd; nil for none. ok is false for any other name.
func Compressor(name string) (c kgo.Compressor, ok bool) {
	codecs := map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	if name == "none" {
		return nil, true
	}
	codec, ok := codecs[name]
	if !ok {
		return nil, false
	}
	c, err := kgo.DefaultCompressor(codec)
	return c, err == nil
}

func varintBytes(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

func blobBytes(b []byte) int {
	if b == nil {
		return 1 // varint -1
	}
	return varintBytes(int64(len(b))) + len(b)
}

func appendBlob(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}
