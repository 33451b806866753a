package server

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// serve is one key that ApiVersions has to name, and how it is asked.
type serve struct {
	key      kmsg.Key
	min, max int16
	ask      func(w *wire, v int16)
}

// served is the table in FACTS.md.
var served []serve

func init() {
	served = []serve{
		{kmsg.Produce, 0, 13, (*wire).produce},
		{kmsg.Fetch, 4, 18, (*wire).fetch},
		{kmsg.ListOffsets, 1, 11, (*wire).listOffsets},
		{kmsg.Metadata, 0, 13, (*wire).metadata},
		{kmsg.OffsetCommit, 2, 10, (*wire).offsetCommit},
		{kmsg.OffsetFetch, 1, 10, (*wire).offsetFetch},
		{kmsg.FindCoordinator, 0, 6, (*wire).findCoordinator},
		{kmsg.JoinGroup, 0, 9, (*wire).joinGroup},
		{kmsg.Heartbeat, 0, 4, (*wire).heartbeat},
		{kmsg.LeaveGroup, 0, 5, (*wire).leaveGroup},
		{kmsg.SyncGroup, 0, 5, (*wire).syncGroup},
		{kmsg.DescribeGroups, 0, 6, (*wire).describeGroups},
		{kmsg.ListGroups, 0, 5, (*wire).listGroups},
		{kmsg.DeleteGroups, 0, 2, (*wire).deleteGroups},
		{kmsg.OffsetDelete, 0, 0, (*wire).offsetDelete},
		{kmsg.ApiVersions, 0, 4, (*wire).apiVersions},
		{kmsg.CreateTopics, 0, 7, (*wire).createTopics},
		{kmsg.DeleteTopics, 0, 6, (*wire).deleteTopics},
		{kmsg.DeleteRecords, 0, 2, (*wire).deleteRecords},
		{kmsg.InitProducerID, 0, 5, (*wire).initProducerID},
		{kmsg.AddPartitionsToTxn, 0, 3, (*wire).addPartitionsToTxn},
		{kmsg.AddOffsetsToTxn, 0, 4, (*wire).addOffsetsToTxn},
		{kmsg.EndTxn, 0, 5, (*wire).endTxn},
		{kmsg.TxnOffsetCommit, 0, 6, (*wire).txnOffsetCommit},
		{kmsg.DescribeTransactions, 0, 0, (*wire).describeTransactions},
		{kmsg.ListTransactions, 0, 2, (*wire).listTransactions},
		{kmsg.OffsetForLeaderEpoch, 2, 4, (*wire).offsetForLeaderEpoch},
		{kmsg.AlterConfigs, 0, 2, (*wire).alterConfigs},
		{kmsg.DescribeLogDirs, 0, 5, (*wire).describeLogDirs},
		{kmsg.ElectLeaders, 0, 2, (*wire).electLeaders},
		{kmsg.ConsumerGroupHeartbeat, 0, 1, (*wire).consumerGroupHeartbeat},
		{kmsg.ConsumerGroupDescribe, 0, 1, (*wire).consumerGroupDescribe},
		{kmsg.DescribeProducers, 0, 0, (*wire).describeProducers},
		{kmsg.DescribeConfigs, 0, 4, (*wire).describeConfigs},
		{kmsg.CreatePartitions, 0, 3, (*wire).createPartitions},
		{kmsg.DescribeCluster, 0, 2, (*wire).describeCluster},
		{kmsg.IncrementalAlterConfigs, 0, 1, (*wire).incrementalAlterConfigs},
		{kmsg.DescribeClientQuotas, 0, 1, (*wire).clientQuotas},
		{kmsg.AlterClientQuotas, 0, 1, (*wire).clientQuotas},
	}
}

// wire is one key at one version, on a topic of its own with two partitions and no records.
type wire struct {
	*client
	n     *node
	topic string
	id    [16]byte
}

// TestEveryKeyAtEveryVersion asks for everything that ApiVersions names. client.receive checks that each answer decodes at its version to the last byte; the methods below check what it says.
func TestEveryKeyAtEveryVersion(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		rows := ask[*kmsg.ApiVersionsResponse](c, &kmsg.ApiVersionsRequest{}).ApiKeys
		if len(rows) != len(served) {
			t.Errorf("%d keys are named, %d are known here", len(rows), len(served))
		}
		for _, s := range served {
			i := slices.IndexFunc(rows, func(r kmsg.ApiVersionsResponseApiKey) bool { return r.ApiKey == int16(s.key) })
			if i < 0 || rows[i].MinVersion != s.min || rows[i].MaxVersion != s.max {
				t.Errorf("%s: want versions %d to %d; named are %+v", s.key.Name(), s.min, s.max, rows)
				continue
			}
			for v := s.min; v <= s.max; v++ {
				t.Run(fmt.Sprintf("%s/v%d", s.key.Name(), v), func(t *testing.T) {
					w := &wire{client: &client{c.Conn, t}, n: n, topic: fmt.Sprintf("%s-%d", s.key.Name(), v)}
					w.id = w.create(w.topic, 2)
					s.ask(w, v)
				})
			}
		}
	})
}

