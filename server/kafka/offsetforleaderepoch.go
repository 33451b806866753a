package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetForLeaderEpoch, API key 23, versions 2 to 4: where the newest epoch that is at most the asked one ends.
func (b *Broker) offsetForLeaderEpoch(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	b.p.CatchUp() // the newest epoch ends at the high watermark
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewOffsetForLeaderEpochResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			p.Partition, p.LeaderEpoch, p.EndOffset = rp.Partition, -1, -1
			if part := view.Partition(rt.Topic, rp.Partition); part == nil {
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if p.ErrorCode = b.checkEpoch(rp.CurrentLeaderEpoch); p.ErrorCode == 0 {
				epoch, end := part.EpochEnd(rp.LeaderEpoch, b.p.LeaderEpoch())
				p.LeaderEpoch, p.EndOffset = epoch, int64(end)
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
