package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The third part of TestEveryKeyAtEveryVersion: consumer groups. Each goes by the name of its topic.

// joined makes one member of the group by the newest versions, stable with an assignment, and returns its id.
func (w *wire) joined(generation int32) string {
	w.t.Helper()
	r := w.joinAs("", 9)
	w.code("an id first", r.ErrorCode, kerr.MemberIDRequired)
	r = w.joinAs(r.MemberID, 9)
	w.code("join", r.ErrorCode, nil)
	w.same("generation", r.Generation, generation)
	s := w.sync(r.MemberID, generation, 5)
	w.code("sync", s.ErrorCode, nil)
	return r.MemberID
}

func (w *wire) joinAs(member string, v int16) *kmsg.JoinGroupResponse {
	w.t.Helper()
	return ask[*kmsg.JoinGroupResponse](w.client, &kmsg.JoinGroupRequest{Version: v, Group: w.topic, SessionTimeoutMillis: 30_000, RebalanceTimeoutMillis: 30_000, MemberID: member, ProtocolType: "consumer",
		Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("said")}}})
}

// A member's id fits a string of the protocol, however long its client's name is.
func TestLongNamesOfMembers(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		w := &wire{client: n.dialAs(t, strings.Repeat("ü", 16_000)), n: n, topic: "g"}
		r := w.joinAs("", 3)
		w.code("join", r.ErrorCode, nil)
		if len(r.MemberID) > 1100 || r.LeaderID != r.MemberID || !strings.HasPrefix(r.MemberID, "üü") {
			t.Errorf("an id of %d bytes, the leader's has %d", len(r.MemberID), len(r.LeaderID))
		}
		w.code("a heartbeat", ask[*kmsg.ConsumerGroupHeartbeatResponse](w.client, &kmsg.ConsumerGroupHeartbeatRequest{Version: 1, Group: "new", MemberID: strings.Repeat("x", 3000), RebalanceTimeoutMillis: 1000, SubscribedTopicNames: []string{"t"}, Topics: []kmsg.ConsumerGroupHeartbeatRequestTopic{}}).ErrorCode, kerr.InvalidRequest)
		long := strings.Repeat("x", 2000)
		w.code("a static member", ask[*kmsg.JoinGroupResponse](w.client, &kmsg.JoinGroupRequest{Version: 9, Group: "s", SessionTimeoutMillis: 30_000, RebalanceTimeoutMillis: 30_000, InstanceID: &long, ProtocolType: "consumer",
			Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}}).ErrorCode, kerr.InvalidRequest)
	})
}

func (w *wire) sync(member string, generation int32, v int16) *kmsg.SyncGroupResponse {
	w.t.Helper()
	return ask[*kmsg.SyncGroupResponse](w.client, &kmsg.SyncGroupRequest{Version: v, Group: w.topic, Generation: generation, MemberID: member, ProtocolType: ptr("consumer"), Protocol: ptr("range"),
		GroupAssignment: []kmsg.SyncGroupRequestGroupAssignment{{MemberID: member, MemberAssignment: []byte("part")}}})
}

func (w *wire) joinGroup(v int16) {
	r := w.joinAs("", v)
	if v >= 4 {
		w.code("an id first", r.ErrorCode, kerr.MemberIDRequired)
		r = w.joinAs(r.MemberID, v)
	}
	w.code("join", r.ErrorCode, nil)
	w.same("generation, protocol, leader", []any{r.Generation, *r.Protocol, r.LeaderID == r.MemberID, strings.HasPrefix(r.MemberID, "test-")}, []any{1, "range", true, true})
	if v >= 7 {
		w.same("protocol type", *r.ProtocolType, "consumer")
	}
	w.same("members", len(r.Members), 1)
	w.same("member", []any{r.Members[0].MemberID == r.MemberID, string(r.Members[0].ProtocolMetadata)}, []any{true, "said"})
	for name, c := range map[string]struct {
		edit func(*kmsg.JoinGroupRequest)
		want *kerr.Error
	}{
		"no group":              {func(r *kmsg.JoinGroupRequest) { r.Group = "" }, kerr.InvalidGroupID},
		"a session too short":   {func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 0 }, kerr.InvalidSessionTimeout},
		"a session too long":    {func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 << 30 }, kerr.InvalidSessionTimeout},
		"an unknown member":     {func(r *kmsg.JoinGroupRequest) { r.MemberID = "nobody" }, kerr.UnknownMemberID},
		"another protocol":      {func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = "other" }, kerr.InconsistentGroupProtocol},
		"another protocol type": {func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" }, kerr.InconsistentGroupProtocol},
	} {
		req := &kmsg.JoinGroupRequest{Version: v, Group: w.topic, SessionTimeoutMillis: 30_000, RebalanceTimeoutMillis: 30_000, ProtocolType: "consumer", Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}}
		c.edit(req)
		r := ask[*kmsg.JoinGroupResponse](w.client, req)
		w.code(name, r.ErrorCode, c.want)
		w.same("generation", r.Generation, -1)
	}
}

