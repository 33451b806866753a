package kafka

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

// OffsetFetch, API key 9, versions 1 to 10: of several groups from 8 on, by topic id from 10 on. What was never committed, of a group that nobody knows too, is −1 without an error. A null list of topics (2 and up) means all. Who wants stable offsets (7 and up) is told to ask again while a transaction is open that will commit one.
func (b *Broker) offsetFetch(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.OffsetFetchRequest)
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if req.Version >= 8 {
		for _, rg := range req.Groups {
			g := kmsg.NewOffsetFetchResponseGroup()
			g.Group = rg.Group
			if rg.MemberID != nil && rg.MemberEpoch >= 0 { // a member of a group of KIP-848
				if err := b.groups.Commit(rg.Group, group.Who{Member: *rg.MemberID, Generation: rg.MemberEpoch}, nil, nil); err != nil {
					g.ErrorCode = err.Code
					resp.Groups = append(resp.Groups, g)
					continue
				}
			}
			g.Topics = b.fetchOffsets(rg.Group, rg.Topics, req)
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	}
	var asked []kmsg.OffsetFetchRequestGroupTopic
	if req.Topics != nil || req.Version < 2 {
		asked = make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(req.Topics))
	}
	for _, rt := range req.Topics {
		asked = append(asked, kmsg.OffsetFetchRequestGroupTopic{Topic: rt.Topic, Partitions: rt.Partitions})
	}
	for _, gt := range b.fetchOffsets(req.Group, asked, req) {
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = gt.Topic
		for _, gp := range gt.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = gp.Partition, gp.Offset, gp.LeaderEpoch, gp.Metadata, gp.ErrorCode
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// fetchOffsets is what a group committed of the topics that are asked for; of all if asked is nil.
func (b *Broker) fetchOffsets(name string, asked []kmsg.OffsetFetchRequestGroupTopic, req *kmsg.OffsetFetchRequest) []kmsg.OffsetFetchResponseGroupTopic {
	view := b.p.View()
	if asked == nil {
		for id, parts := range b.p.Groups().All(name) {
			t := view.ByID[id]
			if t == nil {
				continue // it is being deleted
			}
			one := kmsg.OffsetFetchRequestGroupTopic{Topic: t.Name, TopicID: id}
			for index := range parts {
				one.Partitions = append(one.Partitions, index)
			}
			slices.Sort(one.Partitions)
			asked = append(asked, one)
		}
		slices.SortFunc(asked, func(a, b kmsg.OffsetFetchRequestGroupTopic) int { return strings.Compare(a.Topic, b.Topic) })
	}
	var out []kmsg.OffsetFetchResponseGroupTopic
	for _, rt := range asked {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		topic, unknown := topicOf(view, req.Version >= 10, rt.Topic, rt.TopicID)
		for _, index := range rt.Partitions {
			p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = index, -1, -1, ptr("")
			if topic != nil {
				if at, ok := b.p.Groups().Of(name, topic.ID, index); ok {
					p.Offset, p.LeaderEpoch, p.Metadata = at.Offset, at.LeaderEpoch, ptr(at.Metadata)
				}
				if req.RequireStable && b.p.Txns().Unstable(name, topic.ID, index) {
					p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = -1, -1, ptr(""), kerr.UnstableOffsetCommit.Code
				}
			} else if unknown == kerr.UnknownTopicID {
				p.ErrorCode = unknown.Code
			}
			t.Partitions = append(t.Partitions, p)
		}
		out = append(out, t)
	}
	return out
}
