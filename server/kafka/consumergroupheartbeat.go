package kafka

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/server/group"
)

// ConsumerGroupHeartbeat, API key 68, versions 0 to 1: all that a member of a group of KIP-848 says, and all that it is told. From version 1 on members choose their ids, and may subscribe by a pattern, which has to match a topic's whole name (RE2).
func (b *Broker) consumerGroupHeartbeat(_ context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.ConsumerGroupHeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	h := group.ConsumerHeartbeat{
		Who:  group.Who{Member: req.MemberID, Instance: instance(req.InstanceID), Generation: req.MemberEpoch},
		Rack: instance(req.RackID), ClientID: c.ID, Host: hostOf(c), Subscribed: req.SubscribedTopicNames, Topics: (*groupTopics)(b.p.View()),
	}
	refuse := func(err *kerr.Error, why string) kmsg.Response {
		resp.ErrorCode, resp.MemberEpoch = err.Code, req.MemberEpoch
		if why != "" {
			resp.ErrorMessage = &why
		}
		return resp
	}
	if err := groupIDError(req.Group); err != nil {
		return refuse(err, "")
	}
	if len(h.Member) > 2*memberNameMax || len(h.Instance) > memberNameMax {
		return refuse(kerr.InvalidRequest, fmt.Sprintf("a member's id has at most %d bytes, and a static member's name %d", 2*memberNameMax, memberNameMax))
	}
	if h.Member == "" {
		if req.Version > 0 || req.MemberEpoch != 0 {
			return refuse(kerr.InvalidRequest, "a member has an id")
		}
		h.Member = newMemberID(c, req.InstanceID)
	}
	if req.RebalanceTimeoutMillis > 0 {
		h.Rebalance = millis(req.RebalanceTimeoutMillis)
	}
	if req.Version >= 1 && req.SubscribedTopicRegex != nil {
		h.RegexSaid = true
		if *req.SubscribedTopicRegex != "" {
			if len(*req.SubscribedTopicRegex) > patternMax {
				return refuse(kerr.InvalidRegularExpression, fmt.Sprintf("a pattern has at most %d bytes", patternMax))
			}
			re, err := regexp.Compile(wholePrefix + *req.SubscribedTopicRegex + wholeSuffix)
			if err != nil {
				return refuse(kerr.InvalidRegularExpression, err.Error())
			}
			h.Regex = re
		}
	}
	if req.ServerAssignor != nil {
		if !group.Assigns(*req.ServerAssignor) {
			return refuse(kerr.UnsupportedAssignor, "assignors are "+group.Uniform+" and "+group.Range)
		}
		h.Assignor = req.ServerAssignor
	}
	if req.Topics != nil {
		h.Owned = []group.Partition{}
		for _, t := range req.Topics {
			for _, index := range t.Partitions {
				h.Owned = append(h.Owned, group.Partition{Topic: t.TopicID, Index: index})
			}
		}
	}
	r := b.groups.ConsumerHeartbeat(req.Group, h)
	if r.Err != nil {
		return refuse(r.Err, r.Why)
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &r.Member, r.Epoch, int32(b.cfg.Group.Heartbeat.Milliseconds())
	if r.Assigns {
		a := kmsg.NewConsumerGroupHeartbeatResponseAssignment()
		for _, p := range r.Assigned {
			if last := len(a.Topics) - 1; last < 0 || a.Topics[last].TopicID != p.Topic {
				a.Topics = append(a.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{TopicID: p.Topic})
			}
			last := &a.Topics[len(a.Topics)-1]
			last.Partitions = append(last.Partitions, p.Index)
		}
		resp.Assignment = &a
	}
	return resp
}

// A pattern matches a whole name.
const (
	wholePrefix = "^(?:"
	wholeSuffix = ")$"
	patternMax  = 1000
)

// groupTopics shows a view's topics to a group. Two views are the same if they are one.
type groupTopics catalog.View

// Named finds a topic.
func (v *groupTopics) Named(name string) (group.Topic, bool) {
	t := v.Topics[name]
	if t == nil {
		return group.Topic{}, false
	}
	return groupTopic(t), true
}

// Matching finds the topics that a pattern matches.
func (v *groupTopics) Matching(re *regexp.Regexp) (ts []group.Topic) {
	for name, t := range v.Topics {
		if re.MatchString(name) {
			ts = append(ts, groupTopic(t))
		}
	}
	return ts
}

func groupTopic(t *catalog.Topic) group.Topic {
	return group.Topic{ID: t.ID, Name: t.Name, Partitions: int32(len(t.Partitions))}
}

// trimPattern is a pattern as its member said it.
func trimPattern(s string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, wholePrefix), wholeSuffix)
}
