package kafka

import (
	"context"
	"fmt"

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
		p.Offset, p.Timestamp, err = b.offsetOfMaxTime(part)
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

// offsetAtTime finds the first record from log start on of time ms or later; −1, −1 when there is none.
func (b *Broker) offsetAtTime(part *catalog.Partition, ms int64) (offset, timestamp int64, err error) {
	start := part.LogStart()
	for from := start; ; {
		found, err := b.p.BatchAtTime(part, from, ms)
		if err != nil || found == nil {
			return listNotFound, -1, err
		}
		i := batch.Head(found)
		if i.MaxTimestamp >= ms {
			offset, timestamp, ok, err := recordAt(found, int64(start), ms)
			if ok || err != nil {
				return offset, timestamp, err
			}
			if i.Base >= int64(start) {
				return listNotFound, -1, fmt.Errorf("%w: none has a time of %d or later", batch.ErrRecord, ms)
			}
		}
		from = journal.LogicalOffset(i.Base + int64(i.Count))
	}
}

// offsetOfMaxTime finds the first record of the largest time from log start on; −1, −1 when there is none.
func (b *Broker) offsetOfMaxTime(part *catalog.Partition) (offset, timestamp int64, err error) {
	ms, ok := b.p.MaxTime(part)
	if !ok {
		return listNotFound, -1, nil
	}
	if offset, timestamp, err = b.offsetAtTime(part, ms); err != nil || offset >= 0 {
		return offset, timestamp, err
	}
	// That one lies below log start, which was put behind it: the batches' heads have to say.
	ms, ok = 0, false
	start := part.LogStart()
	for from := start; from < part.HighWatermark(); {
		found, err := b.p.Read(part, from, part.HighWatermark(), maxTimeRead, true, nil)
		if err != nil || len(found) == 0 {
			return listNotFound, -1, err
		}
		for len(found) >= batch.HeaderBytes {
			one := found[:min(len(found), batch.Bytes(found))]
			found = found[len(one):]
			i := batch.Head(one)
			from = journal.LogicalOffset(i.Base + int64(i.Count))
			t, known, err := maxTimeIn(one, int64(start))
			if err != nil {
				return listNotFound, -1, err
			}
			if known && (!ok || t > ms) {
				ms, ok = t, true
			}
		}
	}
	if !ok {
		return listNotFound, -1, nil
	}
	return b.offsetAtTime(part, ms)
}

// maxTimeRead is how much is read at once to look at heads.
const maxTimeRead = 1 << 20

// recordAt finds the first record of a batch at offset from or behind it with a time of ms or later.
func recordAt(b []byte, from, ms int64) (offset, timestamp int64, ok bool, err error) {
	i, err := batch.Parse(b)
	if err != nil {
		return listNotFound, -1, false, err
	}
	offset, timestamp = listNotFound, -1
	err = batch.EachTimestamp(b, &i, func(delta int32, t int64) bool {
		if at := i.Base + int64(delta); at >= from && t >= ms {
			offset, timestamp, ok = at, t, true
		}
		return !ok
	})
	return offset, timestamp, ok, err
}

// maxTimeIn is the largest time of those records of a batch that are at offset from or behind it.
func maxTimeIn(b []byte, from int64) (ms int64, ok bool, err error) {
	i, err := batch.Parse(b)
	if err != nil || i.Base >= from {
		return i.MaxTimestamp, err == nil, err
	}
	err = batch.EachTimestamp(b, &i, func(delta int32, t int64) bool {
		if i.Base+int64(delta) >= from && (!ok || t > ms) {
			ms, ok = t, true
		}
		return true
	})
	return ms, ok, err
}
