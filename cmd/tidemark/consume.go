package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ConsumeCmd is `tidemark consume`.
type ConsumeCmd struct {
	ClientFlags
	Topic     string  `arg:"" help:"Topic to read."`
	From      string  `help:"Where to begin: earliest, latest, an offset, or a time like 2026-01-31T08:00:00Z." default:"earliest"`
	Count     *int64  `help:"Stop after this many records." placeholder:"N"`
	Follow    bool    `help:"Wait for more instead of stopping at the end."`
	Committed bool    `help:"Only what transactions have committed, and nothing behind one that is open."`
	Group     *string `help:"Read as a member of this consumer group, from where it stopped, until interrupted; --from earliest or latest is for what it has not read yet." placeholder:"G"`
	Partition *int32  `help:"Read this partition only." placeholder:"P"`
	Format    string  `help:"text: the value and a newline. json: one object a line." default:"text"`
}

// Help is kong's detailed help.
func (ConsumeCmd) Help() string {
	return `Without --follow it prints what was there when it started and stops. Records of one partition come in order; partitions are mixed.

With --format json a line has topic, partition, offset, timestamp, key, value and headers; a key or value that is not UTF-8 comes as
key_b64 or value_b64 instead.

Examples:

    tidemark consume orders
    tidemark consume orders --from 2026-01-31T08:00:00Z --format json
    tidemark consume orders --from latest --follow --partition 0
    tidemark consume orders --group billing
    tidemark consume orders --from 1000 --count 10 --partition 2`
}

// start is a parsed --from or --to.
type start struct {
	latest bool
	offset int64     // if 0 or more
	time   time.Time // if not zero
}

func parseStart(flag, s string) (start, error) {
	switch s {
	case "earliest":
		return start{offset: -1}, nil
	case "latest":
		return start{latest: true, offset: -1}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return start{offset: n}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		if t.UnixMilli() < 0 { // before all that a record's time can be
			t = time.UnixMilli(0)
		}
		return start{offset: -1, time: t}, nil
	}
	return start{}, usageErrorf("%s: %q, must be earliest, latest, an offset or a time like 2026-01-31T08:00:00Z", flag, s)
}

// span is what to read of one partition: [next, end).
type span struct {
	next, end int64
}

// Run prints the records.
func (c *ConsumeCmd) Run(e *env) error {
	from, err := parseStart("--from", c.From)
	switch {
	case err != nil:
		return err
	case c.Format != "text" && c.Format != "json":
		return usageErrorf("--format: %q, must be text or json", c.Format)
	case c.Count != nil && *c.Count < 0:
		return usageErrorf("--count: %d, must not be negative", *c.Count)
	case c.Partition != nil && *c.Partition < 0:
		return usageErrorf("--partition: %d, must not be negative", *c.Partition)
	}
	if c.Group != nil {
		if err := c.checkGroup(from); err != nil {
			return err
		}
		return c.groupRun(e, from)
	}
	var spans map[int32]*span
	err = withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		spans, err = c.spans(ctx, admin, from)
		return err
	})
	if err != nil {
		return err
	}
	err = c.print(e, spans)
	if err == nil && e.ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// spans asks where each partition begins and ends now. Without --follow, empty ones are left out.
func (c *ConsumeCmd) spans(ctx context.Context, admin *kadm.Client, from start) (map[int32]*span, error) {
	starts, ends, err := listedBounds(ctx, admin, c.Topic)
	if err == nil && c.Committed {
		if ends, err = listedOffsets(admin.ListCommittedOffsets(ctx, c.Topic)); err != nil {
			err = topicError(c.Topic, err)
		}
	}
	if err != nil {
		return nil, err
	}
	var times kadm.ListedOffsets
	if !from.time.IsZero() {
		if times, err = listedOffsets(admin.ListOffsetsAfterMilli(ctx, from.time.UnixMilli(), c.Topic)); err != nil {
			return nil, topicError(c.Topic, err)
		}
	}
	if c.Partition != nil {
		if _, ok := starts.Lookup(c.Topic, *c.Partition); !ok {
			return nil, usageErrorf("--partition: %d, but topic %q has partitions 0 to %d", *c.Partition, c.Topic, len(starts[c.Topic])-1)
		}
	}
	spans := make(map[int32]*span)
	for id, first := range starts[c.Topic] {
		if c.Partition != nil && id != *c.Partition {
			continue
		}
		end, ok := ends.Lookup(c.Topic, id)
		if !ok {
			return nil, topicError(c.Topic, fmt.Errorf("partition %d: the broker gave no end offset", id))
		}
		s := &span{next: first.Offset, end: end.Offset}
		switch {
		case from.latest:
			s.next = s.end
		case from.offset >= 0: // an offset that was retired reads from the first one kept
			s.next = max(from.offset, first.Offset)
			if c.Follow && s.next > s.end {
				return nil, usageErrorf("--from: %d, but partition %d of topic %q ends at %d", s.next, id, c.Topic, s.end)
			}
			s.next = min(s.next, s.end)
		case !from.time.IsZero():
			at, ok := times.Lookup(c.Topic, id)
			if !ok {
				return nil, topicError(c.Topic, fmt.Errorf("partition %d: the broker gave no offset for the time", id))
			}
			s.next = at.Offset
			if !c.Follow {
				s.next = min(s.next, s.end) // records have come since, or are not committed yet
			}
		}
		if c.Follow || s.next < s.end {
			spans[id] = s
		}
	}
	return spans, nil
}

