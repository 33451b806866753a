package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

// LeaveGroup, API key 13, versions 0 to 5. From version 3 on it names several members; a static one may be named by its instance alone.
func (b *Broker) leaveGroup(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.LeaveGroupRequest)
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	if err := groupIDError(req.Group); err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	if req.Version < 3 {
		resp.ErrorCode = errCode(b.groups.Leave(req.Group, []group.Who{{Member: req.MemberID}})[0])
		return resp
	}
	members := make([]group.Who, len(req.Members))
	for i, m := range req.Members {
		members[i] = group.Who{Member: m.MemberID, Instance: instance(m.InstanceID)}
	}
	for i, err := range b.groups.Leave(req.Group, members) {
		one := kmsg.NewLeaveGroupResponseMember()
		one.MemberID, one.InstanceID, one.ErrorCode = req.Members[i].MemberID, req.Members[i].InstanceID, errCode(err)
		resp.Members = append(resp.Members, one)
	}
	return resp
}