func (w *wire) syncGroup(v int16) {
	r := w.joinAs("", 3)
	w.code("join", r.ErrorCode, nil)
	s := w.sync(r.MemberID, r.Generation, v)
	w.code("sync", s.ErrorCode, nil)
	w.same("assignment", string(s.MemberAssignment), "part")
	if v >= 5 {
		w.same("protocol", []any{*s.ProtocolType, *s.Protocol}, []any{"consumer", "range"})
	}
	w.same("again", string(w.sync(r.MemberID, r.Generation, v).MemberAssignment), "part")
	w.code("another generation", w.sync(r.MemberID, r.Generation+1, v).ErrorCode, kerr.IllegalGeneration)
	w.code("another member", w.sync("nobody", r.Generation, v).ErrorCode, kerr.UnknownMemberID)
}

func (w *wire) heartbeat(v int16) {
	member := w.joined(1)
	for name, c := range map[string]struct {
		req  kmsg.HeartbeatRequest
		want *kerr.Error
	}{
		"it lives":           {kmsg.HeartbeatRequest{Group: w.topic, Generation: 1, MemberID: member}, nil},
		"another generation": {kmsg.HeartbeatRequest{Group: w.topic, Generation: 2, MemberID: member}, kerr.IllegalGeneration},
		"another member":     {kmsg.HeartbeatRequest{Group: w.topic, Generation: 1, MemberID: "nobody"}, kerr.UnknownMemberID},
		"another group":      {kmsg.HeartbeatRequest{Group: "other", Generation: 1, MemberID: member}, kerr.UnknownMemberID},
		"no group":           {kmsg.HeartbeatRequest{Generation: 1, MemberID: member}, kerr.InvalidGroupID},
	} {
		c.req.Version = v
		w.code(name, ask[*kmsg.HeartbeatResponse](w.client, &c.req).ErrorCode, c.want)
	}
}

func (w *wire) leaveGroup(v int16) {
	member := w.joined(1)
	leave := func() *kmsg.LeaveGroupResponse {
		return ask[*kmsg.LeaveGroupResponse](w.client, &kmsg.LeaveGroupRequest{Version: v, Group: w.topic, MemberID: member, Members: []kmsg.LeaveGroupRequestMember{{MemberID: member}, {MemberID: "nobody"}}})
	}
	r := leave()
	w.code("leave", r.ErrorCode, nil)
	if v >= 3 {
		w.same("members", len(r.Members), 2)
		w.code("a member", r.Members[0].ErrorCode, nil)
		w.code("nobody", r.Members[1].ErrorCode, kerr.UnknownMemberID)
	} else {
		w.code("again", leave().ErrorCode, kerr.UnknownMemberID)
	}
	w.code("it is out", ask[*kmsg.HeartbeatResponse](w.client, &kmsg.HeartbeatRequest{Group: w.topic, Generation: 1, MemberID: member}).ErrorCode, kerr.UnknownMemberID)
}

