package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/pipeline"
)

// DeleteGroups, API key 42, versions 0 to 2: groups that have no members, with what they committed.
func (b *Broker) deleteGroups(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DeleteGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	for _, name := range req.Groups {
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode = name, b.deleteGroup(ctx, c, name)
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func (b *Broker) deleteGroup(ctx context.Context, c *Client, name string) int16 {
	if _, known := b.groups.Describe(name); !known && !b.p.Groups().Has(name) {
		return kerr.GroupIDNotFound.Code
	}
	var pending *pipeline.PendingCommand
	if err := b.groups.Delete(name, func() {
		pending = b.submitGroup(c, name, catalog.Command{DeleteGroup: &catalog.DeleteGroup{Group: name}})
	}); err != nil {
		return err.Code
	}
	err := pending.Wait(ctx).Err
	b.groups.Forget(name)
	if errors.Is(err, catalog.ErrUnknownGroup) { // it had committed nothing
		err = nil
	}
	return groupCode(err)
}