// code compares an error code.
func (w *wire) code(what string, got int16, want *kerr.Error) {
	w.t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		w.t.Errorf("%s: error %d, want %d", what, got, code)
	}
}

// same compares values that have names in what.
func (w *wire) same(what string, got, want any) {
	w.t.Helper()
	if g, x := fmt.Sprint(got), fmt.Sprint(want); g != x {
		w.t.Errorf("%s: %s, want %s", what, g, x)
	}
}

func (w *wire) produce(v int16) {
	req := produceTo(w.topic, 1, -1, values("a", "b"))
	req.Version, req.Topics[0].TopicID = v, w.id
	for base := range int64(2) {
		resp := ask[*kmsg.ProduceResponse](w.client, req)
		t, p := resp.Topics[0], onlyPart(resp)
		if v < 13 {
			w.same("topic", t.Topic, w.topic)
		} else {
			w.same("topic id", t.TopicID, w.id)
		}
		w.same("partition", p.Partition, 1)
		if v < 3 {
			w.code("old format", p.ErrorCode, kerr.UnsupportedVersion)
			w.same("base offset", p.BaseOffset, -1)
			continue
		}
		w.code("produce", p.ErrorCode, nil)
		w.same("base offset, append time, message", []any{p.BaseOffset, p.LogAppendTime, p.ErrorMessage}, []any{2 * base, -1, (*string)(nil)})
		if v >= 5 {
			w.same("log start", p.LogStartOffset, 0)
		}
	}
	want := []string{"a", "b", "a", "b"}
	if v < 3 {
		want = nil
	}
	w.same("what was written", w.read(w.topic, 1), want)
}

func (w *wire) fetch(v int16) {
	w.client.produce(w.topic, 1, -1, values("a", "b"))
	w.client.produce(w.topic, 1, -1, values("c"))
	req := fetchFrom(w.topic, 1, 1)
	req.Version, req.Topics[0].TopicID = v, w.id
	req.Topics[0].Partitions[0].CurrentLeaderEpoch, req.Topics[0].Partitions[0].LastFetchedEpoch = w.n.epoch(), w.n.epoch()
	resp := ask[*kmsg.FetchResponse](w.client, req)
	t, p := resp.Topics[0], onlyFetched(resp)
	if v < 13 {
		w.same("topic", t.Topic, w.topic)
	} else {
		w.same("topic id", t.TopicID, w.id)
	}
	w.same("errors, session", []any{resp.ErrorCode, p.ErrorCode, resp.SessionID}, []any{0, 0, 0})
	w.same("partition, high watermark, stable", []any{p.Partition, p.HighWatermark, p.LastStableOffset}, []any{1, 3, 3})
	if v >= 5 {
		w.same("log start", p.LogStartOffset, 0)
	}
	w.same("diverging epoch", p.DivergingEpoch.Epoch, -1)
	batches := parse(w.t, p.RecordBatches)
	if len(batches) != 2 || batches[0].FirstOffset != 0 || batches[1].FirstOffset != 2 || batches[1].PartitionLeaderEpoch != w.n.epoch() {
		w.t.Errorf("batches: %+v", batches)
	}
}

