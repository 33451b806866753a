package server

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// A look-up by time gives no offset below log start, wherever in a batch that lies, and the first behind it that is late enough, as Kafka does.
func TestTimesBehindDeletedRecords(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		for _, times := range [][]int64{{2000, 5000, 1000}, {1000}, {1500, 2000}, {100, 3000, 3000}, {4000}} { // offsets 0 to 2, 3, 4 and 5, 6 to 8, 9
			var records []kwire.Record
			for _, ms := range times {
				records = append(records, kwire.Record{Value: []byte("x"), Timestamp: ms})
			}
			b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, records...)
			if err != nil {
				t.Fatal(err)
			}
			c.produce("t", 0, -1, b)
		}
		list := func(at int64) (offset, ms int64) {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Timestamp = at
			p := ask[*kmsg.ListOffsetsResponse](c, &kmsg.ListOffsetsRequest{Version: 7, ReplicaID: -1, Topics: []kmsg.ListOffsetsRequestTopic{{
				Topic: "t", Partitions: []kmsg.ListOffsetsRequestTopicPartition{rp},
			}}}).Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				t.Errorf("time %d: error %d", at, p.ErrorCode)
			}
			return p.Offset, p.Timestamp
		}
		const largest = -3
		for _, tc := range []struct{ start, at, offset, ms int64 }{
			{0, 0, 0, 2000}, {0, 2001, 1, 5000}, {0, 5001, -1, -1}, {0, largest, 1, 5000},
			{1, 0, 1, 5000}, {1, largest, 1, 5000},
			{2, 0, 2, 1000}, {2, 1001, 4, 1500}, {2, 2000, 5, 2000}, {2, 2001, 7, 3000}, {2, 3001, 9, 4000}, {2, 4001, -1, -1}, {2, largest, 9, 4000},
			{5, 0, 5, 2000}, {5, 1600, 5, 2000}, {5, 4000, 9, 4000},
			{8, 0, 8, 3000}, {8, 3000, 8, 3000}, {8, largest, 9, 4000},
			{10, 0, -1, -1}, {10, largest, -1, -1},
		} {
			ask[*kmsg.DeleteRecordsResponse](c, &kmsg.DeleteRecordsRequest{Version: 2, TimeoutMillis: 10_000, Topics: []kmsg.DeleteRecordsRequestTopic{{
				Topic: "t", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: tc.start}},
			}}})
			if offset, ms := list(tc.at); offset != tc.offset || ms != tc.ms {
				t.Errorf("log start %d, time %d: offset %d of time %d, want %d of %d", tc.start, tc.at, offset, ms, tc.offset, tc.ms)
			}
		}
	})
}
