package server

import (
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The other half of TestEveryKeyAtEveryVersion: topics, records, producers, settings and the cluster.

func (w *wire) createTopics(v int16) {
	topic := func(name string, edit func(*kmsg.CreateTopicsRequestTopic)) kmsg.CreateTopicsRequestTopic {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = w.topic+"-"+name, 3, 1
		if edit != nil {
			edit(&rt)
		}
		return rt
	}
	assigned := func(replicas ...int32) func(*kmsg.CreateTopicsRequestTopic) {
		return func(rt *kmsg.CreateTopicsRequestTopic) {
			rt.NumPartitions, rt.ReplicationFactor = -1, -1
			rt.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: replicas}}
		}
	}
	setting := func(name, value string) func(*kmsg.CreateTopicsRequestTopic) {
		return func(rt *kmsg.CreateTopicsRequestTopic) {
			rt.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: name, Value: &value}}
		}
	}
	cases := []struct {
		rt         kmsg.CreateTopicsRequestTopic
		want       *kerr.Error
		partitions int
	}{
		{topic("three", nil), nil, 3},
		{topic("default", func(rt *kmsg.CreateTopicsRequestTopic) { rt.NumPartitions, rt.ReplicationFactor = -1, -1 }), nil, 2},
		{topic("assigned", assigned(7)), nil, 1},
		{topic("limit", setting("max.message.bytes", "1000")), nil, 3},
		{topic("twice", nil), kerr.InvalidRequest, 0},
		{topic("twice", nil), kerr.InvalidRequest, 0},
		{topic("", func(rt *kmsg.CreateTopicsRequestTopic) { rt.Topic = w.topic }), kerr.TopicAlreadyExists, 0},
		{topic("a b", nil), kerr.InvalidTopicException, 0},
		{topic("replicas", func(rt *kmsg.CreateTopicsRequestTopic) { rt.ReplicationFactor = 3 }), kerr.InvalidReplicationFactor, 0},
		{topic("zero", func(rt *kmsg.CreateTopicsRequestTopic) { rt.NumPartitions = 0 }), kerr.InvalidPartitions, 0},
		{topic("elsewhere", assigned(1)), kerr.InvalidReplicaAssignment, 0},
		{topic("unknown", setting("retention.ms", "1")), kerr.InvalidConfig, 0},
		{topic("compacted", setting("cleanup.policy", "compact")), kerr.InvalidConfig, 0},
	}
	req := &kmsg.CreateTopicsRequest{Version: v, TimeoutMillis: 10_000}
	for _, c := range cases {
		req.Topics = append(req.Topics, c.rt)
	}
	for _, validate := range []bool{true, false} {
		if validate && v < 1 {
			continue
		}
		before := len(w.n.srv.pipeline.View().Topics)
		req.ValidateOnly = validate
		resp := ask[*kmsg.CreateTopicsResponse](w.client, req)
		w.same("topics", len(resp.Topics), len(cases))
		made := 0
		for i, got := range resp.Topics {
			c := cases[i]
			w.same("topic", got.Topic, c.rt.Topic)
			w.code("create "+got.Topic, got.ErrorCode, c.want)
			if v >= 1 && (got.ErrorMessage != nil) != (c.want != nil) {
				w.t.Errorf("create %s: message %v", got.Topic, got.ErrorMessage)
			}
			if c.want != nil {
				continue
			}
			made++
			if v >= 5 {
				w.same("partitions, replicas, settings", []any{got.NumPartitions, got.ReplicationFactor, len(got.Configs)}, []any{c.partitions, 1, 3})
			}
			if t := w.n.srv.pipeline.View().Topics[got.Topic]; !validate && (t == nil || len(t.Partitions) != c.partitions || v >= 7 && t.ID != got.TopicID) {
				w.t.Errorf("create %s: the catalog has %+v", got.Topic, t)
			}
		}
		if validate {
			made = 0
		}
		w.same("new topics", len(w.n.srv.pipeline.View().Topics)-before, made)
	}
}

