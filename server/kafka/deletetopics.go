package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// DeleteTopics, API key 20, versions 0 to 6; from 6 on topics are named by id or by name.
func (b *Broker) deleteTopics(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DeleteTopicsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	named := req.Topics
	if req.Version < 6 {
		for _, name := range req.TopicNames {
			named = append(named, kmsg.DeleteTopicsRequestTopic{Topic: ptr(name)})
		}
	}
	for _, rt := range named {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		view := b.p.View()
		var topic *catalog.Topic
		code := kerr.UnknownTopicID.Code
		if rt.Topic != nil {
			topic, code = view.Topics[*rt.Topic], kerr.UnknownTopicOrPartition.Code
		} else {
			topic = view.ByID[catalog.TopicID(rt.TopicID)]
		}
		if topic == nil {
			t.ErrorCode = code
		} else {
			t.Topic, t.TopicID = ptr(topic.Name), topic.ID
			result := b.command(ctx, c, catalog.Command{DeleteTopic: &catalog.DeleteTopic{ID: topic.ID}}, millis(req.TimeoutMillis))
			if t.ErrorCode = Code(result.Err); result.Err != nil {
				t.ErrorMessage = ptr(result.Err.Error())
			}
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
