package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FindCoordinator, API key 10, versions 0 to 6: this node coordinates all groups and transactions.
func (b *Broker) findCoordinator(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	keys := req.CoordinatorKeys
	if req.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	for _, key := range keys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port = key, b.nodeID, b.cfg.Host, b.cfg.Port
		switch {
		case req.CoordinatorType == 0 && key == "":
			c.ErrorCode, c.ErrorMessage = kerr.InvalidGroupID.Code, ptr("a group has a name")
		case req.CoordinatorType == 1 && key == "":
			c.ErrorCode, c.ErrorMessage = kerr.InvalidRequest.Code, ptr("a transactional id has a name")
		case req.CoordinatorType != 0 && req.CoordinatorType != 1:
			c.ErrorCode, c.ErrorMessage = kerr.InvalidRequest.Code, ptr("unknown coordinator type")
		}
		if c.ErrorCode != 0 {
			c.NodeID, c.Host, c.Port = -1, "", -1
		}
		if req.Version < 4 {
			resp.NodeID, resp.Host, resp.Port, resp.ErrorCode, resp.ErrorMessage = c.NodeID, c.Host, c.Port, c.ErrorCode, c.ErrorMessage
			return resp
		}
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp
}