// Times of a batch's records are 1000, 3000, 2000 and 4000, and 2500 in a second batch.
func (w *wire) listOffsets(v int16) {
	var records []kwire.Record
	for _, ms := range []int64{1000, 3000, 2000, 4000} {
		records = append(records, kwire.Record{Timestamp: ms, Value: []byte("x")})
	}
	b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, records...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.client.produce(w.topic, 0, -1, b)
	second, _ := kwire.AppendBatch(nil, kwire.NoProducer, nil, kwire.Record{Timestamp: 2500})
	w.client.produce(w.topic, 0, -1, second)
	e := w.n.epoch()
	type found struct {
		code         int16
		offset, time int64
		epoch        int32
	}
	from := func(min int16, f found) found { // asked of an older version it is no time at all
		if v < min {
			return found{kerr.UnsupportedVersion.Code, -1, -1, -1}
		}
		return f
	}
	none := found{0, -1, -1, -1}
	for _, c := range []struct {
		at        int64
		full      found
		partition found // of the partition without records
	}{
		{-1, found{0, 5, -1, e}, found{0, 0, -1, e}},
		{-2, found{0, 0, -1, e}, found{0, 0, -1, -1}},
		{-3, from(7, found{0, 3, 4000, e}), from(7, none)},
		{-4, from(8, found{0, 0, -1, e}), from(8, found{0, 0, -1, -1})},
		{-5, from(9, none), from(9, none)},
		{-6, from(11, none), from(11, none)},
		{-7, from(99, none), from(99, none)},
		{0, found{0, 0, 1000, e}, none},
		{1000, found{0, 0, 1000, e}, none},
		{1001, found{0, 1, 3000, e}, none},
		{3000, found{0, 1, 3000, e}, none},
		{3001, found{0, 3, 4000, e}, none},
		{4001, none, none},
		{math.MaxInt64, none, none},
	} {
		for partition, want := range map[int32]found{0: c.full, 1: c.partition, 2: {kerr.UnknownTopicOrPartition.Code, -1, -1, -1}} {
			p := w.list(v, partition, c.at, -1)
			if v < 4 {
				want.epoch = -1
			}
			if got := (found{p.ErrorCode, p.Offset, p.Timestamp, p.LeaderEpoch}); got != want {
				w.t.Errorf("partition %d at %d: %+v, want %+v", partition, c.at, got, want)
			}
		}
	}
	if v >= 4 {
		w.code("an older epoch", w.list(v, 0, -1, e-1).ErrorCode, kerr.FencedLeaderEpoch)
		w.code("a newer epoch", w.list(v, 0, -1, e+1).ErrorCode, kerr.UnknownLeaderEpoch)
		w.code("this epoch", w.list(v, 0, -1, e).ErrorCode, nil)
	}
}

func (w *wire) list(v int16, partition int32, at int64, epoch int32) kmsg.ListOffsetsResponseTopicPartition {
	w.t.Helper()
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, at, epoch
	req := &kmsg.ListOffsetsRequest{Version: v, ReplicaID: -1, Topics: []kmsg.ListOffsetsRequestTopic{{Topic: w.topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{rp}}}}
	resp := ask[*kmsg.ListOffsetsResponse](w.client, req)
	w.same("topic, partition", []any{resp.Topics[0].Topic, resp.Topics[0].Partitions[0].Partition}, []any{w.topic, partition})
	return resp.Topics[0].Partitions[0]
}

func (w *wire) metadata(v int16) {
	named := func(names ...string) (ts []kmsg.MetadataRequestTopic) {
		ts = []kmsg.MetadataRequestTopic{}
		for _, n := range names {
			ts = append(ts, kmsg.MetadataRequestTopic{Topic: &n})
		}
		return ts
	}
	get := func(create bool, ts []kmsg.MetadataRequestTopic) map[string]kmsg.MetadataResponseTopic {
		w.t.Helper()
		resp := ask[*kmsg.MetadataResponse](w.client, &kmsg.MetadataRequest{Version: v, AllowAutoTopicCreation: create, Topics: ts})
		w.same("brokers", len(resp.Brokers), 1)
		b := resp.Brokers[0]
		w.same("broker", fmt.Sprintf("%d %s:%d", b.NodeID, b.Host, b.Port), "7 "+w.n.srv.Addr())
		if v >= 1 {
			w.same("controller", resp.ControllerID, 7)
		}
		if v >= 2 {
			w.same("cluster", *resp.ClusterID, "test-cluster")
		}
		out := make(map[string]kmsg.MetadataResponseTopic)
		for _, t := range resp.Topics {
			name := ""
			if t.Topic != nil {
				name = *t.Topic
			}
			out[name] = t
		}
		return out
	}
	whole := func(t kmsg.MetadataResponseTopic, partitions int) {
		w.t.Helper()
		w.code("topic", t.ErrorCode, nil)
		w.same("partitions", len(t.Partitions), partitions)
		for i, p := range t.Partitions {
			w.same("partition", []any{p.ErrorCode, p.Partition, p.Leader, p.Replicas, p.ISR, len(p.OfflineReplicas)}, []any{0, i, 7, []int32{7}, []int32{7}, 0})
			if v >= 7 {
				w.same("leader epoch", p.LeaderEpoch, w.n.epoch())
			}
		}
	}

	got := get(false, named(w.topic))
	w.same("topics", len(got), 1)
	whole(got[w.topic], 2)
	if v >= 10 {
		w.same("topic id", got[w.topic].TopicID, w.id)
	}
	all := len(w.n.srv.pipeline.View().Topics)
	if v == 0 {
		w.same("empty list: all topics", len(get(false, named())), all)
	} else {
		w.same("null list: all topics", len(get(false, nil)), all)
		w.same("empty list: no topics", len(get(false, named())), 0)
	}
	w.code("a name that cannot be", get(true, named("no/slash"))["no/slash"].ErrorCode, kerr.InvalidTopicException)
	other := w.topic + "-made"
	if v >= 4 {
		w.code("not to be created", get(false, named(other))[other].ErrorCode, kerr.UnknownTopicOrPartition)
		whole(get(true, named(other))[other], 2)
	} else { // no flag counts as set
		whole(get(false, named(other))[other], 2)
	}
	if v >= 12 { // a null name with an id
		got := get(false, []kmsg.MetadataRequestTopic{{TopicID: w.id}, {TopicID: [16]byte{9}}})
		whole(got[w.topic], 2)
		w.code("an unknown id", got[""].ErrorCode, kerr.UnknownTopicID)
	}
}

