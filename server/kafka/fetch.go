package kafka

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/internal/bufpool"
	"tidemark/journal"
)

// Fetch, API key 1, versions 4 to 18.
//
// A fetch that finds less than min_bytes waits on its partitions' high watermarks, not on a poll, for at most max_wait. There are no fetch sessions: the session id in an answer
// is always 0, so clients send whole requests. Who reads what is committed gets nothing from the last stable offset on, and is told which transactions were aborted.

// fetchPart is one partition of a fetch.
type fetchPart struct {
	req  *kmsg.FetchRequestTopicPartition
	resp *kmsg.FetchResponseTopicPartition
	part *catalog.Partition // nil after an error
	from journal.LogicalOffset

	committed bool // it is read no further than its last stable offset
}

// end is how far the partition may be read.
func (fp *fetchPart) end() journal.LogicalOffset {
	if fp.committed {
		return fp.part.LastStable()
	}
	return fp.part.HighWatermark()
}

// FetchAnswer is a Fetch response, and what a profile wants to know of it.
type FetchAnswer struct {
	*kmsg.FetchResponse
	Topic string        // the first that it brings something of; empty: it brings nothing
	Took  time.Duration // to make, its wait for something to come not counted

	data []*bufpool.Buffer // that hold its batches
}

// Release gives the memory of the batches back.
func (f *FetchAnswer) Release() {
	for _, b := range f.data {
		b.Put()
	}
	f.data = nil
}

// fetchBounded answers a fetch within the memory that all fetches share; release, called once, counts it as given back. That of the batches goes back with FetchAnswer.Release.
func (b *Broker) fetchBounded(ctx context.Context, c *Client, req *kmsg.FetchRequest) (*FetchAnswer, func()) {
	nothing := func() {}
	resp := &FetchAnswer{FetchResponse: req.ResponseKind().(*kmsg.FetchResponse)}
	if req.SessionID != 0 {
		resp.ErrorCode = kerr.FetchSessionIDNotFound.Code
		return resp, nothing
	}
	b.p.CatchUp()
	parts := b.fetchParts(req, resp.FetchResponse)
	b.fetchWait(ctx, req, parts)
	begin := b.p.Now()
	limit := b.fetchAllowance(c, parts, min(int(max(req.MaxBytes, 0)), b.cfg.FetchMaxBytes))
	least := b.fetchLeast(parts)
	held, ok := b.fetchMemory.take(ctx, int64(least), int64(max(least, b.fetchSize(parts, limit))))
	if !ok {
		return resp, nothing
	}
	resp.data = b.fetchRead(req, parts, min(limit, int(held))) // what came while it waited for memory is for the next fetch
	used := int64(0)
	for _, buf := range resp.data {
		used += int64(cap(buf.Bytes()))
	}
	if used != held {
		b.fetchMemory.give(held - used)
	}
	for i := range parts {
		if len(parts[i].resp.RecordBatches) > 0 {
			resp.Topic = parts[i].part.Topic
			break
		}
	}
	resp.Took = b.p.Now() - begin
	resp.ThrottleMillis = throttleMillis(b.chargeFetch(c, parts))
	return resp, func() { b.fetchMemory.give(used) }
}

