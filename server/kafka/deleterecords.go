package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/journal"
)

// DeleteRecords, API key 21, versions 0 to 2: raises a partition's log start; offset −1 means the high watermark. The bytes go with the journal's retention.
func (b *Broker) deleteRecords(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	b.p.CatchUp()
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewDeleteRecordsResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			p := kmsg.NewDeleteRecordsResponseTopicPartition()
			p.Partition, p.LowWatermark = rp.Partition, -1
			if part := view.Partition(rt.Topic, rp.Partition); part == nil {
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				before := journal.LogicalOffset(rp.Offset)
				if rp.Offset == -1 {
					before = part.HighWatermark()
				}
				if before < 0 || before > part.HighWatermark() {
					p.ErrorCode = kerr.OffsetOutOfRange.Code
				} else {
					result := b.command(ctx, c, catalog.Command{DeleteRecords: &catalog.DeleteRecords{Partition: part.ID, Before: before}}, millis(req.TimeoutMillis))
					p.ErrorCode, p.LowWatermark = Code(result.Err), int64(part.LogStart())
				}
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
