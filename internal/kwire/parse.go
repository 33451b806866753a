package kwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrBatch is wrapped by every error about bytes that are no sound record batch.
var ErrBatch = errors.New("unsound record batch")

// Batch is one checked and unpacked batch.
type Batch struct {
	kmsg.RecordBatch          // the header; its Records still as they were on the wire
	Unpacked         []Record // decompressed; they alias the decompressed bytes
}

// Offset is the logical offset of record i.
func (b *Batch) Offset(i int) int64 { return b.FirstOffset + int64(i) }

// ParseBatches checks and unpacks the batches of a fetch response or a produce request. A batch that is cut off at the end, as
// fetches may have, ends the list without an error; any other unsoundness is an error that wraps ErrBatch, with the batches before it.
// It trusts the decompressed size: for tests and tools, not for servers.
func ParseBatches(b []byte) ([]Batch, error) {
	var batches []Batch
	for at := 0; len(b)-at >= batchLengthAt+4; {
		length := int(int32(binary.BigEndian.Uint32(b[at+batchLengthAt:])))
		if length < BatchHeaderBytes-batchLengthAt-4 {
			return batches, fmt.Errorf("%w at byte %d: length %d", ErrBatch, at, length)
		}
		end := at + batchLengthAt + 4 + length
		if end > len(b) {
			break
		}
		batch, err := parseBatch(b[at:end])
		if err != nil {
			return batches, fmt.Errorf("%w at byte %d: %w", ErrBatch, at, err)
		}
		batches = append(batches, batch)
		at = end
	}
	return batches, nil
}

func parseBatch(b []byte) (Batch, error) {
	var batch Batch
	if b[batchMagicAt] != batchMagic {
		return batch, fmt.Errorf("magic %d", b[batchMagicAt])
	}
	if want, got := binary.BigEndian.Uint32(b[batchCRCAt:]), crc32.Checksum(b[batchAttributesAt:], castagnoli); want != got {
		return batch, fmt.Errorf("CRC %08x in the header, %08x over the bytes", want, got)
	}
	if err := batch.RecordBatch.ReadFrom(b); err != nil {
		return batch, err
	}
	codec := kgo.CompressionCodecType(batch.Attributes & compressionMask)
	raw, err := kgo.DefaultDecompressor().Decompress(batch.Records, codec)
	if err != nil {
		return batch, err
	}
	if batch.NumRecords < 0 || int(batch.NumRecords) > len(raw) {
		return batch, fmt.Errorf("%d records in %d bytes", batch.NumRecords, len(raw))
	}
	batch.Unpacked = make([]Record, 0, batch.NumRecords)
	for i := range int(batch.NumRecords) {
		length, n := binary.Varint(raw)
		if n <= 0 || length < 0 || length > int64(len(raw)-n) {
			return batch, fmt.Errorf("record %d: bad length", i)
		}
		var r kmsg.Record
		if err := r.ReadFrom(raw[:n+int(length)]); err != nil {
			return batch, fmt.Errorf("record %d: %w", i, err)
		}
		if int(r.OffsetDelta) != i {
			return batch, fmt.Errorf("record %d: offset delta %d", i, r.OffsetDelta)
		}
		rec := Record{Key: r.Key, Value: r.Value, Timestamp: batch.FirstTimestamp + r.TimestampDelta64}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, Header{Key: h.Key, Value: h.Value})
		}
		batch.Unpacked = append(batch.Unpacked, rec)
		raw = raw[n+int(length):]
	}
	if len(raw) > 0 {
		return batch, fmt.Errorf("%d bytes after the last record", len(raw))
	}
	return batch, nil
}
