package batch

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// build makes a sound batch of count records whose bodies are opaque, then lets edit spoil it and, if sum, sums it again.
func build(count int, sum bool, edit func(b []byte)) []byte {
	rb := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(count - 1), ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(count), MaxTimestamp: 99, Records: []byte("opaque")}
	rb.Length = int32(HeaderBytes - lengthFrom + len(rb.Records))
	b := rb.AppendTo(nil)
	if edit != nil && sum {
		edit(b)
	}
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	if edit != nil && !sum {
		edit(b)
	}
	return b
}

func TestAccept(t *testing.T) {
	be := binary.BigEndian
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"sound", build(3, true, nil), nil},
		{"empty", nil, ErrEmpty},
		{"magic 1", build(3, true, func(b []byte) { b[16] = 1 }), ErrMagic},
		{"cut off", build(3, true, nil)[:60], ErrLength},
		{"a byte more", append(build(3, true, nil), 0), ErrLength},
		{"two batches", append(build(3, true, nil), build(1, true, nil)...), ErrLength},
		{"no records", build(3, true, func(b []byte) { be.PutUint32(b[57:], 0); be.PutUint32(b[23:], ^uint32(0)) }), ErrCount},
		{"delta", build(3, true, func(b []byte) { be.PutUint32(b[23:], 7) }), ErrCount},
		{"checksum", build(3, false, func(b []byte) { b[62] ^= 1 }), ErrCRC},
		{"control", build(1, true, func(b []byte) { b[22] |= attrControl }), ErrControl},
		{"transactional without a producer", build(1, true, func(b []byte) { b[22] |= attrTransactional }), ErrSequence},
		{"codec 5", build(1, true, func(b []byte) { b[22] |= 5 }), ErrCodec},
		{"append time", build(1, true, func(b []byte) { b[22] |= attrLogAppendTime }), ErrTimestamp},
		{"no sequence", build(1, true, func(b []byte) { be.PutUint64(b[43:], 5) }), ErrSequence},
	} {
		if err := new(Info).Accept(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestPatchKeepsTheChecksum(t *testing.T) {
	b := build(3, true, nil)
	Patch(b, 1<<40, 7)
	var i Info
	err := i.Accept(b)
	if err != nil || i.Base != 1<<40 || i.LeaderEpoch != 7 || i.MaxTimestamp != 99 {
		t.Fatalf("%+v, %v", i, err)
	}
}

func FuzzAccept(f *testing.F) {
	f.Add(build(3, true, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var i Info
		if err := i.Accept(b); err == nil && (i.Count <= 0 || len(b) < HeaderBytes || i.Control() || i.Codec() >= len(Codecs)) {
			t.Fatalf("taken: %+v", i)
		}
	})
}
