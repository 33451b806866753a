package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AddPartitionsToTxn, API key 24, versions 0 to 3, those of clients. A partition is part of a transaction when a batch of it is written there, so nothing is noted: the answer says whether producer and partitions are right. In one that is not, none is added, as in Kafka.
func (b *Broker) addPartitionsToTxn(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.AddPartitionsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	code := int16(0)
	if _, _, err := b.txnOf(req.TransactionalID, req.ProducerID, req.ProducerEpoch); err != nil {
		code = txnCode(err, req.Version, 2)
	}
	view := b.p.View()
	missing := false
	for _, rt := range req.Topics {
		t := kmsg.NewAddPartitionsToTxnResponseTopic()
		t.Topic = rt.Topic
		for _, index := range rt.Partitions {
			p := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			p.Partition, p.ErrorCode = index, code
			if code == 0 && view.Partition(rt.Topic, index) == nil {
				p.ErrorCode, missing = kerr.UnknownTopicOrPartition.Code, true
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	for i := range resp.Topics {
		for k := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[k]; missing && p.ErrorCode == 0 {
				p.ErrorCode = kerr.OperationNotAttempted.Code
			}
		}
	}
	return resp
}