func (w *wire) deleteTopics(v int16) {
	req := &kmsg.DeleteTopicsRequest{Version: v, TimeoutMillis: 10_000}
	names := []string{w.topic, "no-such-topic"}
	wants := []*kerr.Error{nil, kerr.UnknownTopicOrPartition}
	if v < 6 {
		req.TopicNames = names
	} else {
		byID := w.create(w.topic+"-by-id", 1)
		wants = append(wants, nil, kerr.UnknownTopicID)
		req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &names[0]}, {Topic: &names[1]}, {TopicID: byID}, {TopicID: [16]byte{9}}}
	}
	resp := ask[*kmsg.DeleteTopicsResponse](w.client, req)
	w.same("topics", len(resp.Topics), len(wants))
	for i, got := range resp.Topics {
		w.code(fmt.Sprint("delete ", i), got.ErrorCode, wants[i])
		if i < 2 {
			w.same("topic", *got.Topic, names[i])
		}
		if v >= 6 && i == 0 {
			w.same("topic id", got.TopicID, w.id)
		}
	}
	if t := w.n.srv.pipeline.View().Topics[w.topic]; t != nil {
		w.t.Error("the topic is still there")
	}
}

func (w *wire) deleteRecords(v int16) {
	w.client.produce(w.topic, 0, -1, values("a", "b", "c"))
	w.client.produce(w.topic, 1, -1, values("a", "b", "c"))
	for _, c := range []struct {
		partition int32
		offset    int64
		want      *kerr.Error
		low       int64
	}{
		{0, 0, nil, 0}, {0, 2, nil, 2}, {0, 1, nil, 2}, {0, 4, kerr.OffsetOutOfRange, -1}, {0, -2, kerr.OffsetOutOfRange, -1},
		{0, 3, nil, 3}, {1, -1, nil, 3}, {2, 0, kerr.UnknownTopicOrPartition, -1},
	} {
		req := &kmsg.DeleteRecordsRequest{Version: v, TimeoutMillis: 10_000, Topics: []kmsg.DeleteRecordsRequestTopic{{
			Topic: w.topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: c.partition, Offset: c.offset}},
		}}}
		got := ask[*kmsg.DeleteRecordsResponse](w.client, req).Topics[0]
		what := fmt.Sprintf("delete %d before %d", c.partition, c.offset)
		w.code(what, got.Partitions[0].ErrorCode, c.want)
		w.same(what+": low watermark", []any{got.Topic, got.Partitions[0].Partition, got.Partitions[0].LowWatermark}, []any{w.topic, c.partition, c.low})
	}
	w.same("earliest", w.list(4, 1, -2, -1).Offset, 3)
}

func (w *wire) initProducerID(v int16) {
	get := func(txn *string, id int64, epoch int16) *kmsg.InitProducerIDResponse {
		w.t.Helper()
		return ask[*kmsg.InitProducerIDResponse](w.client, &kmsg.InitProducerIDRequest{Version: v, TransactionalID: txn, TransactionTimeoutMillis: 1000, ProducerID: id, ProducerEpoch: epoch})
	}
	first, second := get(nil, -1, -1), get(nil, -1, -1)
	w.code("first", first.ErrorCode, nil)
	w.same("epoch", first.ProducerEpoch, 0)
	if first.ProducerID < 0 || second.ProducerID == first.ProducerID {
		w.t.Errorf("ids %d and %d", first.ProducerID, second.ProducerID)
	}
	txn := get(&w.topic, -1, -1)
	w.same("transactional", []any{txn.ErrorCode, txn.ProducerEpoch}, []any{0, 0})
	again := get(&w.topic, -1, -1)
	w.same("again", []any{again.ErrorCode, again.ProducerID, again.ProducerEpoch}, []any{0, txn.ProducerID, 1})
	w.code("without a name", get(ptr(""), -1, -1).ErrorCode, kerr.InvalidRequest)
	if v < 3 {
		return
	}
	raised := get(&w.topic, txn.ProducerID, 1)
	w.same("transactional, raised", []any{raised.ErrorCode, raised.ProducerID, raised.ProducerEpoch}, []any{0, txn.ProducerID, 2})
	w.same("again, since the answer was lost", get(&w.topic, txn.ProducerID, 1).ProducerEpoch, 2)
	w.code("an old epoch", get(&w.topic, txn.ProducerID, 0).ErrorCode, old(v, 4))
	next := get(nil, first.ProducerID, 0)
	w.same("an existing id", []any{next.ErrorCode, next.ProducerID, next.ProducerEpoch}, []any{0, first.ProducerID, 1})
	if last := get(nil, first.ProducerID, math.MaxInt16-1); last.ProducerID == first.ProducerID || last.ProducerEpoch != 0 || last.ErrorCode != 0 {
		w.t.Errorf("behind the last epoch: %+v", last)
	}
}