// commit has a member commit offsets 10, 11 and 12 of partitions 0, 1 and, which is not there, 2.
func (w *wire) commit(v int16, member string, generation int32, metadata string) []int16 {
	w.t.Helper()
	req := &kmsg.OffsetCommitRequest{Version: v, Group: w.topic, Generation: generation, MemberID: member, RetentionTimeMillis: -1}
	rt := kmsg.OffsetCommitRequestTopic{Topic: w.topic, TopicID: w.id}
	for i := range int32(3) {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = i, 10+int64(i), 3, &metadata
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = []kmsg.OffsetCommitRequestTopic{rt}
	var codes []int16
	for _, p := range ask[*kmsg.OffsetCommitResponse](w.client, req).Topics[0].Partitions {
		codes = append(codes, p.ErrorCode)
	}
	return codes
}

func (w *wire) offsetCommit(v int16) {
	w.same("from outside", w.commit(v, "", -1, "outside"), []int16{0, 0, 3})
	at, _ := w.n.srv.pipeline.Groups().Of(w.topic, w.id, 1)
	want := any(3)
	if v < 6 {
		want = -1
	}
	w.same("committed", []any{at.Offset, at.Metadata, at.LeaderEpoch}, []any{11, "outside", want})
	w.same("a group that is not there", w.commit(v, "m", 1, ""), []int16{22, 22, 3})
	member := w.joined(1)
	w.same("a member", w.commit(v, member, 1, "inside"), []int16{0, 0, 3})
	w.same("from outside, while there are members", w.commit(v, "", -1, ""), []int16{25, 25, 3})
	w.same("another generation", w.commit(v, member, 0, ""), []int16{22, 22, 3})
	w.same("another member", w.commit(v, "nobody", 1, ""), []int16{25, 25, 3})
	w.same("too much beside it", w.commit(v, member, 1, strings.Repeat("x", 4097)), []int16{12, 12, 3})
	at, _ = w.n.srv.pipeline.Groups().Of(w.topic, w.id, 1)
	w.same("committed", at.Metadata, "inside")
}

func (w *wire) offsetFetch(v int16) {
	w.commit(6, "", -1, "note")
	get := func(all bool, groups ...string) [][]kmsg.OffsetFetchResponseGroupTopic {
		req := &kmsg.OffsetFetchRequest{Version: v, Group: groups[0]}
		if !all {
			req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: w.topic, Partitions: []int32{0, 5}}}
		}
		for _, g := range groups {
			rg := kmsg.NewOffsetFetchRequestGroup()
			rg.Group = g
			if !all {
				rg.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: w.topic, TopicID: w.id, Partitions: []int32{0, 5}}}
			}
			req.Groups = append(req.Groups, rg)
		}
		resp := ask[*kmsg.OffsetFetchResponse](w.client, req)
		w.code("group", resp.ErrorCode, nil)
		var out [][]kmsg.OffsetFetchResponseGroupTopic
		for _, g := range resp.Groups {
			w.code("group", g.ErrorCode, nil)
			out = append(out, g.Topics)
		}
		if v < 8 {
			var ts []kmsg.OffsetFetchResponseGroupTopic
			for _, t := range resp.Topics {
				gt := kmsg.OffsetFetchResponseGroupTopic{Topic: t.Topic}
				for _, p := range t.Partitions {
					gt.Partitions = append(gt.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode})
				}
				ts = append(ts, gt)
			}
			out = append(out, ts)
		}
		return out
	}
	show := func(ts []kmsg.OffsetFetchResponseGroupTopic) (out []string) {
		for _, t := range ts {
			if v >= 10 {
				w.same("topic", t.TopicID, w.id)
			} else {
				w.same("topic", t.Topic, w.topic)
			}
			for _, p := range t.Partitions {
				epoch := p.LeaderEpoch
				if v < 5 {
					epoch = 3
				}
				if p.Offset < 0 {
					epoch = -1
				}
				out = append(out, fmt.Sprintf("%d:%d/%d %q %d", p.Partition, p.Offset, epoch, *p.Metadata, p.ErrorCode))
			}
		}
		return out
	}
	w.same("what was committed, and what was not", show(get(false, w.topic)[0]), []string{`0:10/3 "note" 0`, `5:-1/-1 "" 0`})
	w.same("a group that nobody knows", show(get(false, "nobody")[0]), []string{`0:-1/-1 "" 0`, `5:-1/-1 "" 0`})
	if v >= 2 {
		w.same("all", show(get(true, w.topic)[0]), []string{`0:10/3 "note" 0`, `1:11/3 "note" 0`})
		w.same("all of a group that nobody knows", len(get(true, "nobody")[0]), 0)
	}
	if v >= 8 {
		w.same("two groups", len(get(false, w.topic, "nobody")), 2)
	}
}

