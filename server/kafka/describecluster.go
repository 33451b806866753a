package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster, API key 60, versions 0 to 2: this node is broker and controller.
func (b *Broker) describeCluster(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.ClusterAuthorizedOperations = math.MinInt32
	resp.EndpointType = 1
	if req.Version >= 1 && req.EndpointType != 1 {
		resp.EndpointType = req.EndpointType
		resp.ErrorCode, resp.ErrorMessage = kerr.UnsupportedEndpointType.Code, ptr("only brokers are described, endpoint type 1")
		return resp
	}
	resp.ClusterID, resp.ControllerID = b.p.Meta().ClusterID, b.nodeID
	node := kmsg.NewDescribeClusterResponseBroker()
	node.NodeID, node.Host, node.Port = b.nodeID, b.cfg.Host, b.cfg.Port
	resp.Brokers = append(resp.Brokers, node)
	return resp
}
