package main

import (
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// What a client is never given does not keep consume from a partition's end; what it is given does.
func TestSpanPassesWhatIsNeverHandedOut(t *testing.T) {
	const plain, txn, control = 0, 0x10, 0x30
	batch := func(base, producer int64, attributes uint16) []byte { // of two records
		b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, kwire.Record{Value: []byte("a")}, kwire.Record{Value: []byte("b")})
		if err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint64(b, uint64(base))
		binary.BigEndian.PutUint16(b[21:], attributes)
		binary.BigEndian.PutUint64(b[43:], uint64(producer))
		return b
	}
	for name, tc := range map[string]struct {
		batches       [][]byte
		aborted       map[int64]int64 // producer, first offset
		high, stable  int64
		committed     bool
		errorCode     int16
		next, cutOff  int64
		end, wantNext int64
	}{
		"a gap up to the end":                  {high: 20, stable: 20, next: 5, end: 20, wantNext: 20},
		"a gap, and more is committed":         {high: 30, stable: 10, next: 5, end: 10, committed: true, wantNext: 10},
		"nothing, and the end is not there":    {high: 20, stable: 10, next: 5, end: 20, committed: true, wantNext: 5},
		"an error":                             {high: 20, stable: 20, next: 5, end: 20, errorCode: 6, wantNext: 5},
		"records":                              {batches: [][]byte{batch(4, 1, plain)}, high: 6, next: 4, end: 6, wantNext: 4},
		"aborted records":                      {batches: [][]byte{batch(4, 1, txn), batch(6, 1, txn)}, aborted: map[int64]int64{1: 4}, next: 4, end: 8, wantNext: 8},
		"records of another transaction":       {batches: [][]byte{batch(4, 1, txn), batch(6, 2, txn)}, aborted: map[int64]int64{1: 4}, next: 4, end: 8, wantNext: 6},
		"and the producer's next, committed":   {batches: [][]byte{batch(4, 1, txn), batch(6, 1, control), batch(8, 1, txn)}, aborted: map[int64]int64{1: 4}, next: 4, end: 10, wantNext: 8},
		"before the transaction that aborted":  {batches: [][]byte{batch(4, 1, txn), batch(6, 1, txn)}, aborted: map[int64]int64{1: 6}, next: 4, end: 8, wantNext: 4},
		"marks":                                {batches: [][]byte{batch(4, 1, control)}, next: 4, end: 6, wantNext: 6},
		"a batch that is not there as a whole": {batches: [][]byte{batch(4, 1, control)}, cutOff: 1, next: 4, end: 6, wantNext: 4},
	} {
		p := kmsg.NewFetchResponseTopicPartition()
		p.ErrorCode, p.HighWatermark, p.LastStableOffset = tc.errorCode, tc.high, tc.stable
		for _, b := range tc.batches {
			p.RecordBatches = append(p.RecordBatches, b...)
		}
		p.RecordBatches = p.RecordBatches[:len(p.RecordBatches)-int(tc.cutOff)]
		for producer, first := range tc.aborted {
			p.AbortedTransactions = append(p.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: producer, FirstOffset: first})
		}
		s := &span{next: tc.next, end: tc.end}
		if s.pass(&p, tc.committed); s.next != tc.wantNext {
			t.Errorf("%s: at %d, want %d", name, s.next, tc.wantNext)
		}
	}
}
