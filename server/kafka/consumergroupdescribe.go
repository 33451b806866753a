package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/server/group"
)

// ConsumerGroupDescribe, API key 69, versions 0 to 1: groups of KIP-848.
func (b *Broker) consumerGroupDescribe(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.ConsumerGroupDescribeRequest)
	resp := req.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	view := b.p.View()
	for _, name := range req.Groups {
		g := kmsg.NewConsumerGroupDescribeResponseGroup()
		g.Group, g.AuthorizedOperations = name, math.MinInt32 // not asked for
		d, known := b.groups.Describe(name)
		if !known || d.Type != group.TypeConsumer {
			g.ErrorCode, g.ErrorMessage = kerr.GroupIDNotFound.Code, ptr("no group of this name has members of the protocol of KIP-848")
			resp.Groups = append(resp.Groups, g)
			continue
		}
		g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName = d.State, d.Generation, d.TargetEpoch, d.Protocol
		for _, m := range d.Members {
			one := kmsg.NewConsumerGroupDescribeResponseGroupMember()
			one.MemberID, one.MemberEpoch, one.ClientID, one.ClientHost, one.SubscribedTopics, one.MemberType = m.ID, m.Epoch, m.ClientID, m.Host, m.Subscribed, 1
			if m.Instance != "" {
				one.InstanceID = ptr(m.Instance)
			}
			if m.Rack != "" {
				one.RackID = ptr(m.Rack)
			}
			if m.Regex != "" {
				one.SubscribedTopicRegex = ptr(trimPattern(m.Regex))
			}
			one.Assignment, one.TargetAssignment = assignmentOf(view, m.Partitions), assignmentOf(view, m.Target)
			g.Members = append(g.Members, one)
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func assignmentOf(v *catalog.View, parts []group.Partition) kmsg.Assignment {
	a := kmsg.NewAssignment()
	for _, p := range parts {
		t := v.ByID[p.Topic]
		if t == nil {
			continue
		}
		if last := len(a.TopicPartitions) - 1; last < 0 || a.TopicPartitions[last].TopicID != p.Topic {
			one := kmsg.NewAssignmentTopicPartition()
			one.TopicID, one.Topic = p.Topic, t.Name
			a.TopicPartitions = append(a.TopicPartitions, one)
		}
		last := &a.TopicPartitions[len(a.TopicPartitions)-1]
		last.Partitions = append(last.Partitions, p.Index)
	}
	return a
}

// classicAssignment is an assignment as members of classic groups lay it out (ConsumerProtocolAssignment, version 0), for those who describe groups of KIP-848 the old way.
func classicAssignment(v *catalog.View, parts []group.Partition) []byte {
	out := kmsg.NewConsumerMemberAssignment()
	for _, t := range assignmentOf(v, parts).TopicPartitions {
		out.Topics = append(out.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	return out.AppendTo(nil)
}
