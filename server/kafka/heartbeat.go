package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

// TryHeartbeat answers a heartbeat without waiting for anything; not ok: that cannot be done, or it is no sound one, and Handle has to answer it.
func (b *Broker) TryHeartbeat(h Header) (resp *kmsg.HeartbeatResponse, ok bool) {
	if served, _ := Served(h.Key, h.Version); !served || h.Version >= flexible[h.Key] && !soundShape(h.Key, h.Version, h.Body) {
		return nil, false
	}
	req := kmsg.HeartbeatRequest{Version: h.Version}
	if req.ReadFrom(h.Body) != nil {
		return nil, false
	}
	err, ok := b.groups.TryHeartbeat(req.Group, group.Who{Member: req.MemberID, Instance: instance(req.InstanceID), Generation: req.Generation})
	r := req.ResponseKind().(*kmsg.HeartbeatResponse)
	r.ErrorCode = errCode(err)
	return r, ok
}

// Heartbeat, API key 12, versions 0 to 4.
func (b *Broker) heartbeat(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.HeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	err := groupIDError(req.Group)
	if err == nil {
		err = b.groups.Heartbeat(req.Group, group.Who{Member: req.MemberID, Instance: instance(req.InstanceID), Generation: req.Generation})
	}
	resp.ErrorCode = errCode(err)
	return resp
}
