package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/pipeline"
	"tidemark/server/group"
)

// TxnOffsetCommit, API key 28, versions 0 to 6; from 6 on topics are named by id. The offsets are durable when it is answered, and committed when the transaction is.
func (b *Broker) txnOffsetCommit(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.TxnOffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	cmd := &catalog.AddTxnOffsets{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch, Offsets: catalog.CommitOffsets{Group: req.Group, AtMs: time.Now().UnixMilli()}}
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewTxnOffsetCommitResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		topic, unknown := topicOf(view, req.Version >= 6, rt.Topic, rt.TopicID)
		of := catalog.TopicOffsets{}
		for _, rp := range rt.Partitions {
			p := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			p.Partition = rp.Partition
			offset, code := committedOffset(topic, unknown, rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata)
			if p.ErrorCode = code; code == 0 {
				of.Partitions = append(of.Partitions, offset)
			}
			t.Partitions = append(t.Partitions, p)
		}
		if len(of.Partitions) > 0 {
			of.ID = topic.ID
			cmd.Offsets.Topics = append(cmd.Offsets.Topics, of)
		}
		resp.Topics = append(resp.Topics, t)
	}
	code := b.addTxnOffsets(ctx, c, req, cmd)
	for i := range resp.Topics {
		for k := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[k]; p.ErrorCode == 0 {
				p.ErrorCode = code
			}
		}
	}
	return resp
}

func (b *Broker) addTxnOffsets(ctx context.Context, c *Client, req *kmsg.TxnOffsetCommitRequest, cmd *catalog.AddTxnOffsets) int16 {
	if _, _, err := b.txnOf(req.TransactionalID, req.ProducerID, req.ProducerEpoch); err != nil {
		return txnCode(err, req.Version, 99) // this key knows INVALID_PRODUCER_EPOCH alone
	}
	who := group.Who{Member: req.MemberID, Instance: instance(req.InstanceID), Generation: req.Generation}
	if req.Version < 3 {
		who = group.Who{Generation: -1}
	}
	if b.p.Groups().Full() {
		return Code(catalog.ErrOffsetsBytes)
	}
	var pending *pipeline.PendingCommand
	if err := b.groups.CommitTxn(req.Group, who, partitionsOf(&cmd.Offsets), func() {
		if len(cmd.Offsets.Topics) > 0 {
			pending = b.submitGroup(c, req.Group, catalog.Command{AddTxnOffsets: cmd})
		}
	}); err != nil {
		if err == kerr.StaleMemberEpoch { // which this key does not have: Java's producer would take it for fatal
			err = kerr.IllegalGeneration
		}
		return err.Code
	}
	if pending == nil {
		return 0
	}
	err := pending.Wait(ctx).Err
	return txnCode(err, req.Version, 99)
}
