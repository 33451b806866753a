package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/group"
)

// DescribeGroups, API key 15, versions 0 to 6. A group that nobody knows is Dead, and from 6 on an error too. Groups of KIP-848 are described as well, so that older tools show who has what.
func (b *Broker) describeGroups(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, name := range req.Groups {
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.AuthorizedOperations = name, math.MinInt32 // not asked for
		d, known := b.groups.Describe(name)
		switch {
		case !known && b.p.Groups().Has(name):
			g.State = group.Empty.String()
		case known:
			g.State, g.ProtocolType, g.Protocol = d.State, d.ProtocolType, d.Protocol
		default:
			g.State = group.Dead.String()
			if req.Version >= 6 {
				g.ErrorCode, g.ErrorMessage = kerr.GroupIDNotFound.Code, ptr("no group of this name has members or committed offsets")
			}
		}
		for _, m := range d.Members {
			one := kmsg.NewDescribeGroupsResponseGroupMember()
			one.MemberID, one.ClientID, one.ClientHost, one.ProtocolMetadata, one.MemberAssignment = m.ID, m.ClientID, m.Host, m.Metadata, m.Assignment
			if d.Type == group.TypeConsumer {
				one.MemberAssignment = classicAssignment(b.p.View(), m.Partitions)
			}
			if m.Instance != "" {
				one.InstanceID = ptr(m.Instance)
			}
			g.Members = append(g.Members, one)
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}
