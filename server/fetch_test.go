package server

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchAll is a Fetch request, version 12, from offset 0 of the partitions 0 to n-1.
func fetchAll(topic string, n int32) *kmsg.FetchRequest {
	req := fetchFrom(topic, 0, 0)
	for i := int32(1); i < n; i++ {
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, fetchFrom(topic, i, 0).Topics[0].Partitions...)
	}
	return req
}

func TestFetchOffsets(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		c.produce("t", 0, -1, values("0", "1", "2"))
		c.produce("t", 0, -1, values("3", "4"))
		c.produce("t", 0, -1, values("5"))
		ask[*kmsg.DeleteRecordsResponse](c, &kmsg.DeleteRecordsRequest{Version: 2, TimeoutMillis: 10_000, Topics: []kmsg.DeleteRecordsRequestTopic{{
			Topic: "t", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 1}},
		}}})
		e := n.epoch()
		for _, tc := range []struct {
			name          string
			offset        int64
			current, last int32 // epochs that the client knows
			want          *kerr.Error
			first         int64 // offset of the first batch; -1: none comes
			diverging     int32
		}{
			{"log start lies in the batch", 1, -1, -1, nil, 0, -1},
			{"the batch's last", 2, -1, -1, nil, 0, -1},
			{"a batch's first", 3, -1, -1, nil, 3, -1},
			{"inside", 4, e, e, nil, 3, -1},
			{"the last", 5, e, -1, nil, 5, -1},
			{"high watermark", 6, -1, -1, nil, -1, -1},
			{"past it", 7, -1, -1, kerr.OffsetOutOfRange, -1, -1},
			{"below log start", 0, -1, -1, kerr.OffsetOutOfRange, -1, -1},
			{"below 0", -1, -1, -1, kerr.OffsetOutOfRange, -1, -1},
			{"behind in the leader epoch", 1, e - 1, -1, kerr.FencedLeaderEpoch, -1, -1},
			{"ahead in the leader epoch", 1, e + 1, -1, kerr.UnknownLeaderEpoch, -1, -1},
			{"past the end of the epoch it knows", 7, -1, e, nil, -1, e},
		} {
			req := fetchFrom("t", 0, tc.offset)
			req.Topics[0].Partitions[0].CurrentLeaderEpoch, req.Topics[0].Partitions[0].LastFetchedEpoch = tc.current, tc.last
			got := c.fetched(req)
			if want := code(tc.want); got.ErrorCode != want || got.HighWatermark != 6 || got.LogStartOffset != 1 || got.DivergingEpoch.Epoch != tc.diverging {
				t.Errorf("%s: error %d, %d to %d, diverging %+v; want error %d", tc.name, got.ErrorCode, got.LogStartOffset, got.HighWatermark, got.DivergingEpoch, want)
			}
			first := int64(-1)
			if batches := parse(t, got.RecordBatches); len(batches) > 0 {
				first = batches[0].FirstOffset
			}
			if first != tc.first {
				t.Errorf("%s: the first batch is at %d, want %d", tc.name, first, tc.first)
			}
		}
		for _, tc := range []struct {
			topic     string
			partition int32
		}{{"none", 0}, {"t", 1}, {"t", -1}} {
			if got := c.fetched(fetchFrom(tc.topic, tc.partition, 0)); got.ErrorCode != kerr.UnknownTopicOrPartition.Code {
				t.Errorf("%s-%d: error %d", tc.topic, tc.partition, got.ErrorCode)
			}
		}
		session := fetchFrom("t", 0, 1)
		session.SessionID = 5
		if got := ask[*kmsg.FetchResponse](c, session); got.ErrorCode != kerr.FetchSessionIDNotFound.Code || len(got.Topics) != 0 {
			t.Errorf("a session: %+v", got)
		}
	})
}

