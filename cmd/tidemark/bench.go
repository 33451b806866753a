package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// BenchCmd groups the measurements.
type BenchCmd struct {
	Produce BenchProduceCmd `cmd:"" help:"Measure produce requests: throughput, and latency to the acknowledgement."`
	Latency BenchLatencyCmd `cmd:"" help:"Measure latency at a fixed rate of produce requests."`
	Consume BenchConsumeCmd `cmd:"" help:"Measure reading: catching up from the start, or following the end."`
	Null    BenchNullCmd    `cmd:"" hidden:"" help:"Be the server of --null."`
}

// BenchLoad is the load of produce requests that bench produce and bench latency share.
type BenchLoad struct {
	ClientFlags
	Topic           string        `help:"Topic to write to; created if it is not there." default:"bench"`
	Connections     int           `help:"TCP connections." default:"64"`
	RecordBytes     int           `help:"Bytes of a record's value, random." default:"1024"`
	RecordsPerBatch int           `help:"Records a request." default:"1"`
	Partitions      int32         `help:"Partitions to write to, and to create the topic with." default:"4"`
	QoS             string        `name:"qos" help:"Level: one-way, receive, persistence, replication or all." default:"persistence"`
	Acks            *int16        `help:"The number to ask with instead of a level's: 0, 1, -1 (all), or 100 and a level's code. For brokers that know no levels." placeholder:"N"`
	Duration        time.Duration `help:"How long to measure." default:"10s"`
	Warmup          time.Duration `help:"How long to run before that." default:"2s"`
	Null            bool          `help:"Measure the ceiling instead of a broker: a process of its own with Tidemark's endpoint and decoder, which answers at once and stores nothing."`
	Plot            string        `help:"Draw the latencies' percentiles into this file." type:"path" placeholder:"FILE.svg"`
	JSON            bool          `name:"json" help:"Print one JSON object instead of a table."`

	inFlight int     // what the command's own flag says
	rate     float64 // requests a second of all connections; 0: as fast as answers come
	readBack bool    // each record carries the time when it was due, and is read back
}

const (
	benchConnectionsMax = 10_000
	benchInFlightMax    = 10_000
	benchTapeBytesMax   = 1 << 30 // prepared requests of all connections
	benchTimeout        = 30 * time.Second
)

func (c *BenchLoad) validate() (acks int16, err error) {
	acks, ok := acksOf(c.QoS)
	switch {
	case !ok:
		return 0, usageErrorf("--qos: %q, must be one of %s", c.QoS, qosNames())
	case c.Acks != nil && (*c.Acks < -1 || *c.Acks > 1000):
		return 0, usageErrorf("--acks: %d, must be -1 to 1000", *c.Acks)
	case c.Connections < 1 || c.Connections > benchConnectionsMax:
		return 0, usageErrorf("--connections: %d, must be 1 to %d", c.Connections, benchConnectionsMax)
	case c.inFlight < 1 || c.inFlight > benchInFlightMax:
		return 0, usageErrorf("--in-flight: %d, must be 1 to %d", c.inFlight, benchInFlightMax)
	case c.RecordBytes < 0 || c.RecordBytes > 64<<20:
		return 0, usageErrorf("--record-bytes: %d, must be 0 to %d", c.RecordBytes, 64<<20)
	case c.RecordsPerBatch < 1 || c.RecordsPerBatch > 1_000_000:
		return 0, usageErrorf("--records-per-batch: %d, must be 1 to 1000000", c.RecordsPerBatch)
	case c.Partitions < 1:
		return 0, usageErrorf("--partitions: %d, must be at least 1", c.Partitions)
	case c.Duration < time.Millisecond:
		return 0, usageErrorf("--duration: %s, must be at least 1ms", c.Duration)
	case c.Warmup < 0:
		return 0, usageErrorf("--warmup: %s, must not be negative", c.Warmup)
	}
	request := int64(c.RecordBytes+16) * int64(c.RecordsPerBatch)
	if total := request * int64(c.slots()) * int64(c.Connections); total > benchTapeBytesMax {
		return 0, usageErrorf("--connections %d times --in-flight %d times %d bytes: %d MiB of prepared requests, at most %d; lower one of them",
			c.Connections, c.inFlight, request, total>>20, benchTapeBytesMax>>20)
	}
	if c.Acks != nil {
		acks = *c.Acks
	}
	if err := checkPlot(c.Plot); err != nil {
		return 0, err
	}
	if acks == 0 && c.Plot != "" {
		return 0, usageErrorf("--plot with acks 0: such requests are not answered, so there is no latency")
	}
	if acks == 0 && c.rate > 0 {
		return 0, usageErrorf("--rate with acks 0: such requests are not answered, so there is nothing to measure")
	}
	return acks, nil
}