func (w *wire) offsetForLeaderEpoch(v int16) {
	w.client.produce(w.topic, 0, -1, values("a", "b"))
	e := w.n.epoch()
	for _, c := range []struct {
		partition      int32
		current, asked int32
		want           *kerr.Error
		epoch          int32
		end            int64
		name           string
	}{
		{0, -1, e, nil, e, 2, "this epoch"},
		{0, e, e, nil, e, 2, "this epoch, and it is known"},
		{0, -1, e + 1, nil, -1, -1, "an epoch to come"},
		{0, -1, e - 1, nil, -1, -1, "an epoch before the first"},
		{0, e - 1, e, kerr.FencedLeaderEpoch, -1, -1, "the client is behind"},
		{0, e + 1, e, kerr.UnknownLeaderEpoch, -1, -1, "the client is ahead"},
		{2, -1, e, kerr.UnknownTopicOrPartition, -1, -1, "no such partition"},
	} {
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = c.partition, c.current, c.asked
		req := &kmsg.OffsetForLeaderEpochRequest{Version: v, ReplicaID: -1, Topics: []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: w.topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{rp}}}}
		got := ask[*kmsg.OffsetForLeaderEpochResponse](w.client, req).Topics[0]
		w.code(c.name, got.Partitions[0].ErrorCode, c.want)
		w.same(c.name, []any{got.Topic, got.Partitions[0].Partition, got.Partitions[0].LeaderEpoch, got.Partitions[0].EndOffset}, []any{w.topic, c.partition, c.epoch, c.end})
	}
}

func (w *wire) describeConfigs(v int16) {
	name := w.topic + "-set"
	w.create(name, 1, "max.message.bytes", "1000")
	const topic, broker = kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker
	req := &kmsg.DescribeConfigsRequest{Version: v, IncludeSynonyms: true, IncludeDocumentation: true, Resources: []kmsg.DescribeConfigsRequestResource{
		{ResourceType: topic, ResourceName: name},
		{ResourceType: topic, ResourceName: name, ConfigNames: []string{"cleanup.policy", "no.such"}},
		{ResourceType: broker, ResourceName: "7"},
		{ResourceType: broker, ResourceName: "8"},
		{ResourceType: topic, ResourceName: "no-such-topic"},
		{ResourceType: kmsg.ConfigResourceTypeBrokerLogger, ResourceName: "7"},
	}}
	resp := ask[*kmsg.DescribeConfigsResponse](w.client, req)
	for i, want := range []struct {
		code *kerr.Error
		rows int
	}{{nil, 3}, {nil, 1}, {nil, 7}, {kerr.InvalidRequest, 0}, {kerr.UnknownTopicOrPartition, 0}, {kerr.InvalidRequest, 0}} {
		r := resp.Resources[i]
		w.code(r.ResourceName, r.ErrorCode, want.code)
		w.same("resource", []any{r.ResourceType, r.ResourceName, len(r.Configs)}, []any{req.Resources[i].ResourceType, req.Resources[i].ResourceName, want.rows})
		if (r.ErrorMessage != nil) != (want.code != nil) {
			w.t.Errorf("%s: message %v", r.ResourceName, r.ErrorMessage)
		}
		for _, c := range r.Configs {
			set := c.Name == "max.message.bytes" && *c.Value == "1000"
			source := map[bool]kmsg.ConfigSource{true: kmsg.ConfigSourceDynamicTopicConfig, false: kmsg.ConfigSourceDefaultConfig}[set]
			if r.ResourceType == broker {
				source = kmsg.ConfigSourceStaticBrokerConfig
			}
			if v == 0 {
				w.same(c.Name+" is default", c.IsDefault, !set && r.ResourceType == topic)
				continue
			}
			w.same(c.Name+": source", c.Source, source)
			w.same(c.Name+": first synonym", []any{c.ConfigSynonyms[0].Source, *c.ConfigSynonyms[0].Value}, []any{source, *c.Value})
			if v >= 3 && (c.Documentation == nil || *c.Documentation == "" || c.ConfigType == 0) {
				w.t.Errorf("%s: type %v, documentation %v", c.Name, c.ConfigType, c.Documentation)
			}
		}
	}
}

