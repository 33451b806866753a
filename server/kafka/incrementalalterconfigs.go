package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// IncrementalAlterConfigs, API key 44, versions 0 to 1, for the topic settings that there are. A resource is changed as a whole or not at all.
func (b *Broker) incrementalAlterConfigs(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.IncrementalAlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	type resource struct {
		kind kmsg.ConfigResourceType
		name string
	}
	named := make(map[resource]int)
	for _, rr := range req.Resources {
		named[resource{rr.ResourceType, rr.ResourceName}]++
	}
	for _, rr := range req.Resources {
		if ctx.Err() != nil { // nobody waits for it any more
			return resp
		}
		r := kmsg.NewIncrementalAlterConfigsResponseResource()
		r.ResourceType, r.ResourceName = rr.ResourceType, rr.ResourceName
		cmd, code, err := b.planAlter(rr)
		if named[resource{rr.ResourceType, rr.ResourceName}] > 1 {
			code, err = kerr.InvalidRequest.Code, fmt.Errorf("resource %q is named twice in one request", rr.ResourceName)
		}
		if err == nil && !req.ValidateOnly {
			err = b.command(ctx, c, catalog.Command{AlterTopic: cmd}, 0).Err
			code = Code(err)
		}
		if err != nil {
			r.ErrorCode, r.ErrorMessage = code, ptr(err.Error())
		}
		resp.Resources = append(resp.Resources, r)
	}
	return resp
}

// planAlter checks the changes of one resource and makes the command that carries them out.
func (b *Broker) planAlter(rr kmsg.IncrementalAlterConfigsRequestResource) (*catalog.AlterTopic, int16, error) {
	if rr.ResourceType != kmsg.ConfigResourceTypeTopic {
		return nil, kerr.InvalidRequest.Code, fmt.Errorf("resource type %d: only topics' settings change at run time; the server's are given to tidemark serve", rr.ResourceType)
	}
	t := b.p.View().Topics[rr.ResourceName]
	if t == nil {
		return nil, kerr.UnknownTopicOrPartition.Code, fmt.Errorf("no topic %q", rr.ResourceName)
	}
	cmd := &catalog.AlterTopic{ID: t.ID, Set: make(map[string]string)}
	for _, cfg := range rr.Configs {
		if _, set := cmd.Set[cfg.Name]; set || slices.Contains(cmd.Unset, cfg.Name) {
			return nil, kerr.InvalidRequest.Code, fmt.Errorf("%s is named twice", cfg.Name)
		}
		switch cfg.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			if err := b.checkTopicConfig(cfg.Name, cfg.Value); err != nil {
				return nil, kerr.InvalidConfig.Code, err
			}
			cmd.Set[cfg.Name] = *cfg.Value
		case kmsg.IncrementalAlterConfigOpDelete:
			known := slices.ContainsFunc(b.topicSettings(nil), func(s setting) bool { return s.name == cfg.Name })
			if !known {
				return nil, kerr.InvalidConfig.Code, fmt.Errorf("%s is no setting of topics", cfg.Name)
			}
			cmd.Unset = append(cmd.Unset, cfg.Name)
		default:
			return nil, kerr.InvalidConfig.Code, fmt.Errorf("%s: operation %d: settings are set or deleted, none is a list to append to", cfg.Name, cfg.Op)
		}
	}
	return cmd, 0, nil
}
