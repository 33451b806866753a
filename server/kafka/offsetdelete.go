package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/pipeline"
	"tidemark/server/group"
)

// OffsetDelete, API key 47, version 0. Offsets of topics that members read are kept (86); what members read is theirs to say, so while a group has any, none is deleted.
func (b *Broker) offsetDelete(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.OffsetDeleteRequest)
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	if !b.p.Groups().Has(req.Group) {
		if _, known := b.groups.Describe(req.Group); !known {
			resp.ErrorCode = kerr.GroupIDNotFound.Code
			return resp
		}
	}
	cmd := &catalog.DeleteOffsets{Group: req.Group}
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetDeleteResponseTopic()
		t.Topic = rt.Topic
		topic := view.Topics[rt.Topic]
		of := catalog.TopicPartitions{}
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetDeleteResponseTopicPartition()
			p.Partition = rp.Partition
			if topic == nil || rp.Partition < 0 || int(rp.Partition) >= len(topic.Partitions) {
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				of.Partitions = append(of.Partitions, rp.Partition)
			}
			t.Partitions = append(t.Partitions, p)
		}
		if len(of.Partitions) > 0 {
			of.ID = topic.ID
			cmd.Topics = append(cmd.Topics, of)
		}
		resp.Topics = append(resp.Topics, t)
	}
	var pending *pipeline.PendingCommand
	code := int16(0)
	if err := b.groups.Commit(req.Group, group.Who{Generation: -1}, nil, func() {
		pending = b.submitGroup(c, req.Group, catalog.Command{DeleteOffsets: cmd})
	}); err != nil {
		code = kerr.GroupSubscribedToTopic.Code
	} else if err := pending.Wait(ctx).Err; err != nil {
		resp.ErrorCode = groupCode(err)
	}
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			if t.Partitions[i].ErrorCode == 0 {
				t.Partitions[i].ErrorCode = code
			}
		}
	}
	b.groups.Forget(req.Group)
	return resp
}
