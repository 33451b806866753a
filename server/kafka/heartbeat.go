package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

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
