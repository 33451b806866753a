package server

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// The fourth part of TestEveryKeyAtEveryVersion: transactions, each of whose ids is the name of its topic, and what operators ask for.

// old is what a fenced producer is told by versions from since on; before it is INVALID_PRODUCER_EPOCH.
func old(v, since int16) *kerr.Error {
	if v >= since {
		return kerr.ProducerFenced
	}
	return kerr.InvalidProducerEpoch
}

func (w *wire) addPartitionsToTxn(v int16) {
	p := w.producer(w.topic, 5)
	add := func(epoch int16, partitions ...int32) (codes []int16) {
		r := ask[*kmsg.AddPartitionsToTxnResponse](w.client, &kmsg.AddPartitionsToTxnRequest{Version: v, TransactionalID: w.topic, ProducerID: p.pid, ProducerEpoch: epoch,
			Topics: []kmsg.AddPartitionsToTxnRequestTopic{{Topic: w.topic, Partitions: partitions}}})
		w.same("topic", r.Topics[0].Topic, w.topic)
		for _, p := range r.Topics[0].Partitions {
			codes = append(codes, p.ErrorCode)
		}
		return codes
	}
	w.same("added", add(p.epoch, 0, 1), []int16{0, 0})
	w.same("one that is not there", add(p.epoch, 0, 9), []int16{kerr.OperationNotAttempted.Code, 3})
	w.same("an old epoch", add(p.epoch-1, 0), []int16{old(v, 2).Code})
	w.is("an end of nothing", p.end(false), nil)
}

func (w *wire) addOffsetsToTxn(v int16) {
	p := w.producer(w.topic, 5)
	req := &kmsg.AddOffsetsToTxnRequest{Version: v, TransactionalID: w.topic, ProducerID: p.pid, ProducerEpoch: p.epoch, Group: "g"}
	w.code("added", ask[*kmsg.AddOffsetsToTxnResponse](w.client, req).ErrorCode, nil)
	req.ProducerEpoch--
	w.code("an old epoch", ask[*kmsg.AddOffsetsToTxnResponse](w.client, req).ErrorCode, old(v, 2))
	req.ProducerID++
	w.code("another producer", ask[*kmsg.AddOffsetsToTxnResponse](w.client, req).ErrorCode, kerr.InvalidProducerIDMapping)
	req.Group = ""
	w.code("no group", ask[*kmsg.AddOffsetsToTxnResponse](w.client, req).ErrorCode, kerr.InvalidGroupID)
}

func (w *wire) endTxn(v int16) {
	p := w.producer(w.topic, v)
	w.is("write", p.write(w.topic, 0, "a"), nil)
	before := *p
	w.is("commit", p.end(true), nil)
	raised := int16(0)
	if v >= 5 {
		raised = 1
	}
	w.same("the epoch is raised by", p.epoch-before.epoch, raised)
	again := before
	w.is("again", again.end(true), nil)
	again = before
	if v >= 5 {
		w.is("and the other way", again.end(false), kerr.ProducerFenced)
	} else {
		w.is("and the other way", again.end(false), kerr.InvalidTxnState)
	}
	w.producer(w.topic, v)
	w.is("an old epoch", p.end(true), old(v, 2))
	unknown := &producer{client: w.client, id: "unknown", endV: v}
	w.is("nobody", unknown.end(true), kerr.InvalidProducerIDMapping)
	w.sees("committed", w.topic, 0, 2, "a")
}

