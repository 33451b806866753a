package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/batch"
	"tidemark/internal/kwire"
)

// edited is a batch of one record with some header bytes changed, and its checksum made good again.
func edited(edit func(b []byte)) []byte {
	b := values("x")
	edit(b)
	kwire.Seal(b)
	return b
}

func attribute(bits byte) []byte { return edited(func(b []byte) { b[22] |= bits }) }

func compressor(name string) kgo.Compressor {
	c, ok := kwire.Compressor(name)
	if !ok {
		panic(name)
	}
	return c
}

func TestProduceRefuses(t *testing.T) {
	be := binary.BigEndian
	large := values(strings.Repeat("x", testMessageMax))
	spoilt := values("x")
	spoilt[len(spoilt)-1] ^= 1
	none := kwire.NoProducer
	type edit = func(r *kmsg.ProduceRequest)
	to := func(records []byte, edits ...edit) *kmsg.ProduceRequest {
		r := produceTo("t", 0, -1, records)
		for _, e := range edits {
			e(r)
		}
		return r
	}
	acks := func(n int16) edit { return func(r *kmsg.ProduceRequest) { r.Acks = n } }
	version := func(v int16) edit { return func(r *kmsg.ProduceRequest) { r.Version = v } }
	topic := func(name string, partition int32) edit {
		return func(r *kmsg.ProduceRequest) {
			r.Topics[0].Topic, r.Topics[0].Partitions[0].Partition = name, partition
		}
	}
	cases := []struct {
		name string
		req  *kmsg.ProduceRequest
		want *kerr.Error
	}{
		{"unknown topic", to(values("x"), topic("none", 0)), kerr.UnknownTopicOrPartition},
		{"partition too high", to(values("x"), topic("t", 1)), kerr.UnknownTopicOrPartition},
		{"partition below 0", to(values("x"), topic("t", -1)), kerr.UnknownTopicOrPartition},
		{"unknown id", to(values("x"), version(13), func(r *kmsg.ProduceRequest) { r.Topics[0].TopicID = [16]byte{1} }), kerr.UnknownTopicID},
		{"zero id", to(values("x"), version(13)), kerr.UnknownTopicID},
		{"acks 5", to(values("x"), acks(5)), kerr.InvalidRequiredAcks},
		{"acks 100", to(values("x"), acks(100)), kerr.InvalidRequiredAcks},
		{"acks 105", to(values("x"), acks(105)), kerr.InvalidRequiredAcks},
		{"acks -2", to(values("x"), acks(-2)), kerr.InvalidRequiredAcks},
		{"null records", to(nil), kerr.InvalidRecord},
		{"empty records", to([]byte{}), kerr.InvalidRecord},
		{"magic 0", to(edited(func(b []byte) { b[16] = 0 })), kerr.InvalidRecord},
		{"magic 1", to(edited(func(b []byte) { b[16] = 1 })), kerr.InvalidRecord},
		{"two batches", to(append(values("x"), values("y")...)), kerr.InvalidRecord},
		{"cut off", to(values("x")[:60]), kerr.InvalidRecord},
		{"a byte more", to(append(values("x"), 0)), kerr.InvalidRecord},
		{"no records in the batch", to(edited(func(b []byte) { be.PutUint32(b[57:], 0); be.PutUint32(b[23:], 1<<32-1) })), kerr.InvalidRecord},
		{"count and last offset differ", to(edited(func(b []byte) { be.PutUint32(b[23:], 9) })), kerr.InvalidRecord},
		{"count below 0", to(edited(func(b []byte) { be.PutUint32(b[57:], 1<<31); be.PutUint32(b[23:], 1<<31-1) })), kerr.InvalidRecord},
		{"checksum", to(spoilt), kerr.CorruptMessage},
		{"over max.message.bytes", to(large), kerr.MessageTooLarge},
		{"over the topic's max.message.bytes", to(values(strings.Repeat("x", 1000)), topic("small", 0)), kerr.MessageTooLarge},
		{"zstd before version 7", to(sequenced(none, compressor("zstd"), "x"), version(6)), kerr.UnsupportedCompressionType},
		{"codec 5", to(attribute(5)), kerr.InvalidRecord},
		{"LogAppendTime", to(attribute(1 << 3)), kerr.InvalidTimestamp},
		{"transactional batch without a producer", to(attribute(1 << 4)), kerr.InvalidRecord},
		{"transactional batch in another request", to(transactional(sequenced(kwire.Producer{ID: 5}, nil, "x"))), kerr.InvalidTxnState},
		{"control batch", to(attribute(1 << 5)), kerr.InvalidRecord},
		{"transactional request", to(values("x"), func(r *kmsg.ProduceRequest) { r.TransactionID = ptr("txn") }), kerr.InvalidTxnState},
		{"producer id without a sequence", to(sequenced(kwire.Producer{ID: 5, Epoch: 0, Sequence: -1}, nil, "x")), kerr.InvalidRecord},
		{"producer id without an epoch", to(sequenced(kwire.Producer{ID: 5, Epoch: -1, Sequence: 0}, nil, "x")), kerr.InvalidRecord},
	}
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		c.create("small", 1, "max.message.bytes", "1000")
		for _, tc := range cases {
			resp := ask[*kmsg.ProduceResponse](c, tc.req)
			got := onlyPart(resp)
			if got.ErrorCode != tc.want.Code || got.BaseOffset != -1 || got.Partition != tc.req.Topics[0].Partitions[0].Partition || tc.req.Version < 13 && resp.Topics[0].Topic != tc.req.Topics[0].Topic {
				t.Errorf("%s: %+v, want error %d", tc.name, got, tc.want.Code)
			}
		}
		// With acks=0 there is no answer but the end of the connection.
		for _, tc := range cases {
			if tc.req.Acks == -1 {
				one := *tc.req
				one.Acks = 0
				c := n.dial(t)
				c.send(&one)
				c.ended("acks=0: " + tc.name)
				c.Close()
			}
		}
		if base := c.produce("t", 0, -1, values("x")); base != 0 {
			t.Errorf("base offset %d: something that was refused was written", base)
		}
	})
}

