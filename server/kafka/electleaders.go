package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ElectLeaders, API key 43, versions 0 to 2. This node leads every partition, so no election is needed, which is what each that is named is told; a null list of topics means those that need one: none.
func (b *Broker) electLeaders(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewElectLeadersResponseTopic()
		t.Topic = rt.Topic
		for _, index := range rt.Partitions {
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition, p.ErrorCode, p.ErrorMessage = index, kerr.ElectionNotNeeded.Code, ptr("this node leads it")
			if view.Partition(rt.Topic, index) == nil {
				p.ErrorCode, p.ErrorMessage = kerr.UnknownTopicOrPartition.Code, nil
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