func (w *wire) offsetDelete(v int16) {
	req := &kmsg.OffsetDeleteRequest{Version: v, Group: w.topic, Topics: []kmsg.OffsetDeleteRequestTopic{{Topic: w.topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 9}}}}}
	w.code("a group that is not there", ask[*kmsg.OffsetDeleteResponse](w.client, req).ErrorCode, kerr.GroupIDNotFound)
	w.commit(6, "", -1, "")
	member := w.joined(1)
	r := ask[*kmsg.OffsetDeleteResponse](w.client, req)
	w.same("a group that has members", []any{r.ErrorCode, r.Topics[0].Partitions[0].ErrorCode, r.Topics[0].Partitions[1].ErrorCode}, []any{0, kerr.GroupSubscribedToTopic.Code, 3})
	ask[*kmsg.LeaveGroupResponse](w.client, &kmsg.LeaveGroupRequest{Group: w.topic, MemberID: member})
	r = ask[*kmsg.OffsetDeleteResponse](w.client, req)
	w.same("deleted", []any{r.ErrorCode, r.Topics[0].Partitions[0].ErrorCode, r.Topics[0].Partitions[1].ErrorCode}, []any{0, 0, 3})
	_, zero := w.n.srv.pipeline.Groups().Of(w.topic, w.id, 0)
	_, one := w.n.srv.pipeline.Groups().Of(w.topic, w.id, 1)
	w.same("what is left", []any{zero, one}, []any{false, true})
}

func (w *wire) listGroups(v int16) {
	list := func(states, types []string) (out []string) {
		r := ask[*kmsg.ListGroupsResponse](w.client, &kmsg.ListGroupsRequest{Version: v, StatesFilter: states, TypesFilter: types})
		w.code("list", r.ErrorCode, nil)
		for _, g := range r.Groups {
			if g.Group == w.topic {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", g.ProtocolType, g.GroupState, g.GroupType)))
			}
		}
		return out
	}
	says := func(protocol, state string) []string {
		switch {
		case v < 4:
			return []string{protocol}
		case v < 5:
			return []string{strings.TrimSpace(protocol + " " + state)}
		}
		return []string{strings.TrimSpace(protocol + " " + state + " classic")}
	}
	w.same("nothing", len(list(nil, nil)), 0)
	w.commit(6, "", -1, "")
	w.same("offsets alone", list(nil, nil), says("", "Empty"))
	w.joined(1)
	w.same("a member", list(nil, nil), says("consumer", "Stable"))
	if v >= 4 {
		w.same("by state", list([]string{"stable", "Dead"}, nil), says("consumer", "Stable"))
		w.same("by another", len(list([]string{"Empty"}, nil)), 0)
	}
	if v >= 5 {
		w.same("by type", list(nil, []string{"Classic"}), says("consumer", "Stable"))
		w.same("by another", len(list(nil, []string{"consumer"})), 0)
	}
}

func (w *wire) describeGroups(v int16) {
	member := w.joined(1)
	r := ask[*kmsg.DescribeGroupsResponse](w.client, &kmsg.DescribeGroupsRequest{Version: v, Groups: []string{w.topic, "nobody"}})
	g := r.Groups[0]
	w.same("group", []any{g.ErrorCode, g.Group, g.State, g.ProtocolType, g.Protocol, len(g.Members)}, []any{0, w.topic, "Stable", "consumer", "range", 1})
	m := g.Members[0]
	w.same("member", []any{m.MemberID, m.ClientID, m.ClientHost, string(m.ProtocolMetadata), string(m.MemberAssignment)}, []any{member, "test", "/127.0.0.1", "said", "part"})
	code := int16(0)
	if v >= 6 {
		code = kerr.GroupIDNotFound.Code
	}
	w.same("nobody", []any{r.Groups[1].ErrorCode, r.Groups[1].State}, []any{code, "Dead"})
}

func (w *wire) deleteGroups(v int16) {
	w.commit(6, "", -1, "")
	member := w.joined(1)
	del := func() (codes []int16) {
		for _, g := range ask[*kmsg.DeleteGroupsResponse](w.client, &kmsg.DeleteGroupsRequest{Version: v, Groups: []string{w.topic, "nobody"}}).Groups {
			codes = append(codes, g.ErrorCode)
		}
		return codes
	}
	w.same("a group that has members", del(), []int16{kerr.NonEmptyGroup.Code, kerr.GroupIDNotFound.Code})
	ask[*kmsg.LeaveGroupResponse](w.client, &kmsg.LeaveGroupRequest{Group: w.topic, MemberID: member})
	w.same("deleted", del(), []int16{0, kerr.GroupIDNotFound.Code})
	w.same("what it committed", w.n.srv.pipeline.Groups().Has(w.topic), false)
	w.same("again", del(), []int16{kerr.GroupIDNotFound.Code, kerr.GroupIDNotFound.Code})
}

