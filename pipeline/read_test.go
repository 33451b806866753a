package pipeline

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// Read lays batches one behind the other whatever stands before them, which stays as it was, from the cache and from disk.
func TestReadLeavesWhatStandsBefore(t *testing.T) {
	p := open(t, testOptions(vfs.NewMem()))
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	for i := range 300 { // more than the cache has
		r := produce(qos.Persistence, part, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", i*i%9000)), -1, -1, -1))
		if w.wait(t, w.submit(t, p, r)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	p.CatchUp()
	for _, from := range []journal.LogicalOffset{0, 1, 150, 290, 299} {
		want, err := p.Read(part, from, part.HighWatermark(), 1<<30, true, nil)
		if err != nil || len(want) == 0 {
			t.Fatalf("from %d: %d bytes, %v", from, len(want), err)
		}
		for lead := range 2*journal.RecordHeaderBytes + 1 {
			for _, room := range []int{0, len(want) + journal.RecordHeaderBytes} {
				before := bytes.Repeat([]byte{byte(lead + 1)}, lead)
				dst := append(make([]byte, 0, lead+room), before...)
				got, err := p.Read(part, from, part.HighWatermark(), 1<<30, true, dst)
				if err != nil || !bytes.Equal(got[:lead], before) || !bytes.Equal(got[lead:], want) {
					t.Fatalf("from %d behind %d bytes: %v, what stood before is kept: %v, as without: %v", from, lead, err, bytes.Equal(got[:lead], before), bytes.Equal(got[lead:], want))
				}
				if got, err := p.Read(part, part.HighWatermark()+1, part.HighWatermark()+2, 1, true, dst); err == nil || !bytes.Equal(got, before) {
					t.Fatalf("out of range: %d bytes, %v", len(got), err)
				}
			}
		}
	}
}