// fetchParts resolves and checks every partition, and lays the response's skeleton out in the request's order.
func (b *Broker) fetchParts(req *kmsg.FetchRequest, resp *kmsg.FetchResponse) []fetchPart {
	view := b.p.View()
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	parts := make([]fetchPart, 0, n)
	resp.Topics = make([]kmsg.FetchResponseTopic, len(req.Topics))
	for i := range req.Topics {
		rt, t := &req.Topics[i], &resp.Topics[i]
		*t = kmsg.NewFetchResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		t.Partitions = make([]kmsg.FetchResponseTopicPartition, len(rt.Partitions))
		topic, unknown := view.Topics[rt.Topic], kerr.UnknownTopicOrPartition.Code
		if req.Version >= 13 {
			topic, unknown = view.ByID[rt.TopicID], kerr.UnknownTopicID.Code
		}
		for k := range rt.Partitions {
			fp := fetchPart{req: &rt.Partitions[k], resp: &t.Partitions[k], committed: req.IsolationLevel == readCommitted}
			*fp.resp = kmsg.NewFetchResponseTopicPartition()
			fp.resp.Partition = fp.req.Partition
			fp.resp.HighWatermark, fp.resp.LastStableOffset, fp.resp.LogStartOffset = -1, -1, -1
			fp.resp.RecordBatches = []byte{}
			fp.from = journal.LogicalOffset(fp.req.FetchOffset)
			switch {
			case topic == nil:
				fp.resp.ErrorCode = unknown
			case fp.req.Partition < 0 || int(fp.req.Partition) >= len(topic.Partitions):
				fp.resp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			default:
				fp.part = topic.Partitions[fp.req.Partition]
				b.fetchCheck(&fp)
			}
			parts = append(parts, fp)
		}
	}
	return parts
}

// fetchCheck looks at the epoch and the offset that a client sent; after an error the partition is not read.
func (b *Broker) fetchCheck(fp *fetchPart) {
	b.fetchBounds(fp)
	if code := b.checkEpoch(fp.req.CurrentLeaderEpoch); code != 0 {
		fp.resp.ErrorCode, fp.part = code, nil
		return
	}
	// A client that fetched in an epoch that ended before its position has read what was cut since: it is told where the epoch ended.
	if last := fp.req.LastFetchedEpoch; last >= 0 {
		epoch, end := fp.part.EpochEnd(last, b.p.LeaderEpoch())
		if epoch >= 0 && (epoch < last || end < fp.from) {
			fp.resp.DivergingEpoch.Epoch, fp.resp.DivergingEpoch.EndOffset = epoch, int64(end)
			fp.part = nil
			return
		}
	}
	if fp.from < fp.part.LogStart() || fp.from > fp.part.HighWatermark() {
		fp.resp.ErrorCode, fp.part = kerr.OffsetOutOfRange.Code, nil
	}
}

func (b *Broker) fetchBounds(fp *fetchPart) {
	fp.resp.HighWatermark = int64(fp.part.HighWatermark())
	fp.resp.LastStableOffset = int64(fp.part.LastStable())
	fp.resp.LogStartOffset = int64(fp.part.LogStart())
}

const readCommitted = 1

