package kafka

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups, API key 16, versions 0 to 5: groups with members, and those that have committed offsets. States filter from 4 on, types from 5 on, in any case of letters.
func (b *Broker) listGroups(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.ListGroupsRequest)
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	wants := func(filter []string, have string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, have) })
	}
	for _, d := range b.allGroups() {
		if !wants(req.StatesFilter, d.State) || !wants(req.TypesFilter, d.Type) {
			continue
		}
		g := kmsg.NewListGroupsResponseGroup()
		g.Group, g.ProtocolType, g.GroupState, g.GroupType = d.Name, d.ProtocolType, d.State, d.Type
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}