func TestIdempotence(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		for _, s := range []struct {
			name            string
			epoch           int16
			sequence, count int32
			want            *kerr.Error
			base            int64
		}{
			{"first", 0, 0, 3, nil, 0},
			{"next", 0, 3, 2, nil, 3},
			{"the first again", 0, 0, 3, nil, 0},
			{"the next again", 0, 3, 2, nil, 3},
			{"a gap", 0, 6, 1, kerr.OutOfOrderSequenceNumber, -1},
			{"same sequence, another count", 0, 3, 1, kerr.OutOfOrderSequenceNumber, -1},
			{"goes on", 0, 5, 1, nil, 5},
			{"a new epoch does not begin at 0", 1, 6, 1, kerr.OutOfOrderSequenceNumber, -1},
			{"a new epoch", 1, 0, 1, nil, 6},
			{"the old epoch", 0, 6, 1, kerr.InvalidProducerEpoch, -1},
			{"the old epoch's last batch again", 0, 5, 1, kerr.InvalidProducerEpoch, -1},
			{"the new epoch goes on", 1, 1, 1, nil, 7},
		} {
			b := sequenced(kwire.Producer{ID: 42, Epoch: s.epoch, Sequence: s.sequence}, nil, make([]string, s.count)...)
			got := onlyPart(ask[*kmsg.ProduceResponse](c, produceTo("t", 0, -1, b)))
			if want := code(s.want); got.ErrorCode != want || got.BaseOffset != s.base {
				t.Errorf("%s: error %d, base offset %d; want %d, %d", s.name, got.ErrorCode, got.BaseOffset, want, s.base)
			}
		}
		if got := len(c.read("t", 0)); got != 8 {
			t.Errorf("%d records, want 8", got)
		}
		// A batch and its retries in one breath, with nobody waiting in between.
		var reqs []*kmsg.ProduceRequest
		var ids []int32
		for i := range 10 {
			reqs = append(reqs, produceTo("t", 0, -1, sequenced(kwire.Producer{ID: 43, Epoch: 0, Sequence: int32(i / 2)}, nil, "x")))
			ids = append(ids, c.send(reqs[i]))
		}
		for i, id := range ids {
			if got := onlyPart(c.receive(reqs[i], id)); got.ErrorCode != 0 || got.BaseOffset != 8+int64(i/2) {
				t.Errorf("pipelined %d: error %d, base offset %d", i, got.ErrorCode, got.BaseOffset)
			}
		}
	})
}

func code(e *kerr.Error) int16 {
	if e == nil {
		return 0
	}
	return e.Code
}

func TestAcksZeroIsNotAnswered(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			c.send(produceTo("t", 0, 0, values(want[i])))
		}
		c.produce("t", 0, -1, values("fence")) // its response is the next one: receive compares ids
		if got := c.read("t", 0); fmt.Sprint(got) != fmt.Sprint(append(want, "fence")) {
			t.Errorf("the partition holds %q", got)
		}
	})
}