// aborted names the aborted transactions that what is read may have batches of.
func (fp *fetchPart) aborted() {
	fp.resp.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
	if len(fp.resp.RecordBatches) == 0 {
		return
	}
	end := fp.from
	for b := fp.resp.RecordBatches; len(b) >= batch.HeaderBytes; b = b[min(len(b), batch.Bytes(b)):] {
		i := batch.Head(b)
		end = journal.LogicalOffset(i.Base) + journal.LogicalOffset(i.Count)
	}
	for _, a := range fp.part.AbortedIn(fp.from, end) {
		one := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
		one.ProducerID, one.FirstOffset = a.ProducerID, int64(a.First)
		fp.resp.AbortedTransactions = append(fp.resp.AbortedTransactions, one)
	}
	slices.SortFunc(fp.resp.AbortedTransactions, func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
}

// fetchSize is how many bytes the partitions have to give, counted no further than limit.
func (b *Broker) fetchSize(parts []fetchPart, limit int) int {
	n := 0
	for i := range parts {
		if fp := &parts[i]; fp.part != nil && n < limit {
			n += b.p.Available(fp.part, fp.from, fp.end(), min(limit-n, int(max(fp.req.PartitionMaxBytes, 1))))
		}
	}
	return n
}

// fetchLeast is what the largest of the batches that come next takes: one of them is sent whole in any case.
func (b *Broker) fetchLeast(parts []fetchPart) int {
	n := 0
	for i := range parts {
		if fp := &parts[i]; fp.part != nil {
			n = max(n, b.p.Fits(fp.part, fp.from, fp.end(), 0, true))
		}
	}
	return n
}

// fetchWaiter is woken by any of a fetch's partitions.
type fetchWaiter chan struct{}

func (w fetchWaiter) Wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// fetchWait returns when min_bytes can be had, when max_wait is over, or when something has to be said at once.
func (b *Broker) fetchWait(ctx context.Context, req *kmsg.FetchRequest, parts []fetchPart) {
	if req.MaxWaitMillis <= 0 || req.MinBytes <= 0 || len(parts) == 0 {
		return
	}
	for i := range parts {
		if parts[i].part == nil { // an error, or a diverging epoch
			return
		}
	}
	want := int(min(req.MinBytes, max(req.MaxBytes, 1)))
	var timer *time.Timer
	for {
		// The high watermarks are read before the size: what comes in between wakes at once.
		seen := make([]journal.LogicalOffset, len(parts))
		for i := range parts {
			seen[i] = parts[i].part.HighWatermark()
		}
		if b.fetchSize(parts, want) >= want {
			return
		}
		if timer == nil {
			timer = time.NewTimer(millis(req.MaxWaitMillis))
			defer timer.Stop()
		}
		w := make(fetchWaiter, 1)
		waiting := 0
		for i := range parts {
			if !b.p.Wait(parts[i].part, w, seen[i]) {
				w.Wake()
				break
			}
			waiting++
		}
		over := false
		select {
		case <-w:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			over = true
		}
		for i := range waiting {
			b.p.Unwait(parts[i].part, w)
		}
		for i := range parts {
			over = over || parts[i].part.Deleted()
		}
		if over {
			return
		}
	}
}

// fetchRead fills the partitions, beginning with another one each time. The first that has something gives one whole batch even if that is over the limits. It returns the buffers that the batches lie in.
func (b *Broker) fetchRead(req *kmsg.FetchRequest, parts []fetchPart, limit int) (held []*bufpool.Buffer) {
	if len(parts) == 0 {
		return nil
	}
	first := int(b.rotate.Add(1)) % len(parts)
	used := 0
	for i := range parts {
		fp := &parts[(first+i)%len(parts)]
		if fp.part == nil {
			continue
		}
		if fp.part.Deleted() {
			fp.resp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			continue
		}
		b.fetchBounds(fp)
		room := min(limit-used, int(max(fp.req.PartitionMaxBytes, 0)))
		if room <= 0 && used > 0 {
			continue
		}
		data, buf, err := b.fetchBatches(fp, room, used == 0)
		code := Code(err)
		if req.Version < 10 && holdsZstd(data) {
			code = kerr.UnsupportedCompressionType.Code
		}
		if fp.resp.ErrorCode = code; code != 0 || len(data) == 0 {
			buf.Put()
		} else {
			fp.resp.RecordBatches = data
			held = append(held, buf)
			used += len(data)
		}
		if fp.committed && code == 0 {
			fp.aborted()
		}
	}
	return held
}

// fetchBatches reads one partition's batches, into a buffer of just their size.
func (b *Broker) fetchBatches(fp *fetchPart, room int, atLeastOne bool) ([]byte, *bufpool.Buffer, error) {
	const lead = journal.RecordHeaderBytes // with which Read is fastest
	end := fp.end()
	n := b.p.Fits(fp.part, fp.from, end, room, atLeastOne)
	if n == 0 {
		_, err := b.p.Read(fp.part, fp.from, end, 0, false, nil) // says why there is nothing, if that is an error
		return nil, nil, err
	}
	buf := bufpool.Get(lead + n)
	data, err := b.p.Read(fp.part, fp.from, end, room, atLeastOne, buf.Bytes()[:lead])
	return data[lead:], buf, err
}

// holdsZstd says whether one of the batches is compressed in a way that old clients do not know.
func holdsZstd(b []byte) bool {
	for len(b) >= batch.HeaderBytes {
		i := batch.Head(b)
		if i.Codec() == batch.CodecZstd {
			return true
		}
		b = b[min(len(b), batch.Bytes(b)):]
	}
	return false
}
