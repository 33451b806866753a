package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const noGroups = "consumer groups are not supported yet: read assigned partitions instead"

// FindCoordinator, API key 10, versions 0 to 6. There are neither groups nor transactions yet, so nothing is found. It is served all the same, since librdkafka looks for it before it uses lz4, and with an
// error that clients do not retry: with 15 they would wait for a coordinator forever.
func (b *Broker) findCoordinator(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	code, message := kerr.InvalidRequest.Code, noGroups
	switch req.CoordinatorType {
	case 0:
	case 1:
		code, message = kerr.TransactionalIDAuthorizationFailed.Code, "transactions are not supported yet"
	default:
		message = "unknown coordinator type"
	}
	if req.Version < 4 {
		resp.NodeID, resp.Port = -1, -1
		resp.ErrorCode, resp.ErrorMessage = code, &message
		return resp
	}
	for _, key := range req.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Port, c.ErrorCode, c.ErrorMessage = key, -1, -1, code, &message
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp
}
