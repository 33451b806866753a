package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// CreatePartitions, API key 37, versions 0 to 3: Count is the new number of partitions of a topic.
func (b *Broker) createPartitions(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	for _, rt := range req.Topics {
		t := kmsg.NewCreatePartitionsResponseTopic()
		t.Topic = rt.Topic
		if code, err := b.growTopic(ctx, c, rt, req); err != nil {
			t.ErrorCode, t.ErrorMessage = code, ptr(err.Error())
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (b *Broker) growTopic(ctx context.Context, c *Client, rt kmsg.CreatePartitionsRequestTopic, req *kmsg.CreatePartitionsRequest) (int16, error) {
	topic := b.p.View().Topics[rt.Topic]
	if topic == nil {
		return kerr.UnknownTopicOrPartition.Code, fmt.Errorf("no topic %q", rt.Topic)
	}
	have := int32(len(topic.Partitions))
	if rt.Count <= have || rt.Count > catalog.MaxPartitions {
		return kerr.InvalidPartitions.Code, fmt.Errorf("topic %q has %d partitions: the new number is from %d to %d", rt.Topic, have, have+1, catalog.MaxPartitions)
	}
	if n := int32(len(rt.Assignment)); n > 0 {
		if n != rt.Count-have {
			return kerr.InvalidReplicaAssignment.Code, fmt.Errorf("%d assignments for %d new partitions", n, rt.Count-have)
		}
		for _, a := range rt.Assignment {
			if len(a.Replicas) != 1 || a.Replicas[0] != b.nodeID {
				return kerr.InvalidReplicaAssignment.Code, fmt.Errorf("each partition has one replica, on node %d", b.nodeID)
			}
		}
	}
	if req.ValidateOnly {
		return 0, nil
	}
	result := b.command(ctx, c, catalog.Command{CreatePartitions: &catalog.CreatePartitions{ID: topic.ID, Count: rt.Count}}, millis(req.TimeoutMillis))
	return Code(result.Err), result.Err
}
