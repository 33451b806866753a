package kafka

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What is laid out with lent bytes in between is byte for byte what kmsg makes of the same response, at every version that is served.
func TestFetchLayout(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for version := lookup(int16(kmsg.Fetch)).min; version <= lookup(int16(kmsg.Fetch)).max; version++ {
		for round := range 50 {
			f := &FetchAnswer{FetchResponse: kmsg.NewPtrFetchResponse()}
			f.Version, f.ThrottleMillis, f.ErrorCode = version, random.Int32(), int16(random.IntN(100))
			for range random.IntN(4) {
				rt := kmsg.NewFetchResponseTopic()
				rt.Topic = fmt.Sprintf("t%0*d", random.IntN(200), 1)
				rt.TopicID[3] = byte(random.Uint32())
				for k := range random.IntN(5) {
					p := kmsg.NewFetchResponseTopicPartition()
					p.Partition, p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = int32(k), int16(random.IntN(2)), random.Int64(), random.Int64(), random.Int64()
					if random.IntN(2) == 0 {
						p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
						for range random.IntN(3) {
							a := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
							a.ProducerID, a.FirstOffset = random.Int64(), random.Int64()
							p.AbortedTransactions = append(p.AbortedTransactions, a)
						}
					}
					switch random.IntN(4) {
					case 0:
						p.RecordBatches = []byte{}
					case 1:
						p.RecordBatches = bytes.Repeat([]byte{7}, random.IntN(lendFrom))
					case 2:
						p.RecordBatches = bytes.Repeat([]byte{8}, lendFrom+random.IntN(3)*lendFrom*lendFrom/50)
					}
					if random.IntN(3) == 0 {
						p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = random.Int32(), random.Int64()
					}
					rt.Partitions = append(rt.Partitions, p)
				}
				f.Topics = append(f.Topics, rt)
			}
			l, memory := f.LayOut(4711)
			if len(l.Small) > cap(memory.Bytes()) || cap(l.Small) != cap(memory.Bytes()) {
				t.Fatalf("version %d: %d bytes did not fit into the %d that were counted", version, len(l.Small), cap(memory.Bytes()))
			}
			got, from := []byte(nil), 0
			for _, lent := range l.Lent {
				got = append(append(got, l.Small[from:lent.After]...), lent.Bytes...)
				from = lent.After
			}
			got = append(got, l.Small[from:]...)
			if want := AppendResponse(nil, 4711, f.FetchResponse); !bytes.Equal(got, want) {
				t.Fatalf("version %d, round %d: %d bytes, kmsg has %d: %+v", version, round, len(got), len(want), f.FetchResponse)
			}
			if len(got) != l.Bytes() {
				t.Fatalf("%d bytes, %d are counted", len(got), l.Bytes())
			}
			memory.Put()
		}
	}
}
