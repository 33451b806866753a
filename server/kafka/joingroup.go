package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

// JoinGroup, API key 11, versions 0 to 9. It is answered when the next generation begins. From version 4 on a new member gets its id first (KIP-394); version 0 has no rebalance timeout, the session's counts for both.
func (b *Broker) joinGroup(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.JoinGroupRequest)
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.Generation, resp.MemberID = -1, req.MemberID
	if req.Version < 7 { // it may be null from 7 on
		resp.Protocol = ptr("")
	}
	session := millis(req.SessionTimeoutMillis)
	err := groupIDError(req.Group)
	switch {
	case err != nil:
	case session < b.cfg.Group.MinSession || session > b.cfg.Group.MaxSession:
		err = kerr.InvalidSessionTimeout
	case req.InstanceID != nil && (*req.InstanceID == "" || len(*req.InstanceID) > memberNameMax):
		err = kerr.InvalidRequest
	}
	if err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	join := group.Join{
		Who:   group.Who{Member: req.MemberID, Instance: instance(req.InstanceID)},
		NewID: newMemberID(c, req.InstanceID), NeedsID: req.Version >= 4, CanSkip: req.Version >= 9,
		ClientID: c.ID, Host: hostOf(c), ProtocolType: req.ProtocolType, Session: session, Rebalance: session,
	}
	if req.Version >= 1 {
		join.Rebalance = millis(req.RebalanceTimeoutMillis)
	}
	if join.Rebalance <= 0 {
		join.Rebalance = session
	}
	for _, p := range req.Protocols {
		join.Protocols = append(join.Protocols, group.Protocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)}) // it stays, the request's bytes do not
	}
	r, ok := b.groups.Join(ctx, req.Group, join)
	if !ok {
		r = group.JoinReply{Err: kerr.CoordinatorNotAvailable, Generation: -1, Member: req.MemberID}
	}
	resp.ErrorCode, resp.Generation, resp.LeaderID, resp.MemberID, resp.SkipAssignment = errCode(r.Err), r.Generation, r.Leader, r.Member, r.SkipAssignment
	if r.Err == nil {
		resp.ProtocolType, resp.Protocol = &r.ProtocolType, &r.Protocol
	}
	for _, m := range r.Members {
		one := kmsg.NewJoinGroupResponseMember()
		one.MemberID, one.ProtocolMetadata = m.Member, m.Metadata
		if m.Instance != "" {
			one.InstanceID = ptr(m.Instance)
		}
		resp.Members = append(resp.Members, one)
	}
	return resp
}

// memberNameMax bounds the name that a static member has, and how much of a client's name is in a member's id, in bytes.
const memberNameMax = 1 << 10

// newMemberID makes a member's id as Kafka does: who it is, and what nobody can guess. A long name is cut: a string of the protocol has at most 32,767 bytes.
func newMemberID(c *Client, instanceID *string) string {
	var random [16]byte
	rand.Read(random[:]) // never fails
	name := c.ID
	if instanceID != nil {
		name = *instanceID
	}
	if len(name) > memberNameMax {
		name = strings.ToValidUTF8(name[:memberNameMax], "")
	}
	return name + "-" + hex.EncodeToString(random[:])
}

// hostOf is the client's address as Kafka shows it.
func hostOf(c *Client) string {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		host = c.Address
	}
	return "/" + host
}
