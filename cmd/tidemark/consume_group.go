package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// checkGroup says which flags do not go with --group.
func (c *ConsumeCmd) checkGroup(from start) error {
	switch {
	case *c.Group == "":
		return usageErrorf("--group: a group has a name")
	case c.Partition != nil:
		return usageErrorf("--partition and --group: the group decides who reads which partition")
	case from.offset >= 0 || !from.time.IsZero():
		return usageErrorf("--from %s and --group: a group goes on where it was; set that with \"tidemark group reset\"", c.From)
	}
	return nil
}

// groupRun reads as a member of a group until it is interrupted or --count is reached. What is printed is committed before more is printed, and members' changes wait for that: a record is printed again only if this process ends, or is taken for dead, in
// between.
func (c *ConsumeCmd) groupRun(e *env, from start) error {
	err := withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		_, _, err := listedBounds(ctx, admin, c.Topic) // kgo would wait for a topic that is not there
		return err
	})
	if err != nil {
		return err
	}
	begin := kgo.NewOffset().AtStart()
	if from.latest {
		begin = kgo.NewOffset().AtEnd()
	}
	cl, err := c.client(e.ctx, kgo.ConsumeTopics(c.Topic), kgo.ConsumerGroup(*c.Group), kgo.ConsumeResetOffset(begin), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.RangeBalancer(), kgo.RoundRobinBalancer(), kgo.StickyBalancer()), // one of which every other client knows
		kgo.FetchIsolationLevel(c.isolation()),
		kgo.KeepRetryableFetchErrors(), // one that stays is an error of ours
	)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	out := bufio.NewWriterSize(e.stdout, 64<<10)
	left := int64(-1)
	if c.Count != nil {
		left = *c.Count
	}
	stuck := make(map[int32]time.Time) // partitions whose fetches fail, and since when
	for left != 0 && e.ctx.Err() == nil {
		most := pollRecords
		if left > 0 {
			most = int(min(left, int64(most)))
		}
		fetches := cl.PollRecords(e.ctx, most)
		printed, err := c.printAll(out, fetches.Records())
		if err != nil {
			return err
		}
		left -= int64(len(printed))
		for _, r := range printed {
			delete(stuck, r.Partition)
		}
		if len(printed) > 0 {
			if err := cl.CommitRecords(context.WithoutCancel(e.ctx), printed...); err != nil {
				fmt.Fprintf(e.stderr, "tidemark: group %q: not committed, another member may print it too: %s\n", *c.Group, oneLine(err))
			}
		}
		cl.AllowRebalance()
		for _, ferr := range fetches.Errors() {
			session := (*kgo.ErrGroupSession)(nil)
			switch {
			case e.ctx.Err() != nil || errors.Is(ferr.Err, context.Canceled):
			case errors.As(ferr.Err, &session) && !errors.Is(ferr.Err, kerr.InconsistentGroupProtocol) && !errors.Is(ferr.Err, kerr.InvalidGroupID): // the broker was away, or took it for dead: it joins again by itself
				fmt.Fprintf(e.stderr, "tidemark: group %q: %s; joining again\n", *c.Group, oneLine(session.Err))
			case kerr.IsRetriable(ferr.Err) && !staysStuck(stuck, ferr.Partition):
			default:
				return topicError(c.Topic, ferr.Err)
			}
		}
	}
	if left != 0 && e.ctx.Err() != nil {
		return errInterrupted
	}
	return nil
}

// printAll prints records and sees them out.
func (c *ConsumeCmd) printAll(out *bufio.Writer, records []*kgo.Record) ([]*kgo.Record, error) {
	var line []byte
	for _, r := range records {
		line = c.appendRecord()(line[:0], r)
		if _, err := out.Write(line); err != nil {
			return nil, err
		}
	}
	return records, out.Flush()
}
