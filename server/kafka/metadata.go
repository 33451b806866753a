package kafka

import (
	"context"
	"crypto/rand"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// Metadata, API key 3, versions 0 to 13. A null list of topics means all, an empty one none; in version 0 an empty one means all. Below version 4 there is no
// flag for auto-creation, which then counts as set.
func (b *Broker) metadata(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.MetadataRequest)
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	broker := kmsg.NewMetadataResponseBroker()
	broker.NodeID, broker.Host, broker.Port = b.nodeID, b.cfg.Host, b.cfg.Port
	resp.Brokers = append(resp.Brokers, broker)
	resp.ClusterID = ptr(b.p.Meta().ClusterID)
	resp.ControllerID = b.nodeID
	if req.Topics == nil || req.Version == 0 && len(req.Topics) == 0 {
		for _, t := range b.p.View().Topics {
			resp.Topics = append(resp.Topics, b.describeTopic(t))
		}
		return resp
	}
	create := b.cfg.AutoCreate && (req.Version < 4 || req.AllowAutoTopicCreation)
	for _, rt := range req.Topics {
		resp.Topics = append(resp.Topics, b.metadataTopic(ctx, c, rt, create))
	}
	return resp
}

func (b *Broker) metadataTopic(ctx context.Context, c *Client, rt kmsg.MetadataRequestTopic, create bool) kmsg.MetadataResponseTopic {
	none := kmsg.NewMetadataResponseTopic()
	none.Topic, none.TopicID = rt.Topic, rt.TopicID
	if rt.Topic == nil {
		if t := b.p.View().ByID[catalog.TopicID(rt.TopicID)]; t != nil {
			return b.describeTopic(t)
		}
		none.ErrorCode = kerr.UnknownTopicID.Code
		return none
	}
	name := *rt.Topic
	if t := b.p.View().Topics[name]; t != nil {
		return b.describeTopic(t)
	}
	if checkTopicName(name) != nil {
		none.ErrorCode = kerr.InvalidTopicException.Code
		return none
	}
	none.ErrorCode = kerr.UnknownTopicOrPartition.Code
	if !create {
		return none
	}
	result := b.command(ctx, c, catalog.Command{CreateTopic: &catalog.CreateTopic{Name: name, ID: newTopicID(), Partitions: b.cfg.DefaultPartitions}}, 0)
	if t := b.p.View().Topics[name]; t != nil { // ours, or one that somebody else made meanwhile
		return b.describeTopic(t)
	}
	if none.ErrorCode = Code(result.Err); none.ErrorCode != kerr.PolicyViolation.Code {
		none.ErrorCode = kerr.LeaderNotAvailable.Code // clients ask again
	}
	return none
}

func newTopicID() catalog.TopicID {
	var id catalog.TopicID
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // a UUID of version 4
	return id
}

func (b *Broker) describeTopic(t *catalog.Topic) kmsg.MetadataResponseTopic {
	mt := kmsg.NewMetadataResponseTopic()
	mt.Topic, mt.TopicID = ptr(t.Name), t.ID
	mt.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, len(t.Partitions))
	self := []int32{b.nodeID}
	for _, p := range t.Partitions {
		mp := kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch = p.Index, b.nodeID, b.p.LeaderEpoch()
		mp.Replicas, mp.ISR = self, self
		mt.Partitions = append(mt.Partitions, mp)
	}
	return mt
}