func (w *wire) txnOffsetCommit(v int16) {
	p := w.producer(w.topic, 5)
	commit := func(epoch int16, generation int32, member string) (codes []int16) {
		req := &kmsg.TxnOffsetCommitRequest{Version: v, TransactionalID: w.topic, Group: w.topic, ProducerID: p.pid, ProducerEpoch: epoch, Generation: generation, MemberID: member}
		rt := kmsg.TxnOffsetCommitRequestTopic{Topic: w.topic, TopicID: w.id}
		for _, i := range []int32{0, 9} {
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset = i, 4
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = []kmsg.TxnOffsetCommitRequestTopic{rt}
		for _, p := range ask[*kmsg.TxnOffsetCommitResponse](w.client, req).Topics[0].Partitions {
			codes = append(codes, p.ErrorCode)
		}
		return codes
	}
	w.same("added", commit(p.epoch, -1, ""), []int16{0, 3})
	at, unstable := w.committed(w.topic, w.topic, 0)
	w.same("not committed yet", []any{at, unstable}, []any{-1, kerr.UnstableOffsetCommit.Code})
	w.same("an old epoch", commit(p.epoch-1, -1, ""), []int16{kerr.InvalidProducerEpoch.Code, 3})
	w.is("commit", p.end(true), nil)
	at, unstable = w.committed(w.topic, w.topic, 0)
	w.same("committed", []any{at, unstable}, []any{4, 0})
	if v >= 3 {
		member := w.joined(1)
		w.same("a member", commit(p.epoch, 1, member), []int16{0, 3})
		w.same("another generation", commit(p.epoch, 2, member), []int16{kerr.IllegalGeneration.Code, 3})
		w.same("another member", commit(p.epoch, 1, "nobody"), []int16{kerr.UnknownMemberID.Code, 3})
		w.same("from outside", commit(p.epoch, -1, ""), []int16{0, 3})
	}
}

func (w *wire) describeTransactions(v int16) {
	p := w.producer(w.topic, 5)
	get := func() kmsg.DescribeTransactionsResponseTransactionState {
		r := ask[*kmsg.DescribeTransactionsResponse](w.client, &kmsg.DescribeTransactionsRequest{Version: v, TransactionalIDs: []string{w.topic, "nobody"}})
		w.code("nobody", r.TransactionStates[1].ErrorCode, kerr.TransactionalIDNotFound)
		return r.TransactionStates[0]
	}
	s := get()
	w.same("none yet", []any{s.ErrorCode, s.State, s.ProducerID, s.ProducerEpoch, s.TimeoutMillis, s.StartTimestamp, len(s.Topics)}, []any{0, "Empty", p.pid, p.epoch, 30_000, -1, 0})
	w.is("write", p.write(w.topic, 1, "a"), nil)
	s = get()
	w.same("open", []any{s.State, s.StartTimestamp > 0, s.Topics[0].Topic, s.Topics[0].Partitions}, []any{"Ongoing", true, w.topic, []int32{1}})
	w.is("abort", p.end(false), nil)
	w.same("aborted", get().State, "CompleteAbort")
	w.is("commit of nothing", p.end(true), nil)
	w.same("committed", get().State, "CompleteCommit")
}

func (w *wire) listTransactions(v int16) {
	p := w.producer(w.topic, 5)
	list := func(edit func(*kmsg.ListTransactionsRequest)) string {
		req := kmsg.NewPtrListTransactionsRequest()
		req.Version = v
		if edit != nil {
			edit(req)
		}
		r := ask[*kmsg.ListTransactionsResponse](w.client, req)
		w.code("list", r.ErrorCode, nil)
		out := ""
		for _, s := range r.TransactionStates {
			if s.TransactionalID == w.topic {
				out = fmt.Sprint(s.TransactionState, s.ProducerID == p.pid)
			}
		}
		return out + fmt.Sprint(r.UnknownStateFilters)
	}
	w.same("all", list(nil), "Emptytrue[]")
	w.is("write", p.write(w.topic, 1, "a"), nil)
	w.same("by state", list(func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"Ongoing", "Strange"} }), "Ongoingtrue[Strange]")
	w.same("by another", list(func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"Empty"} }), "[]")
	w.same("by producer", list(func(r *kmsg.ListTransactionsRequest) { r.ProducerIDFilters = []int64{p.pid} }), "Ongoingtrue[]")
	w.same("by another", list(func(r *kmsg.ListTransactionsRequest) { r.ProducerIDFilters = []int64{p.pid + 1} }), "[]")
	if v >= 1 {
		w.same("by age", list(func(r *kmsg.ListTransactionsRequest) { r.DurationFilterMillis = time.Hour.Milliseconds() }), "[]")
	}
	if v >= 2 {
		w.same("by name", list(func(r *kmsg.ListTransactionsRequest) { r.TransactionalIDPattern = ptr(w.topic + ".*") }), "Ongoingtrue[]")
		w.same("by another", list(func(r *kmsg.ListTransactionsRequest) { r.TransactionalIDPattern = ptr("nobody") }), "[]")
	}
	w.is("commit", p.end(true), nil)
}

