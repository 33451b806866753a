package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeProducers, API key 61, version 0: the idempotent producers that a partition knows, and where their open transactions begin.
func (b *Broker) describeProducers(ctx context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeProducersRequest)
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	b.p.CatchUp() // a producer is known when the follow stage has seen what it wrote
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewDescribeProducersResponseTopic()
		t.Topic = rt.Topic
		for _, index := range rt.Partitions {
			p := kmsg.NewDescribeProducersResponseTopicPartition()
			p.Partition = index
			part := view.Partition(rt.Topic, index)
			if part == nil {
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
				t.Partitions = append(t.Partitions, p)
				continue
			}
			producers, ok := b.p.Producers(ctx, part)
			if !ok {
				p.ErrorCode = kerr.NotLeaderForPartition.Code
			}
			for _, known := range producers {
				one := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
				one.ProducerID, one.ProducerEpoch, one.LastSequence, one.LastTimestamp = known.ID, int32(known.Epoch), known.LastSequence, known.LastMs
				one.CoordinatorEpoch, one.CurrentTxnStartOffset = 0, int64(known.TxnFirst)
				p.ActiveProducers = append(p.ActiveProducers, one)
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