func (w *wire) findCoordinator(v int16) {
	for kind, want := range map[int8]*kerr.Error{0: nil, 1: nil, 2: kerr.InvalidRequest} {
		if v == 0 && kind > 0 {
			continue
		}
		where := fmt.Sprint(7, " ", w.n.srv.Addr())
		if want != nil {
			where = "-1 :-1"
		}
		resp := ask[*kmsg.FindCoordinatorResponse](w.client, &kmsg.FindCoordinatorRequest{Version: v, CoordinatorKey: "g", CoordinatorType: kind, CoordinatorKeys: []string{"g", "h"}})
		if v < 4 {
			c := kmsg.NewFindCoordinatorResponseCoordinator()
			c.NodeID, c.Host, c.Port, c.ErrorCode, c.ErrorMessage = resp.NodeID, resp.Host, resp.Port, resp.ErrorCode, resp.ErrorMessage
			resp.Coordinators = append(resp.Coordinators, c)
		} else {
			w.same("keys", []any{len(resp.Coordinators), resp.Coordinators[0].Key, resp.Coordinators[1].Key}, []any{2, "g", "h"})
		}
		for _, c := range resp.Coordinators {
			w.code("coordinator", c.ErrorCode, want)
			w.same("node", fmt.Sprintf("%d %s:%d", c.NodeID, c.Host, c.Port), where)
			if said := c.ErrorMessage != nil && *c.ErrorMessage != ""; v >= 1 && said != (want != nil) {
				w.t.Errorf("error %d with message %v", c.ErrorCode, c.ErrorMessage)
			}
		}
	}
}

func (w *wire) apiVersions(v int16) {
	resp := ask[*kmsg.ApiVersionsResponse](w.client, &kmsg.ApiVersionsRequest{Version: v, ClientSoftwareName: "test", ClientSoftwareVersion: "1"})
	w.code("api versions", resp.ErrorCode, nil)
	w.same("version, keys", []any{resp.Version, len(resp.ApiKeys)}, []any{v, len(served)})
}

func TestApiVersionsAboveTheRange(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		for _, v := range []int16{5, 6, 99, math.MaxInt16} {
			req := &kmsg.ApiVersionsRequest{Version: v, ClientSoftwareName: "test", ClientSoftwareVersion: "1"}
			got := ask[*kmsg.ApiVersionsResponse](c, req)
			if got.Version != 0 || got.ErrorCode != kerr.UnsupportedVersion.Code || fmt.Sprint(got.ApiKeys) != fmt.Sprint([]kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MaxVersion: 4}}) {
				t.Errorf("version %d: %+v", v, got)
			}
		}
		c.create("t", 1) // the connection is good
	})
}

func TestWhatIsNotServedClosesTheConnection(t *testing.T) {
	type call struct{ key, version int16 }
	calls := []call{{-1, 0}, {math.MinInt16, 0}, {127, 0}, {128, 0}, {math.MaxInt16, 0}, {17, 0}, {27, 0}, {36, 0}, {71, 0}}
	for _, s := range served {
		if s.key != kmsg.ApiVersions {
			calls = append(calls, call{int16(s.key), s.min - 1}, call{int16(s.key), s.max + 1}, call{int16(s.key), math.MaxInt16}, call{int16(s.key), math.MinInt16})
		}
	}
	each(t, func(t *testing.T, n *node) {
		for _, x := range calls {
			c := n.dial(t)
			b := []byte{0, 0, 0, 74, byte(x.key >> 8), byte(x.key), byte(x.version >> 8), byte(x.version), 0, 0, 0, 1, 0xff, 0xff}
			c.raw(append(b, make([]byte, 78-len(b))...))
			c.ended(fmt.Sprintf("key %d version %d", x.key, x.version))
			c.Close()
		}
		n.dial(t).create("t", 1)
	})
}