// listedBounds asks where each partition of a topic begins and ends.
func listedBounds(ctx context.Context, admin *kadm.Client, topic string) (starts, ends kadm.ListedOffsets, err error) {
	if starts, err = listedOffsets(admin.ListStartOffsets(ctx, topic)); err != nil {
		return nil, nil, topicError(topic, err)
	}
	if ends, err = listedOffsets(admin.ListEndOffsets(ctx, topic)); err != nil {
		return nil, nil, topicError(topic, err)
	}
	if len(starts[topic]) == 0 {
		return nil, nil, topicError(topic, kerr.UnknownTopicOrPartition)
	}
	return starts, ends, nil
}

// consumePatience is how long the fetches of a partition may fail with an error that may pass before consume ends with it.
const consumePatience = 10 * time.Second

// print fetches and prints until every span is done, --count is reached, or the context ends.
func (c *ConsumeCmd) print(e *env, spans map[int32]*span) error {
	left := int64(-1)
	if c.Count != nil {
		left = *c.Count
	}
	if len(spans) == 0 || left == 0 {
		return nil
	}
	offsets := make(map[int32]kgo.Offset, len(spans))
	for id, s := range spans {
		offsets[id] = kgo.NewOffset().At(s.next)
	}
	cl, err := c.client(e.ctx,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.Topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // records that went away are an error, not a silent jump
		kgo.FetchIsolationLevel(c.isolation()),
		kgo.KeepControlRecords(), // they count towards the end
		kgo.FetchMaxWait(fetchWait),
		kgo.KeepRetryableFetchErrors(), // one that stays is an error of ours
	)
	if err != nil {
		return err
	}
	defer cl.Close()

	appendRecord := c.appendRecord()
	out := bufio.NewWriterSize(e.stdout, 64<<10)
	var line []byte
	stuck := make(map[int32]time.Time) // partitions whose fetches fail, and since when
	for {
		if cl.BufferedFetchRecords() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		fetches, idle := c.poll(e.ctx, cl)
		if idle {
			if err := c.settle(e.ctx, spans); err != nil && e.ctx.Err() == nil {
				return err
			}
			maps.DeleteFunc(spans, func(_ int32, s *span) bool { return s.next >= s.end })
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			s, mine := spans[r.Partition]
			if !mine || !c.Follow && r.Offset >= s.end {
				continue
			}
			s.next = r.Offset + 1
			delete(stuck, r.Partition)
			if !c.Follow && s.next >= s.end {
				delete(spans, r.Partition)
			}
			if r.Attrs.IsControl() {
				continue
			}
			line = appendRecord(line[:0], r)
			if _, err := out.Write(line); err != nil {
				return err
			}
			if left--; left == 0 {
				return out.Flush()
			}
		}
		if len(spans) == 0 || e.ctx.Err() != nil {
			return out.Flush()
		}
		for _, ferr := range fetches.Errors() {
			s, stays := spans[ferr.Partition], staysStuck(stuck, ferr.Partition)
			if s == nil || kerr.IsRetriable(ferr.Err) && !stays {
				continue // it may pass
			}
			return errors.Join(topicError(ferr.Topic, fmt.Errorf("partition %d at offset %d: %w", ferr.Partition, s.next, ferr.Err)), out.Flush())
		}
		if !c.Follow {
			stopDone(cl, c.Topic, offsets, spans)
		}
	}
}

// poll gets records. Idle: there were none for so long that the ends of spans have to be looked at.
func (c *ConsumeCmd) poll(ctx context.Context, cl *kgo.Client) (fetches kgo.Fetches, idle bool) {
	if c.Follow {
		return cl.PollRecords(ctx, pollRecords), false
	}
	short, cancel := context.WithTimeout(ctx, settleAfter)
	defer cancel()
	if fetches = cl.PollRecords(short, pollRecords); errors.Is(fetches.Err0(), context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, true
	}
	return fetches, false
}

// pollRecords is the most that is printed between two looks at what else there is to do.
const pollRecords = 10000

// staysStuck notes that a partition's fetch has failed, and says whether they have for too long.
func staysStuck(stuck map[int32]time.Time, partition int32) bool {
	since, known := stuck[partition]
	if !known {
		since = time.Now()
		stuck[partition] = since
	}
	return time.Since(since) >= consumePatience
}

// isolation is what of transactions is read.
func (c *ConsumeCmd) isolation() kgo.IsolationLevel {
	if c.Committed {
		return kgo.ReadCommitted()
	}
	return kgo.ReadUncommitted()
}

// appendRecord lays a record out as --format says.
func (c *ConsumeCmd) appendRecord() func([]byte, *kgo.Record) []byte {
	if c.Format == "json" {
		return appendJSON
	}
	return appendText
}

// stopDone stops fetching partitions that are read to their end, so that a busy writer does not keep us fetching what is thrown away.
func stopDone(cl *kgo.Client, topic string, fetching map[int32]kgo.Offset, spans map[int32]*span) {
	var done []int32
	for id := range fetching {
		if _, open := spans[id]; !open {
			done = append(done, id)
			delete(fetching, id)
		}
	}
	if len(done) > 0 {
		slices.Sort(done)
		cl.PauseFetchPartitions(map[string][]int32{topic: done})
	}
}