// modern is a member of the group by the protocol of KIP-848.
func (w *wire) modern(v int16, member string, epoch int32, edit func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatResponse {
	w.t.Helper()
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch = v, w.topic, member, epoch
	if epoch == 0 {
		req.RebalanceTimeoutMillis, req.SubscribedTopicNames, req.Topics = 30_000, []string{w.topic}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	if edit != nil {
		edit(req)
	}
	return ask[*kmsg.ConsumerGroupHeartbeatResponse](w.client, req)
}

func (w *wire) consumerGroupHeartbeat(v int16) {
	member := "m"
	if v == 0 {
		member = ""
	}
	r := w.modern(v, member, 0, nil)
	w.same("joined", []any{r.ErrorCode, r.HeartbeatIntervalMillis, r.MemberEpoch > 0, *r.MemberID != ""}, []any{0, 50, true, true})
	w.same("assigned", fmt.Sprint(r.Assignment.Topics), fmt.Sprint([]kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{{TopicID: w.id, Partitions: []int32{0, 1}}}))
	member = *r.MemberID
	next := w.modern(v, member, r.MemberEpoch, nil)
	w.same("lives", []any{next.ErrorCode, next.MemberEpoch, next.Assignment == nil}, []any{0, r.MemberEpoch, true})
	w.code("another epoch", w.modern(v, member, r.MemberEpoch+1, nil).ErrorCode, kerr.FencedMemberEpoch)
	w.code("nobody", w.modern(v, "nobody", 1, nil).ErrorCode, kerr.UnknownMemberID)
	w.code("no group", w.modern(v, member, r.MemberEpoch, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group = "" }).ErrorCode, kerr.InvalidGroupID)
	w.code("no such assignor", w.modern(v, member, r.MemberEpoch, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = ptr("strange") }).ErrorCode, kerr.UnsupportedAssignor)
	w.code("the other protocol", w.joinAs("", 3).ErrorCode, kerr.InconsistentGroupProtocol)
	if v >= 1 {
		w.code("no pattern", w.modern(v, member, r.MemberEpoch, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = ptr("(") }).ErrorCode, kerr.InvalidRegularExpression)
		w.code("without an id", w.modern(v, "", 0, nil).ErrorCode, kerr.InvalidRequest)
	}
	w.same("commit", w.commit(9, member, r.MemberEpoch, ""), []int16{0, 0, 3})
	w.same("commit, by another epoch", w.commit(9, member, r.MemberEpoch+1, ""), []int16{kerr.StaleMemberEpoch.Code, kerr.StaleMemberEpoch.Code, 3})
	w.same("the same, said the old way", w.commit(8, member, r.MemberEpoch+1, ""), []int16{22, 22, 3})
	for epoch, want := range map[int32]*kerr.Error{r.MemberEpoch: nil, r.MemberEpoch + 1: kerr.StaleMemberEpoch} {
		rg := kmsg.NewOffsetFetchRequestGroup()
		rg.Group, rg.MemberID, rg.MemberEpoch, rg.Topics = w.topic, &member, epoch, nil
		w.code("fetch", ask[*kmsg.OffsetFetchResponse](w.client, &kmsg.OffsetFetchRequest{Version: 9, Groups: []kmsg.OffsetFetchRequestGroup{rg}}).Groups[0].ErrorCode, want)
	}
	left := w.modern(v, member, -1, nil)
	w.same("left", []any{left.ErrorCode, left.MemberEpoch}, []any{0, -1})
	w.code("and gone", w.modern(v, member, r.MemberEpoch, nil).ErrorCode, kerr.UnknownMemberID)
	w.code("now the other protocol may", w.joinAs("", 3).ErrorCode, nil)
	w.code("and this one may not", w.modern(v, "m", 0, nil).ErrorCode, kerr.GroupIDNotFound)
}

