package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	recordbatch "tidemark/internal/batch"
)

// BenchConsumeCmd is `tidemark bench consume`.
type BenchConsumeCmd struct {
	ClientFlags
	Topic       string        `help:"Topic to read." default:"bench"`
	From        string        `help:"earliest: catch up until where the topic ended at the start. latest: follow the end for --duration." default:"earliest"`
	Connections int           `help:"TCP connections that the partitions are spread over." default:"1"`
	FetchBytes  int32         `help:"Bytes of a fetch's answer, at most." default:"4194304"`
	Check       bool          `help:"Check each batch's checksum, as consumers do." default:"true" negatable:""`
	Duration    time.Duration `help:"How long to read; of --from earliest, at most." default:"10s"`
	JSON        bool          `name:"json" help:"Print one JSON object instead of a table."`
}

// Help is kong's detailed help.
func (BenchConsumeCmd) Help() string {
	return `Each connection has one fetch outstanding, and asks for the next before it looks at the answer. Batches are counted and checked, not
unpacked. MB are 10^6 bytes of batches as they are on the wire.

For the time until a consumer has a record, see "tidemark bench latency --end-to-end".

Examples:

    tidemark bench consume --duration 1m
    tidemark bench consume --from latest --duration 30s --json
    tidemark bench consume --topic orders --connections 4`
}

func (c *BenchConsumeCmd) validate() error {
	switch {
	case c.From != "earliest" && c.From != "latest":
		return usageErrorf("--from: %q, must be earliest or latest", c.From)
	case c.Connections < 1 || c.Connections > benchConnectionsMax:
		return usageErrorf("--connections: %d, must be 1 to %d", c.Connections, benchConnectionsMax)
	case c.FetchBytes < 1:
		return usageErrorf("--fetch-bytes: %d, must be at least 1", c.FetchBytes)
	case c.Duration < time.Millisecond:
		return usageErrorf("--duration: %s, must be at least 1ms", c.Duration)
	}
	return nil
}

// consumption is what all readers have done so far.
type consumption struct {
	records, bytes, batches, fetches atomic.Int64
}

// Run measures and prints.
func (c *BenchConsumeCmd) Run(e *env) error {
	if err := c.validate(); err != nil {
		return err
	}
	var byLeader map[string][]fetched
	err := withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) (err error) {
		byLeader, err = c.spans(ctx, admin)
		return err
	})
	if err != nil {
		return err
	}
	fetchers, err := c.dial(e.ctx, byLeader)
	defer func() {
		for _, f := range fetchers {
			f.conn.Close()
		}
	}()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, c.Duration)
	defer cancel()
	var (
		sum     consumption
		readers sync.WaitGroup
		errs    = make(chan error, len(fetchers))
		begin   = time.Now()
	)
	stopProgress := benchProgress(e, 0, c.Duration, "records", sum.records.Load)
	for _, f := range fetchers {
		readers.Go(func() {
			if err := f.read(ctx, c.Check, &sum); err != nil && ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				errs <- err
				cancel()
			}
		})
	}
	readers.Wait()
	took := time.Since(begin)
	stopProgress()
	select {
	case err := <-errs:
		return topicError(c.Topic, err)
	default:
	}
	if err := c.report(e, &sum, took, fetchers); err != nil {
		return err
	}
	if e.ctx.Err() != nil {
		return errInterrupted
	}
	return nil
}

// spans is what is to be read, by leader.
func (c *BenchConsumeCmd) spans(ctx context.Context, admin *kadm.Client) (map[string][]fetched, error) {
	starts, ends, err := listedBounds(ctx, admin, c.Topic)
	if err != nil {
		return nil, err
	}
	meta, err := admin.Metadata(ctx, c.Topic)
	if err != nil {
		return nil, topicError(c.Topic, err)
	}
	targets, err := benchTargets(meta, c.Topic, int32(len(starts[c.Topic])))
	if err != nil {
		return nil, topicError(c.Topic, err)
	}
	return partitionsByLeader(targets, func(id int32) (fetched, error) {
		first, ok := starts.Lookup(c.Topic, id)
		end, ok2 := ends.Lookup(c.Topic, id)
		if !ok || !ok2 {
			return fetched{}, topicError(c.Topic, fmt.Errorf("partition %d: the broker gave no offsets", id))
		}
		if c.From == "latest" {
			return fetched{partition: id, next: end.Offset, end: -1}, nil
		}
		return fetched{partition: id, next: first.Offset, end: end.Offset}, nil
	})
}

