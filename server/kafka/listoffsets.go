package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
)

// ListOffsets, API key 2, versions 1 to 11. Times that are none: −1 the end, −2 log start, −3 the record of the largest time, −4 the first local offset
// (the same as −2: nothing is tiered), −5 the last tiered and −6 the earliest pending upload (none: −1).
const (
	listLatest        = -1
	listEarliest      = -2
	listMaxTimestamp  = -3
	listEarliestLocal = -4
	listLatestTiered  = -5
	listPendingUpload = -6
	listNotFound      = -1
	listMaxTimeFrom   = 7 // versions in which clients may ask for them
	listLocalFrom     = 8
	listTieredFrom    = 9
	listPendingFrom   = 11
)

func (b *Broker) listOffsets(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.ListOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	b.p.CatchUp()
	view := b.p.View()
	for _, rt := range req.Topics {
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Partition, p.Timestamp, p.Offset, p.LeaderEpoch = rp.Partition, -1, listNotFound, -1
			if part := view.Partition(rt.Topic, rp.Partition); part == nil {
				p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if p.ErrorCode = b.checkEpoch(rp.CurrentLeaderEpoch); p.ErrorCode == 0 {
				b.listOne(part, rp.Timestamp, req, &p)
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (b *Broker) listOne(part *catalog.Partition, at int64, req *kmsg.ListOffsetsRequest, p *kmsg.ListOffsetsResponseTopicPartition) {
	var err error
	version := req.Version
	switch {
	case at == listLatest && req.IsolationLevel == readCommitted:
		p.Offset, p.LeaderEpoch = int64(part.LastStable()), b.p.LeaderEpoch()
		return
	case at == listLatest:
		p.Offset, p.LeaderEpoch = int64(part.HighWatermark()), b.p.LeaderEpoch()
		return
	case at == listEarliest || at == listEarliestLocal && version >= listLocalFrom:
		p.Offset = int64(part.LogStart())
		p.LeaderEpoch = part.EpochAt(part.LogStart())
		return
	case at == listLatestTiered && version >= listTieredFrom, at == listPendingUpload && version >= listPendingFrom:
		return
	case at == listMaxTimestamp && version >= listMaxTimeFrom:
		var found []byte
		if found, err = b.p.BatchOfMaxTime(part); err == nil && found != nil {
			i := batch.Head(found)
			p.Offset, p.Timestamp, err = recordAt(found, i.MaxTimestamp)
		}
	case at < 0:
		p.ErrorCode = kerr.UnsupportedVersion.Code
		return
	default:
		p.Offset, p.Timestamp, err = b.offsetAtTime(part, at)
	}
	if err != nil {
		p.ErrorCode, p.Offset, p.Timestamp = Code(err), listNotFound, -1
		return
	}
	if p.Offset >= 0 {
		p.LeaderEpoch = part.EpochAt(journal.LogicalOffset(p.Offset))
	}
}

// offsetAtTime finds the first record of time ms or later; −1, −1 when there is none.
func (b *Broker) offsetAtTime(part *catalog.Partition, ms int64) (offset, timestamp int64, err error) {
	found, err := b.p.BatchAtTime(part, ms)
	if err != nil || found == nil {
		return listNotFound, -1, err
	}
	// Log start may have moved into the partition past what the index found; then any record will do that is late enough.
	if i := batch.Head(found); i.MaxTimestamp < ms {
		ms = math.MinInt64
	}
	return recordAt(found, ms)
}