// Several topics and partitions in one request: each has its own answer, in the request's order, and those that are good are written whatever becomes of the others.
func TestProduceToSeveral(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("a", 3)
		c.create("b", 1)
		part := func(i int32, records []byte) kmsg.ProduceRequestTopicPartition {
			return kmsg.ProduceRequestTopicPartition{Partition: i, Records: records}
		}
		req := produceTo("", 0, -1, nil)
		req.Topics = []kmsg.ProduceRequestTopic{
			{Topic: "b", Partitions: []kmsg.ProduceRequestTopicPartition{part(0, values("b0", "b0"))}},
			{Topic: "none", Partitions: []kmsg.ProduceRequestTopicPartition{part(0, values("x"))}},
			{Topic: "a"},
			{Topic: "a", Partitions: []kmsg.ProduceRequestTopicPartition{part(2, values("a2")), part(1, nil), part(0, values("a0")), part(9, values("x")), part(2, values("a2 again"))}},
		}
		resp := ask[*kmsg.ProduceResponse](c, req)
		var got []string
		for _, rt := range resp.Topics {
			got = append(got, rt.Topic)
			for _, p := range rt.Partitions {
				got = append(got, fmt.Sprintf("%d:%d@%d", p.Partition, p.ErrorCode, p.BaseOffset))
			}
		}
		if g, want := strings.Join(got, " "), "b 0:0@0 none 0:3@-1 a a 2:0@0 1:87@-1 0:0@0 9:3@-1 2:0@1"; g != want {
			t.Errorf("answers %s, want %s", g, want)
		}
		if got := fmt.Sprint(c.read("b", 0), c.read("a", 0), c.read("a", 1), c.read("a", 2)); got != "[b0 b0] [a0] [] [a2 a2 again]" {
			t.Errorf("the partitions hold %s", got)
		}

		// Together they do not fit a frame: none of it is written.
		big := values(strings.Repeat("x", 100<<10))
		req.Topics = []kmsg.ProduceRequestTopic{{Topic: "a", Partitions: []kmsg.ProduceRequestTopicPartition{part(0, big), part(1, big), part(2, big)}}}
		for _, p := range ask[*kmsg.ProduceResponse](c, req).Topics[0].Partitions {
			if p.ErrorCode != kerr.MessageTooLarge.Code || p.BaseOffset != -1 {
				t.Errorf("a request larger than a frame: %+v", p)
			}
		}
		if got := fmt.Sprint(c.read("a", 0), c.read("a", 1)); got != "[a0] []" {
			t.Errorf("the partitions hold %s", got)
		}
	})
}

// Levels and kinds of requests are mixed on one connection: what is ready waits for what was asked before it.
func TestResponsesLeaveInRequestOrder(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c, other := n.dial(t), n.dial(t)
		c.create("t", 1)
		c.create("large", 1)
		for range 3 {
			c.produce("large", 0, -1, values(strings.Repeat("x", 40_000)))
		}
		n.gate.Hold()
		reqs := []kmsg.Request{
			produceTo("t", 0, 104, values("all")), produceTo("t", 0, 101, values("receive")), fetchFrom("large", 0, 0), &kmsg.MetadataRequest{Version: 9},
			produceTo("t", 0, 5, values("refused")), produceTo("t", 0, 102, values("persistence")), fetchFrom("large", 0, 1), &kmsg.ApiVersionsRequest{}, fetchFrom("large", 0, 2),
			produceTo("t", 0, 0, values("one-way")), produceTo("t", 0, 103, values("replication")), fetchFrom("t", 0, 0),
		}
		var ids []int32
		for _, r := range reqs {
			ids = append(ids, c.send(r))
		}
		other.produce("t", 0, 101, values("fence"))
		silent(t, "RECEIVE behind an ALL whose flush is held back", c)
		n.gate.Release()
		var bases []int64
		for i, r := range reqs {
			if p, ok := r.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
				continue
			}
			if resp, ok := c.receive(r, ids[i]).(*kmsg.ProduceResponse); ok {
				bases = append(bases, onlyPart(resp).BaseOffset)
			}
		}
		at := int64(0)
		for i, b := range bases {
			if i == 2 && b != -1 || i != 2 && b < at {
				t.Errorf("base offsets %d", bases)
			}
			at = max(at, b)
		}
		c.produce("t", 0, -1, values("end")) // and nothing else came
	})
}