// Limits count whole batches; the first partition that has something gives one batch in any case, and which partition is first changes.
func TestFetchLimits(t *testing.T) {
	const partitions, size = 3, 1000
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", partitions)
		c.create("empty", 1)
		var one int
		for p := range int32(partitions) {
			for range 4 {
				b := values(strings.Repeat("x", size))
				one = len(b)
				c.produce("t", p, -1, b)
			}
		}
		for _, tc := range []struct {
			total, each int
			want        []int // batches of each partition, from the one that is first
		}{
			{0, 0, []int{1, 0, 0}},
			{1, 1, []int{1, 0, 0}},
			{1, 1 << 20, []int{1, 0, 0}},
			{1 << 20, 1, []int{1, 0, 0}},
			{1 << 20, one, []int{1, 1, 1}},
			{1 << 20, 3*one - 1, []int{2, 2, 2}},
			{1 << 20, 1 << 20, []int{4, 4, 4}},
			{5 * one, 1 << 20, []int{4, 1, 0}},
			{5*one - 1, 1 << 20, []int{4, 0, 0}},
		} {
			firsts := map[int]bool{}
			for range 4 * partitions {
				req := fetchAll("t", partitions)
				req.MaxBytes = int32(tc.total)
				for i := range req.Topics[0].Partitions {
					req.Topics[0].Partitions[i].PartitionMaxBytes = int32(tc.each)
				}
				var got []int
				for _, p := range ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions {
					if p.ErrorCode != 0 || len(p.RecordBatches)%one != 0 {
						t.Fatalf("partition %d: error %d, %d bytes", p.Partition, p.ErrorCode, len(p.RecordBatches))
					}
					got = append(got, len(p.RecordBatches)/one)
				}
				first := -1
				for i := range got {
					if fmt.Sprint(append(append([]int{}, got[i:]...), got[:i]...)) == fmt.Sprint(tc.want) {
						first = i
					}
				}
				if first < 0 {
					t.Fatalf("max_bytes %d, partition_max_bytes %d: %d batches, want %d in some turn", tc.total, tc.each, got, tc.want)
				}
				firsts[first] = true
			}
			if tc.want[0] != tc.want[2] && len(firsts) != partitions {
				t.Errorf("max_bytes %d: only the partitions %v came first", tc.total, firsts)
			}
		}
		// An empty partition and one with an error before it do not take the first one's right to a whole batch.
		req := fetchFrom("empty", 0, 0)
		req.MaxBytes = 1
		req.Topics = append(req.Topics, fetchFrom("none", 0, 0).Topics[0], fetchFrom("t", 0, 0).Topics[0])
		for range 3 {
			if got := ask[*kmsg.FetchResponse](c, req).Topics[2].Partitions[0]; len(got.RecordBatches) != one {
				t.Errorf("behind an empty partition: %d bytes, want %d", len(got.RecordBatches), one)
			}
		}
	})
}

func TestFetchWaits(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c, other := n.dial(t), n.dial(t)
		c.create("t", 3)
		wait := func(req *kmsg.FetchRequest, ms, minBytes int32) *kmsg.FetchRequest {
			req.MaxWaitMillis, req.MinBytes = ms, minBytes
			return req
		}
		parts := func(resp kmsg.Response) []kmsg.FetchResponseTopicPartition {
			return resp.(*kmsg.FetchResponse).Topics[0].Partitions
		}

		// Another connection's produce to any of the partitions wakes it, at every level.
		for i, acks := range []int16{-1, 1, 101, 103, 0} {
			req := wait(fetchAll("t", 3), 30_000, 1)
			for k := range req.Topics[0].Partitions {
				req.Topics[0].Partitions[k].FetchOffset = int64(i)
			}
			begin, id := time.Now(), c.send(req)
			eventually(t, "the fetch runs", n.waiting)
			for k := range int32(3) {
				p := (int32(i) + k) % 3 // another one is first each time
				other.send(produceTo("t", p, acks, values(fmt.Sprint(i))))
				if k > 0 {
					continue
				}
				got := parts(c.receive(req, id))[p]
				if b := parse(t, got.RecordBatches); len(b) != 1 || b[0].FirstOffset != int64(i) || got.HighWatermark != int64(i)+1 {
					t.Errorf("acks %d: woken with %+v", acks, got)
				}
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("acks %d: woken after %s", acks, took)
				}
			}
			other = n.dial(t) // leaves the responses
			eventually(t, "all is written", func() bool {
				return len(other.read("t", 0)) == i+1 && len(other.read("t", 1)) == i+1 && len(other.read("t", 2)) == i+1
			})
		}

		// min_bytes: the first batch is not enough, two are.
		b := values(strings.Repeat("x", 1000))
		req := wait(fetchFrom("t", 0, 5), 30_000, int32(len(b)+1))
		id := c.send(req)
		other.produce("t", 0, -1, bytes.Clone(b))
		silent(t, "less than min_bytes", c)
		other.produce("t", 0, -1, bytes.Clone(b))
		if got := parts(c.receive(req, id))[0]; len(got.RecordBatches) != 2*len(b) {
			t.Errorf("min_bytes %d: got %d", req.MinBytes, len(got.RecordBatches))
		}

		// max_wait ends it with what there is: here one batch of less than min_bytes, and nothing.
		for _, tc := range []struct{ offset, bytes int }{{6, len(b)}, {7, 0}} {
			begin := time.Now()
			got := parts(ask[*kmsg.FetchResponse](c, wait(fetchFrom("t", 0, int64(tc.offset)), 60, 1<<20)))[0]
			if took := time.Since(begin); took < 55*time.Millisecond || got.ErrorCode != 0 || len(got.RecordBatches) != tc.bytes || got.HighWatermark != 7 {
				t.Errorf("max_wait 60 ms from %d: %d bytes after %s, error %d", tc.offset, len(got.RecordBatches), took, got.ErrorCode)
			}
		}

		// What has to be said is said at once.
		nothing := fetchFrom("t", 0, 0)
		nothing.Topics = nil
		broken := fetchFrom("t", 0, 7)
		broken.Topics[0].Partitions = append(broken.Topics[0].Partitions, fetchFrom("t", 9, 0).Topics[0].Partitions...)
		for name, req := range map[string]*kmsg.FetchRequest{
			"min_bytes 0": wait(fetchFrom("t", 0, 7), 30_000, 0), "an error in one partition": wait(broken, 30_000, 1), "no partitions": wait(nothing, 30_000, 1),
		} {
			begin := time.Now()
			id := n.dial(t).deadline(3*time.Second, req)
			if took := time.Since(begin); !id || took > 2*time.Second {
				t.Errorf("%s: no answer within %s", name, took)
			}
		}
	})
}