// dial opens the connections and spreads each leader's partitions over its share of them.
func (c *BenchConsumeCmd) dial(ctx context.Context, byLeader map[string][]fetched) ([]*fetcher, error) {
	var fetchers []*fetcher
	for addr, parts := range byLeader {
		n := min(max(c.Connections/len(byLeader), 1), len(parts))
		for i := range n {
			conn, err := c.dialOne(ctx, addr)
			if err != nil {
				return fetchers, err
			}
			f := &fetcher{conn: conn, topic: c.Topic, maxBytes: c.FetchBytes, maxWait: 500 * time.Millisecond}
			for j := i; j < len(parts); j += n {
				f.parts = append(f.parts, parts[j])
			}
			fetchers = append(fetchers, f)
		}
	}
	return fetchers, nil
}

// read fetches until all is read or ctx ends.
func (f *fetcher) read(ctx context.Context, check bool, sum *consumption) error {
	if err := f.ask(ctx); err != nil {
		return err
	}
	for f.last != nil {
		runs, err := f.take(ctx)
		if err != nil {
			return err
		}
		sum.fetches.Add(1)
		for _, run := range runs {
			var records, batches int64
			for at := 0; at < len(run); {
				one := nextBatch(run[at:])
				if check && !recordbatch.SoundCRC(one) {
					return fmt.Errorf("%w: at offset %d", recordbatch.ErrCRC, recordbatch.Head(one).Base)
				}
				records += int64(recordbatch.Head(one).Count)
				batches++
				at += len(one)
			}
			sum.records.Add(records)
			sum.batches.Add(batches)
			sum.bytes.Add(int64(len(run)))
		}
	}
	return nil
}

// consumeReport is what bench consume prints: results first, then every setting that they depend on.
type consumeReport struct {
	RecordsPerS float64  `json:"records_per_s"`
	MBPerS      float64  `json:"mb_per_s"` // 10^6 bytes of batches
	FetchesPerS float64  `json:"fetches_per_s"`
	Records     int64    `json:"records"`
	Bytes       int64    `json:"bytes"`
	Batches     int64    `json:"batches"`
	Fetches     int64    `json:"fetches"`
	MeasuredS   float64  `json:"measured_s"`
	Complete    bool     `json:"complete"` // all was read that was there at the start
	Bench       string   `json:"bench"`
	Bootstrap   []string `json:"bootstrap"`
	Topic       string   `json:"topic"`
	From        string   `json:"from"`
	Connections int      `json:"connections"`
	FetchBytes  int32    `json:"fetch_bytes"`
	Check       bool     `json:"check"`
	DurationS   float64  `json:"duration_s"`
}

func (c *BenchConsumeCmd) report(e *env, sum *consumption, took time.Duration, fetchers []*fetcher) error {
	s := took.Seconds()
	r := consumeReport{
		Records: sum.records.Load(), Bytes: sum.bytes.Load(), Batches: sum.batches.Load(), Fetches: sum.fetches.Load(), MeasuredS: s,
		Complete: c.From == "earliest" && !slices.ContainsFunc(fetchers, func(f *fetcher) bool { return f.last != nil }),
		Bench:    "consume", Bootstrap: c.Bootstrap, Topic: c.Topic, From: c.From, Connections: len(fetchers), FetchBytes: c.FetchBytes, Check: c.Check, DurationS: c.Duration.Seconds(),
	}
	r.RecordsPerS, r.MBPerS, r.FetchesPerS = float64(r.Records)/s, float64(r.Bytes)/s/1e6, float64(r.Fetches)/s
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(r)
	}
	t := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	checked := "checksums not checked"
	if c.Check {
		checked = "checksums checked"
	}
	fmt.Fprintf(t, "read\t%s from %s, %d connections, fetches of %d bytes at most, %s\n", c.Topic, c.From, r.Connections, r.FetchBytes, checked)
	fmt.Fprintf(t, "measured\t%.1f s, %d records in %d batches, %d fetches\n", s, r.Records, r.Batches, r.Fetches)
	fmt.Fprintf(t, "records\t%.0f /s\nbatches\t%.2f MB/s\nfetches\t%.0f /s\n", r.RecordsPerS, r.MBPerS, r.FetchesPerS)
	if c.From == "earliest" && !r.Complete {
		fmt.Fprintf(t, "note\tthe time was up before all was read: --duration\n")
	}
	return t.Flush()
}