func TestBatchesPassThroughAsTheyAre(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		var want []byte
		next := int64(0)
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			b := sequenced(kwire.NoProducer, compressor(codec), codec, strings.Repeat("tide", 500), "")
			if base := c.produce("t", 0, -1, bytes.Clone(b)); base != next {
				t.Errorf("%s: base offset %d, want %d", codec, base, next)
			}
			batch.Patch(b, next, n.epoch())
			want = append(want, b...)
			next += 3
		}
		if got := c.fetched(fetchFrom("t", 0, 0)).RecordBatches; !bytes.Equal(got, want) {
			t.Errorf("fetched\n%x\nwant\n%x", got, want)
		}
		parse(t, want)
		// Fetch below version 10 does not know zstd; before that batch it is no trouble.
		req := fetchFrom("t", 0, 0)
		req.Version = 9
		if got := c.fetched(req); got.ErrorCode != kerr.UnsupportedCompressionType.Code || len(got.RecordBatches) != 0 {
			t.Errorf("zstd at Fetch v9: error %d, %d bytes", got.ErrorCode, len(got.RecordBatches))
		}
		req.Topics[0].Partitions[0].PartitionMaxBytes = int32(len(want) - 100)
		if got := c.fetched(req); got.ErrorCode != 0 || len(parse(t, got.RecordBatches)) != 4 {
			t.Errorf("before the zstd batch: error %d, %d bytes", got.ErrorCode, len(got.RecordBatches))
		}
	})
}

// A topic that is made again has another id, no records of the old one, and its producers begin anew.
func TestTopicMadeAgain(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c, waiting := n.dial(t), n.dial(t)
		old := c.create("t", 1)
		b := sequenced(kwire.Producer{ID: 9, Epoch: 3, Sequence: 0}, nil, "old")
		c.produce("t", 0, -1, bytes.Clone(b))
		fetch := fetchFrom("t", 0, 1)
		fetch.MaxWaitMillis, fetch.MinBytes = 30_000, 1
		id := waiting.send(fetch)
		eventually(t, "the fetch runs", n.waiting)
		if got := ask[*kmsg.DeleteTopicsResponse](c, &kmsg.DeleteTopicsRequest{Version: 6, TimeoutMillis: 10_000, Topics: []kmsg.DeleteTopicsRequestTopic{{TopicID: old}}}); got.Topics[0].ErrorCode != 0 {
			t.Fatalf("delete: %+v", got)
		}
		if got := onlyFetched(waiting.receive(fetch, id)); got.ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("a fetch that waited: error %d", got.ErrorCode)
		}
		if got := onlyPart(ask[*kmsg.ProduceResponse](c, produceTo("t", 0, -1, values("x")))); got.ErrorCode != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("produce to what is gone: error %d", got.ErrorCode)
		}
		fresh := c.create("t", 1)
		if fresh == old {
			t.Fatalf("the new topic has the old id %x", old)
		}
		produce, read := produceTo("", 0, -1, values("x")), fetchFrom("", 0, 0)
		produce.Version, read.Version = 13, 13
		produce.Topics[0].TopicID, read.Topics[0].TopicID = old, old
		if p, f := onlyPart(ask[*kmsg.ProduceResponse](c, produce)), c.fetched(read); p.ErrorCode != kerr.UnknownTopicID.Code || f.ErrorCode != kerr.UnknownTopicID.Code {
			t.Errorf("the old id: produce %d, fetch %d", p.ErrorCode, f.ErrorCode)
		}
		if base := c.produce("t", 0, -1, bytes.Clone(b)); base != 0 {
			t.Errorf("the same batch goes to offset %d of the new topic", base)
		}
		if got := fmt.Sprint(c.read("t", 0)); got != "[old]" {
			t.Errorf("the new topic holds %s", got)
		}
	})
}

// Clients pipeline, from several connections at once: nothing is lost, and each connection's order is kept.
func TestPipelinedConnections(t *testing.T) {
	const connections, requests = 8, 300
	each(t, func(t *testing.T, n *node) {
		n.dial(t).create("t", 1)
		done := make(chan error, connections)
		for k := range connections {
			c := n.dial(t)
			go func() {
				for i := range requests {
					acks := []int16{101, 102, 103, 104, 1, -1}[i%6]
					if _, err := c.Send(t.Context(), produceTo("t", 0, acks, values(fmt.Sprintf("%d/%d", k, i)))); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			go func() {
				if err := c.produced(requests); err != nil {
					done <- fmt.Errorf("connection %d: %w", k, err)
					return
				}
				done <- nil
			}()
		}
		for range 2 * connections {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		next := map[string]int{}
		got := n.dial(t).read("t", 0)
		for _, v := range got {
			k, i, _ := strings.Cut(v, "/")
			if i != fmt.Sprint(next[k]) {
				t.Fatalf("%s where %s/%d should be", v, k, next[k])
			}
			next[k]++
		}
		if len(got) != connections*requests {
			t.Errorf("%d records, want %d", len(got), connections*requests)
		}
	})
}