func (w *wire) createPartitions(v int16) {
	replica := func(ids ...int32) (out []kmsg.CreatePartitionsRequestTopicAssignment) {
		for _, id := range ids {
			out = append(out, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: []int32{id}})
		}
		return out
	}
	for _, c := range []struct {
		topic    string
		count    int32
		assigned []kmsg.CreatePartitionsRequestTopicAssignment
		validate bool
		want     *kerr.Error
		then     int
	}{
		{w.topic, 4, nil, true, nil, 2},
		{w.topic, 4, nil, false, nil, 4},
		{w.topic, 4, nil, false, kerr.InvalidPartitions, 4},
		{w.topic, 6, replica(7, 8), false, kerr.InvalidReplicaAssignment, 4},
		{w.topic, 6, replica(7), false, kerr.InvalidReplicaAssignment, 4},
		{w.topic, 6, replica(7, 7), false, nil, 6},
		{"no-such-topic", 6, nil, false, kerr.UnknownTopicOrPartition, 6},
	} {
		req := &kmsg.CreatePartitionsRequest{Version: v, TimeoutMillis: 10_000, ValidateOnly: c.validate, Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: c.topic, Count: c.count, Assignment: c.assigned}}}
		got := ask[*kmsg.CreatePartitionsResponse](w.client, req).Topics[0]
		w.code(fmt.Sprintf("%s to %d", c.topic, c.count), got.ErrorCode, c.want)
		w.same("topic", got.Topic, c.topic)
		w.same("partitions", len(w.n.srv.pipeline.View().Topics[w.topic].Partitions), c.then)
	}
	w.same("the new partition takes records", w.client.produce(w.topic, 5, -1, values("x")), 0)
}

func (w *wire) describeCluster(v int16) {
	resp := ask[*kmsg.DescribeClusterResponse](w.client, &kmsg.DescribeClusterRequest{Version: v, EndpointType: 1})
	w.code("cluster", resp.ErrorCode, nil)
	w.same("cluster, controller, brokers", []any{resp.ClusterID, resp.ControllerID, len(resp.Brokers)}, []any{"test-cluster", 7, 1})
	b := resp.Brokers[0]
	w.same("broker", fmt.Sprintf("%d %s:%d", b.NodeID, b.Host, b.Port), "7 "+w.n.srv.Addr())
	if v >= 1 {
		resp = ask[*kmsg.DescribeClusterResponse](w.client, &kmsg.DescribeClusterRequest{Version: v, EndpointType: 2})
		w.code("controllers", resp.ErrorCode, kerr.UnsupportedEndpointType)
	}
}