// deadline says whether a response comes in time.
func (c *client) deadline(d time.Duration, req kmsg.Request) bool {
	c.send(req)
	c.NetConn().SetReadDeadline(time.Now().Add(d))
	n, _ := c.NetConn().Read(make([]byte, 1))
	return n == 1
}

// All answers share one budget of memory: fetches that do not fit wait for others to be sent, and all of them end.
func TestFetchesShareMemory(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		var want []string
		for i := range 30 {
			want = append(want, fmt.Sprint(i, strings.Repeat("x", 50_000)))
			c.produce("t", 0, -1, values(want[i]))
		}
		done := make(chan string, 8)
		for range cap(done) {
			c := n.dial(t)
			go func() { done <- strings.Join(c.read("t", 0), "\n") }()
		}
		for range cap(done) {
			select {
			case got := <-done:
				if got != strings.Join(want, "\n") {
					t.Errorf("%d bytes, want others", len(got))
				}
			case <-time.After(patience):
				t.Fatal("fetches wait for each other")
			}
		}
		var ids []int32
		for range 16 { // in one connection: none may hold memory while one before it waits for it
			ids = append(ids, c.send(fetchFrom("t", 0, 0)))
		}
		for _, id := range ids {
			if got := onlyFetched(c.receive(fetchFrom("t", 0, 0), id)); got.ErrorCode != 0 || len(got.RecordBatches) == 0 {
				t.Errorf("pipelined: error %d, %d bytes", got.ErrorCode, len(got.RecordBatches))
			}
		}
	}, func(c *config) { c.server.Kafka.FetchMemoryBytes = testMessageMax + 100<<10 })
}

// What an answer holds is what it brings, however many partitions had batches that were too large for it.
func TestFetchMemoryIsOfWhatIsBrought(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		const partitions, size = 40, 100_000
		c := n.dial(t)
		c.create("t", partitions)
		all := fetchFrom("t", 0, 0)
		all.Topics[0].Partitions = nil
		for k := range int32(partitions) {
			c.produce("t", k, -1, values("small"))
			c.produce("t", k, -1, values(strings.Repeat("x", size)))
			all.Topics[0].Partitions = append(all.Topics[0].Partitions, fetchFrom("t", k, 1).Topics[0].Partitions...)
		}
		all.MaxBytes = 2*size + size/2
		stuck := n.dial(t)
		stuck.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
		for range 200 {
			stuck.send(all)
		}
		eventually(t, "an answer is stuck", func() bool { return n.srv.broker.FetchMemory().Bytes >= 2*size })
		if m := n.srv.broker.FetchMemory(); m.Bytes > 3*size {
			t.Errorf("%d bytes are held for %d", m.Bytes, 2*size)
		}
		for k := range all.Topics[0].Partitions { // a small batch that fits, and a large one that does not
			all.Topics[0].Partitions[k].FetchOffset = 0
		}
		all.MaxBytes = size / 2
		brought := 0
		for _, p := range ask[*kmsg.FetchResponse](c, all).Topics[0].Partitions {
			brought += len(p.RecordBatches)
		}
		if brought == 0 || brought > size/2 {
			t.Errorf("%d bytes are brought", brought)
		}
		stuck.Close()
		eventually(t, "all is given back", func() bool { return n.srv.broker.FetchMemory().Bytes == 0 })
	})
}
