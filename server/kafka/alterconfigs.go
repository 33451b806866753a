package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterConfigs, API key 33, versions 0 to 2: what IncrementalAlterConfigs does, but that a topic has the settings that are named and no others afterwards.
func (b *Broker) alterConfigs(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.AlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	step := kmsg.NewPtrIncrementalAlterConfigsRequest()
	step.ValidateOnly = req.ValidateOnly
	for _, rr := range req.Resources {
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = rr.ResourceType, rr.ResourceName
		named := make(map[string]bool)
		for _, cfg := range rr.Configs {
			named[cfg.Name] = true
			r.Configs = append(r.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: cfg.Name, Op: kmsg.IncrementalAlterConfigOpSet, Value: cfg.Value})
		}
		for _, s := range b.topicSettings(nil) {
			if !named[s.name] {
				r.Configs = append(r.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: s.name, Op: kmsg.IncrementalAlterConfigOpDelete})
			}
		}
		step.Resources = append(step.Resources, r)
	}
	for _, done := range b.incrementalAlterConfigs(ctx, c, step).(*kmsg.IncrementalAlterConfigsResponse).Resources {
		r := kmsg.NewAlterConfigsResponseResource()
		r.ErrorCode, r.ErrorMessage, r.ResourceType, r.ResourceName = done.ErrorCode, done.ErrorMessage, done.ResourceType, done.ResourceName
		resp.Resources = append(resp.Resources, r)
	}
	return resp
}