// slots is the number of prepared requests a connection: in a closed loop all that may be in flight, so that they leave in one write.
func (c *BenchLoad) slots() int {
	if c.rate > 0 {
		return 1
	}
	return c.inFlight
}

// level is what the report calls the requests' acknowledgement.
func (c *BenchLoad) level() string {
	if c.Acks != nil {
		return "acks " + strconv.Itoa(int(*c.Acks))
	}
	return c.QoS
}

// measure runs the load, prints what came of it, and draws it if that was asked for. name is the command's.
func (c *BenchLoad) measure(e *env, name string) error {
	acks, err := c.validate()
	if err != nil {
		return err
	}
	if c.Null {
		null, err := startNull(e, c.Connections)
		if err != nil {
			return err
		}
		defer null.stop()
		c.Bootstrap = []string{null.addr}
	}
	var targets []benchTarget
	err = withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		targets, err = c.prepareTopic(ctx, admin)
		return err
	})
	if err != nil {
		return err
	}
	l, err := newLoad(e.ctx, c, acks, targets)
	if err != nil {
		if e.ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	stopProgress := benchProgress(e, c.Warmup, c.Duration, "requests", l.answered)
	err = l.run(e.ctx, c.Warmup, c.Duration)
	stopProgress()
	report := newBenchReport(name, c, acks, l)
	if err != nil { // what was measured before is worth seeing
		if report.Requests > 0 {
			err = errors.Join(err, report.write(e.stdout, c.JSON))
		}
		return err
	}
	if err := report.write(e.stdout, c.JSON); err != nil {
		return err
	}
	if c.Plot != "" {
		if err := report.plot(c.Plot); err != nil {
			return err
		}
	}
	if e.ctx.Err() != nil {
		return errInterrupted
	}
	if report.Requests == 0 && report.Errors > 0 {
		return fmt.Errorf("every request was refused: %w", kerr.ErrorForCode(l.anyError()))
	}
	return nil
}

// benchTarget is one partition and where its leader listens.
type benchTarget struct {
	partition int32
	leader    int32
	addr      string
}

// prepareTopic creates the topic if it is missing and waits until its partitions have leaders.
func (c *BenchLoad) prepareTopic(ctx context.Context, admin *kadm.Client) ([]benchTarget, error) {
	if _, err := admin.CreateTopic(ctx, c.Partitions, -1, nil, c.Topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return nil, topicError(c.Topic, err)
	}
	for backoff := backoffMin; ; backoff = min(2*backoff, backoffMax) {
		meta, err := admin.Metadata(ctx, c.Topic)
		if err != nil {
			return nil, topicError(c.Topic, err)
		}
		targets, err := benchTargets(meta, c.Topic, c.Partitions)
		if err == nil {
			return targets, nil
		}
		if exit := (*exitError)(nil); errors.As(err, &exit) {
			return nil, err
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil, topicError(c.Topic, err)
		}
	}
}

// benchTargets is where the first partitions of a topic are.
func benchTargets(meta kadm.Metadata, name string, partitions int32) ([]benchTarget, error) {
	topic := meta.Topics[name]
	if topic.Err != nil {
		return nil, topic.Err
	}
	if n := len(topic.Partitions); n < int(partitions) {
		return nil, usageErrorf("--partitions: %d, but topic %q is there already and has %d; name another with --topic", partitions, name, n)
	}
	addrs := make(map[int32]string, len(meta.Brokers))
	for _, b := range meta.Brokers {
		addrs[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	var targets []benchTarget
	for id := range partitions {
		p := topic.Partitions[id]
		addr, ok := addrs[p.Leader]
		if p.Err != nil || !ok {
			return nil, fmt.Errorf("partition %d has no leader: %w", id, kerr.LeaderNotAvailable)
		}
		targets = append(targets, benchTarget{partition: id, leader: p.Leader, addr: addr})
	}
	return targets, nil
}

// benchProgress shows a line while a load runs, if someone sees it: its phase and the rate of what count counts. The returned func ends it.
func benchProgress(e *env, warmup, duration time.Duration, things string, count func() int64) (stop func()) {
	if !e.stderrIsTerminal() {
		return func() {}
	}
	total := warmup + duration
	bar := progressbar.NewOptions64(total.Milliseconds(),
		progressbar.OptionSetWriter(e.stderr),
		progressbar.OptionSetWidth(30),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionClearOnFinish(),
	)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		begin, last, lastAt := time.Now(), int64(0), time.Now()
		for {
			select {
			case <-done:
				bar.Clear()
				return
			case now := <-tick.C:
				sum := count()
				phase := "measuring"
				if now.Sub(begin) < warmup {
					phase = "warming up"
				}
				bar.Describe(fmt.Sprintf("%s, %.0f %s/s", phase, float64(sum-last)/now.Sub(lastAt).Seconds(), things))
				bar.Set64(min(now.Sub(begin).Milliseconds(), total.Milliseconds()-1))
				last, lastAt = sum, now
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
