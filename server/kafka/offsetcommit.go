package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/internal/planted"
	"tidemark/pipeline"
	"tidemark/server/group"
)

// offsetMetadataMax is Kafka's default limit on what a client may note beside an offset, bytes (offset.metadata.max.bytes).
const offsetMetadataMax = 4096

// OffsetCommit, API key 8, versions 2 to 10; from 10 on topics are named by id. Offsets are a command of the catalog: answered when they are durable at ALL. The retention that versions 2 to 4 ask for is the server's, as in Kafka since 2.1.
func (b *Broker) offsetCommit(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.OffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	cmd := &catalog.CommitOffsets{Group: req.Group, AtMs: time.Now().UnixMilli()}
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetCommitResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		topic, unknown := topicOf(view, req.Version >= 10, rt.Topic, rt.TopicID)
		of := catalog.TopicOffsets{}
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetCommitResponseTopicPartition()
			p.Partition = rp.Partition
			offset, code := committedOffset(topic, unknown, rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata)
			if p.ErrorCode = code; code == 0 {
				of.Partitions = append(of.Partitions, offset)
			}
			t.Partitions = append(t.Partitions, p)
		}
		if len(of.Partitions) > 0 {
			of.ID = topic.ID
			cmd.Topics = append(cmd.Topics, of)
		}
		resp.Topics = append(resp.Topics, t)
	}
	code := b.commitOffsets(ctx, c, group.Who{Member: req.MemberID, Instance: instance(req.InstanceID), Generation: req.Generation}, cmd)
	if code == kerr.StaleMemberEpoch.Code && req.Version < 9 {
		code = kerr.IllegalGeneration.Code
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
				p.ErrorCode = code
			}
		}
	}
	return resp
}

// committedOffset checks an offset that is to be committed.
func committedOffset(topic *catalog.Topic, unknown *kerr.Error, index int32, offset int64, leaderEpoch int32, metadata *string) (o catalog.PartitionOffset, code int16) {
	o = catalog.PartitionOffset{Index: index, Offset: offset, LeaderEpoch: max(leaderEpoch, -1)}
	if metadata != nil {
		o.Metadata = *metadata
	}
	switch {
	case topic == nil:
		code = unknown.Code
	case index < 0 || int(index) >= len(topic.Partitions):
		code = kerr.UnknownTopicOrPartition.Code
	case len(o.Metadata) > offsetMetadataMax:
		code = kerr.OffsetMetadataTooLarge.Code
	case offset < 0:
		code = kerr.OffsetOutOfRange.Code
	}
	return o, code
}

// commitOffsets has a member's offsets made durable, if it may commit now. A commit of nothing is checked all the same.
func (b *Broker) commitOffsets(ctx context.Context, c *Client, w group.Who, cmd *catalog.CommitOffsets) int16 {
	if err := groupIDError(cmd.Group); err != nil && cmd.Group != "" { // one without members may have none, as in Kafka
		return err.Code
	}
	var pending *pipeline.PendingCommand
	if err := b.groups.Commit(cmd.Group, w, partitionsOf(cmd), func() {
		if len(cmd.Topics) > 0 {
			pending = b.submitGroup(c, cmd.Group, catalog.Command{CommitOffsets: cmd})
		}
	}); err != nil {
		return err.Code
	}
	if pending == nil || planted.Is(planted.CommitBeforeSync) {
		return 0
	}
	return groupCode(pending.Wait(ctx).Err)
}

// partitionsOf are the partitions that offsets are of.
func partitionsOf(cmd *catalog.CommitOffsets) (of []group.Partition) {
	for _, t := range cmd.Topics {
		for _, p := range t.Partitions {
			of = append(of, group.Partition{Topic: t.ID, Index: p.Index})
		}
	}
	return of
}

// topicOf finds a topic by id or by name, and says how it is called if there is none.
func topicOf(v *catalog.View, byID bool, name string, id [16]byte) (*catalog.Topic, *kerr.Error) {
	if byID {
		return v.ByID[catalog.TopicID(id)], kerr.UnknownTopicID
	}
	return v.Topics[name], kerr.UnknownTopicOrPartition
}