func (w *wire) describeProducers(v int16) {
	p := w.producer(w.topic, 5)
	w.client.produce(w.topic, 1, -1, sequenced(kwire.Producer{ID: 1 << 40, Epoch: 3, Sequence: 7}, nil, "a", "b"))
	w.is("write", p.write(w.topic, 1, "c"), nil)
	r := ask[*kmsg.DescribeProducersResponse](w.client, &kmsg.DescribeProducersRequest{Version: v, Topics: []kmsg.DescribeProducersRequestTopic{{Topic: w.topic, Partitions: []int32{1, 9}}}})
	w.code("partition 9", r.Topics[0].Partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
	var got []string
	for _, a := range r.Topics[0].Partitions[0].ActiveProducers {
		got = append(got, fmt.Sprint(a.ProducerID, a.ProducerEpoch, a.LastSequence, a.CurrentTxnStartOffset, a.LastTimestamp > 0))
	}
	w.same("producers", got, []string{fmt.Sprint(p.pid, p.epoch, 0, 2, true), fmt.Sprint(int64(1<<40), 3, 8, -1, true)})
	w.is("commit", p.end(true), nil)
}

func (w *wire) describeLogDirs(v int16) {
	w.client.produce(w.topic, 1, -1, values("a", "b"))
	get := func(topics []kmsg.DescribeLogDirsRequestTopic) map[string]int64 {
		r := ask[*kmsg.DescribeLogDirsResponse](w.client, &kmsg.DescribeLogDirsRequest{Version: v, Topics: topics})
		w.same("dirs", []any{r.ErrorCode, len(r.Dirs), r.Dirs[0].ErrorCode, r.Dirs[0].Dir}, []any{0, 1, 0, "data"})
		if v >= 4 {
			w.same("bytes", []any{r.Dirs[0].TotalBytes, r.Dirs[0].UsableBytes > 0}, []any{-1, true})
		}
		sizes := map[string]int64{}
		for _, t := range r.Dirs[0].Topics {
			for _, p := range t.Partitions {
				sizes[fmt.Sprint(t.Topic, "/", p.Partition)] = p.Size
			}
		}
		return sizes
	}
	size := int64(len(values("a", "b")))
	w.same("one", get([]kmsg.DescribeLogDirsRequestTopic{{Topic: w.topic, Partitions: []int32{0, 1, 9}}}), map[string]int64{w.topic + "/0": 0, w.topic + "/1": size})
	all := get(nil)
	w.same("all", []any{len(all) > 2, all[w.topic+"/1"]}, []any{true, size})
}

func (w *wire) electLeaders(v int16) {
	r := ask[*kmsg.ElectLeadersResponse](w.client, &kmsg.ElectLeadersRequest{Version: v, TimeoutMillis: 1000, Topics: []kmsg.ElectLeadersRequestTopic{{Topic: w.topic, Partitions: []int32{0, 9}}}})
	w.code("partition 0", r.Topics[0].Partitions[0].ErrorCode, kerr.ElectionNotNeeded)
	w.code("partition 9", r.Topics[0].Partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
	w.same("those that need one", len(ask[*kmsg.ElectLeadersResponse](w.client, &kmsg.ElectLeadersRequest{Version: v, TimeoutMillis: 1000}).Topics), 0)
}

func (w *wire) alterConfigs(v int16) {
	alter := func(validate bool, name string, configs ...string) *kerr.Error {
		rr := kmsg.AlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name}
		for i := 0; i < len(configs); i += 2 {
			rr.Configs = append(rr.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: configs[i], Value: &configs[i+1]})
		}
		r := ask[*kmsg.AlterConfigsResponse](w.client, &kmsg.AlterConfigsRequest{Version: v, ValidateOnly: validate, Resources: []kmsg.AlterConfigsRequestResource{rr}})
		w.same("resource", []any{len(r.Resources), r.Resources[0].ResourceName}, []any{1, name})
		if r.Resources[0].ErrorCode == 0 {
			return nil
		}
		return kerr.TypedErrorForCode(r.Resources[0].ErrorCode)
	}
	config := func() map[string]string { return w.n.srv.pipeline.View().Topics[w.topic].Config }
	w.same("validated", []any{alter(true, w.topic, "max.message.bytes", "1000"), len(config())}, []any{nil, 0})
	w.same("set", []any{alter(false, w.topic, "max.message.bytes", "1000"), config()}, []any{nil, map[string]string{"max.message.bytes": "1000"}})
	w.same("others fall back", []any{alter(false, w.topic, "cleanup.policy", "delete"), config()}, []any{nil, map[string]string{"cleanup.policy": "delete"}})
	w.same("refused", []any{alter(false, w.topic, "cleanup.policy", "compact"), config()}, []any{kerr.InvalidConfig, map[string]string{"cleanup.policy": "delete"}})
	w.same("no such topic", alter(false, "nobody", "cleanup.policy", "delete"), kerr.UnknownTopicOrPartition)
}
