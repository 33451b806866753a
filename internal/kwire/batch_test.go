package kwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var sample = []Record{
	{Key: []byte("k"), Value: []byte("v"), Timestamp: 1_700_000_000_000},
	{Value: []byte{}, Timestamp: 1_700_000_000_500},
	{Key: []byte{}, Timestamp: 1_699_999_999_999}, // null value, before the first
	{Value: bytes.Repeat([]byte("tide"), 5000), Timestamp: 1_700_000_000_001, Headers: []Header{{Key: "h", Value: []byte("x")}, {Key: "null"}}},
}

func TestBatchReadsBack(t *testing.T) {
	producers := map[string]Producer{"none": NoProducer, "idempotent": {ID: 7, Epoch: 2, Sequence: 41}}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for name, producer := range producers {
			t.Run(codec+"/"+name, func(t *testing.T) {
				compressor, ok := Compressor(codec)
				if !ok {
					t.Fatal("unknown compressor")
				}
				b, err := AppendBatch([]byte("before"), producer, compressor, sample...)
				if err != nil {
					t.Fatal(err)
				}
				b = b[len("before"):]

				// With kmsg and nothing of ours.
				var head kmsg.RecordBatch
				if err := head.ReadFrom(b); err != nil {
					t.Fatal(err)
				}
				if got := int32(crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli))); head.CRC != got {
					t.Errorf("CRC %08x, over the bytes %08x", head.CRC, got)
				}
				if int(head.Length) != len(b)-12 || head.Magic != 2 || head.NumRecords != 4 || head.LastOffsetDelta != 3 || head.PartitionLeaderEpoch != -1 || head.FirstOffset != 0 {
					t.Errorf("header: %+v", head)
				}
				if head.ProducerID != producer.ID || head.ProducerEpoch != producer.Epoch || head.FirstSequence != producer.Sequence {
					t.Errorf("producer %d %d %d, want %+v", head.ProducerID, head.ProducerEpoch, head.FirstSequence, producer)
				}
				if head.FirstTimestamp != sample[0].Timestamp || head.MaxTimestamp != sample[1].Timestamp {
					t.Errorf("timestamps %d to %d", head.FirstTimestamp, head.MaxTimestamp)
				}

				batches, err := ParseBatches(append(b[:len(b):len(b)], b[:len(b)-1]...)) // and one that is cut off
				if err != nil || len(batches) != 1 {
					t.Fatalf("%d batches, %v", len(batches), err)
				}
				if got := batches[0].Unpacked; !reflect.DeepEqual(got, sample) {
					t.Errorf("records:\n got %+v\nwant %+v", got, sample)
				}
			})
		}
	}
}

func TestBuilderSizes(t *testing.T) {
	var b BatchBuilder
	for i, r := range sample {
		want := b.BytesWith(r)
		b.Append(r)
		out, err := b.AppendTo(nil, NoProducer, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.Bytes() != want || len(out) != want || b.Len() != i+1 {
			t.Errorf("after record %d: foretold %d, Bytes %d, built %d", i, want, b.Bytes(), len(out))
		}
	}
	b.Reset()
	if b.Bytes() != 0 || b.Len() != 0 {
		t.Errorf("after Reset: %d bytes, %d records", b.Bytes(), b.Len())
	}
}

func TestProducerSequenceWraps(t *testing.T) {
	p := Producer{Sequence: 1<<31 - 2}
	if got := p.Advance(1).Sequence; got != 1<<31-1 {
		t.Errorf("one before the last plus one: %d", got)
	}
	if got := p.Advance(5).Sequence; got != 3 {
		t.Errorf("wrapped: %d, want 3", got)
	}
}

func TestParseRefusesUnsound(t *testing.T) {
	sound, err := AppendBatch(nil, NoProducer, nil, sample...)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		break_ func(b []byte)
		reseal bool
	}{
		{"flipped byte in a record", func(b []byte) { b[len(b)-1] ^= 1 }, false},
		{"magic 1", func(b []byte) { b[batchMagicAt] = 1 }, false},
		{"length below a header", func(b []byte) { binary.BigEndian.PutUint32(b[batchLengthAt:], 48) }, false},
		{"negative length", func(b []byte) { binary.BigEndian.PutUint32(b[batchLengthAt:], 1<<31) }, false},
		{"count larger than the records", func(b []byte) { binary.BigEndian.PutUint32(b[57:], 5) }, true},
		{"count smaller than the records", func(b []byte) { binary.BigEndian.PutUint32(b[57:], 3) }, true},
		{"huge count", func(b []byte) { binary.BigEndian.PutUint32(b[57:], 1<<31-1) }, true},
		{"record longer than the batch", func(b []byte) { b[BatchHeaderBytes] = 0x7e }, true},
		{"says gzip, is not", func(b []byte) { b[22] = 1 }, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			b := bytes.Clone(sound)
			tc.break_(b)
			if tc.reseal {
				Seal(b)
			}
			if batches, err := ParseBatches(b); !errors.Is(err, ErrBatch) || len(batches) != 0 {
				t.Errorf("%d batches, error %v", len(batches), err)
			}
		})
	}
}

// The decompressors are left out: they are a library's, and a few bytes may honestly unpack to gigabytes.
func FuzzParseBatches(f *testing.F) {
	b, err := AppendBatch(nil, NoProducer, nil, sample[:3]...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) >= BatchHeaderBytes {
			b[batchAttributesAt+1] &^= compressionMask
			Seal(b) // or the CRC keeps the fuzzer out
		}
		ParseBatches(b)
	})
}
