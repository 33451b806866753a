package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

// SyncGroup, API key 14, versions 0 to 5. It is answered when the leader has said who has what. From version 5 on it names protocol type and protocol, which have to be the group's.
func (b *Broker) syncGroup(ctx context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.SyncGroupRequest)
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	if err := groupIDError(req.Group); err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	sync := group.Sync{
		Who:          group.Who{Member: req.MemberID, Instance: instance(req.InstanceID), Generation: req.Generation},
		ProtocolType: req.ProtocolType, Protocol: req.Protocol, Assignments: make(map[string][]byte, len(req.GroupAssignment)),
	}
	for _, a := range req.GroupAssignment {
		sync.Assignments[a.MemberID] = bytes.Clone(a.MemberAssignment) // it stays, the request's bytes do not
	}
	r, ok := b.groups.Sync(ctx, req.Group, sync)
	if !ok {
		r.Err = kerr.CoordinatorNotAvailable
	}
	resp.ErrorCode, resp.MemberAssignment = errCode(r.Err), r.Assignment
	if r.Err == nil {
		resp.ProtocolType, resp.Protocol = &r.ProtocolType, &r.Protocol
	}
	return resp
}