func (w *wire) consumerGroupDescribe(v int16) {
	r := w.modern(0, "m", 0, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID, r.RackID = ptr("i"), ptr("r") })
	w.code("joined", r.ErrorCode, nil)
	d := ask[*kmsg.ConsumerGroupDescribeResponse](w.client, &kmsg.ConsumerGroupDescribeRequest{Version: v, Groups: []string{w.topic, "nobody"}})
	g := d.Groups[0]
	w.same("group", []any{g.ErrorCode, g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName, len(g.Members)}, []any{0, "Stable", r.MemberEpoch, r.MemberEpoch, "uniform", 1})
	m := g.Members[0]
	w.same("member", []any{m.MemberID, *m.InstanceID, *m.RackID, m.MemberEpoch, m.ClientID, m.ClientHost, m.SubscribedTopics}, []any{"m", "i", "r", r.MemberEpoch, "test", "/127.0.0.1", []string{w.topic}})
	has := fmt.Sprint([]kmsg.AssignmentTopicPartition{{TopicID: w.id, Topic: w.topic, Partitions: []int32{0, 1}}})
	w.same("assignments", []any{fmt.Sprint(m.Assignment.TopicPartitions), fmt.Sprint(m.TargetAssignment.TopicPartitions)}, []any{has, has})
	w.code("nobody", d.Groups[1].ErrorCode, kerr.GroupIDNotFound)
	old := ask[*kmsg.DescribeGroupsResponse](w.client, &kmsg.DescribeGroupsRequest{Version: 5, Groups: []string{w.topic}}).Groups[0]
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(old.Members[0].MemberAssignment); err != nil || a.Topics[0].Topic != w.topic {
		w.t.Errorf("the old way: %v, %+v", err, a)
	}
}

// TestGroupGoesOnBehindALostConnection: a member whose connection ends while it waits is waited for, and its group goes on without it when its session ends.
func TestGroupGoesOnBehindALostConnection(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		w := &wire{client: c, n: n, topic: "g"}
		w.id = w.create("g", 2)
		member := w.joined(1)

		other := n.dial(t)
		req := &kmsg.JoinGroupRequest{Version: 3, Group: "g", SessionTimeoutMillis: 100, RebalanceTimeoutMillis: 30_000, ProtocolType: "consumer", Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}}
		other.send(req)
		eventually(t, "the group prepares", func() bool {
			return ask[*kmsg.HeartbeatResponse](c, &kmsg.HeartbeatRequest{Group: "g", Generation: 1, MemberID: member}).ErrorCode == kerr.RebalanceInProgress.Code
		})
		other.Close()
		eventually(t, "it is alone again", func() bool {
			r := w.joinAs(member, 9)
			return r.ErrorCode == 0 && len(r.Members) == 1
		})
	})
}

// TestStopAnswersWaitingMembers: a stop does not wait for a rebalance.
func TestStopAnswersWaitingMembers(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		w := &wire{client: c, n: n, topic: "g"}
		w.id = w.create("g", 2)
		member := w.joined(1)
		other := n.dial(t)
		req := &kmsg.JoinGroupRequest{Version: 3, Group: "g", SessionTimeoutMillis: 30_000, RebalanceTimeoutMillis: 30_000, ProtocolType: "consumer", Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}}
		id := other.send(req)
		eventually(t, "the group prepares", func() bool {
			return ask[*kmsg.HeartbeatResponse](c, &kmsg.HeartbeatRequest{Group: "g", Generation: 1, MemberID: member}).ErrorCode == kerr.RebalanceInProgress.Code
		})
		n.srv.Drain()
		if r := other.receive(req, id).(*kmsg.JoinGroupResponse); r.ErrorCode != kerr.CoordinatorNotAvailable.Code {
			t.Errorf("error %d", r.ErrorCode)
		}
	})
}

// TestOffsetsExpire: a group's offsets are forgotten when it has had no members for the retention, and not while it has.
func TestOffsetsExpire(t *testing.T) {
	n := start(t, TransportNet, func(c *config) { c.server.Kafka.Group.OffsetRetention = 50 * time.Millisecond })
	c := n.dial(t)
	lives := &wire{client: c, n: n, topic: "lives"}
	lives.id = lives.create("lives", 2)
	member := lives.joined(1)
	lives.same("commit", lives.commit(6, member, 1, ""), []int16{0, 0, 3})
	gone := &wire{client: c, n: n, topic: "gone"}
	gone.id = gone.create("gone", 2)
	gone.same("commit", gone.commit(6, "", -1, ""), []int16{0, 0, 3})
	groups := n.srv.pipeline.Groups()
	eventually(t, "the offsets of who has no members expire", func() bool { return !groups.Has("gone") })
	if !groups.Has("lives") {
		t.Error("the offsets of a group with a member are gone")
	}
	ask[*kmsg.LeaveGroupResponse](c, &kmsg.LeaveGroupRequest{Group: "lives", MemberID: member})
	eventually(t, "and those of who has none any more", func() bool { return !groups.Has("lives") })
	if got := len(ask[*kmsg.ListGroupsResponse](c, &kmsg.ListGroupsRequest{Version: 4}).Groups); got != 0 {
		t.Errorf("%d groups are listed, want none", got)
	}
}
