package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tidemark/qos"
)

const (
	limited   = "limited" // the client that has a policy
	limitRate = 5 << 20
)

// changes sets policies under a running producer.
func changes(b *bench) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := b.dial(ctx, limited)
	if err != nil {
		return err
	}
	defer c.Close()
	var acked atomic.Int64
	var g errgroup.Group
	g.Go(func() error { return c.flood(request(102, batchOf(16<<10)), 8, &acked) })
	rate := func(d time.Duration) float64 {
		before, begin := acked.Load(), time.Now()
		time.Sleep(d) // the time over which the rate is taken
		return float64(acked.Load()-before) / time.Since(begin).Seconds()
	}
	free := rate(time.Second)
	if err := b.setPolicy(qos.Policy{Name: "p", Client: limited, ProduceRate: 1 << 20}); err != nil {
		return err
	}
	rate(time.Second)
	low := rate(3 * time.Second)
	b.check(low > 0.9*(1<<20) && low < 1.1*(1<<20), "limited to 1 MiB/s while it runs: %.1f MiB/s before, %.2f MiB/s from a second behind the change on", free/(1<<20), low/(1<<20))
	if err := b.setPolicy(qos.Policy{Name: "p", Client: limited, ProduceRate: 20 << 20}); err != nil {
		return err
	}
	rate(time.Second)
	high := rate(3 * time.Second)
	b.check(high > 0.9*(20<<20) && high < 1.1*(20<<20), "raised to 20 MiB/s: %.2f MiB/s from a second behind the change on", high/(1<<20))
	cancel()
	err = g.Wait()
	b.check(err == nil, "the connection stayed, and no answer was an error: %v", err)
	b.n.Kill()
	if err := b.start("changes"); err != nil {
		return err
	}
	var p qos.Policy
	if err := b.admin("GET", "/qos/p", nil, &p); err != nil {
		return err
	}
	b.check(p.Client == limited && p.ProduceRate == 20<<20, "after kill -9 and a start the policy is there: %v for %s", p.Said(), p.Match())
	return nil
}

// rates limits clients of three kinds.
func rates(b *bench) error {
	if err := b.setPolicy(qos.Policy{Name: "p", Client: limited, ProduceRate: limitRate}); err != nil {
		return err
	}
	alone, err := b.paced("other", 10*time.Millisecond, b.seconds/2)
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		name string
		run  func(context.Context, *bench) error
	}{{"kcat", runKcat}, {"franz-go", runFranz}, {"a client that ignores throttle_time_ms", runRaw}} {
		ctx, cancel := context.WithCancel(context.Background())
		var g errgroup.Group
		g.Go(func() error {
			defer cancel()
			return kind.run(ctx, b)
		})
		got, with, err := b.limitedRate(ctx)
		cancel()
		if err = errors.Join(err, g.Wait()); errors.Is(err, exec.ErrNotFound) {
			fmt.Printf("n/a  %s: not on this machine\n", kind.name)
			continue
		} else if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		off := 100 * (got/limitRate - 1)
		b.check(off > -5 && off < 5, "%s: %.3f MiB/s of 5 over %v (%+.1f %%)", kind.name, got/(1<<20), b.seconds, off)
		b.check(with <= 2*p99(alone)+time.Millisecond, "another client beside it, 100 messages a second: p99 %v, alone %v", with, p99(alone))
		time.Sleep(2 * time.Second) // the burst comes back
	}
	return nil
}

// limitedRate waits until the burst is spent, and then takes the rate of what is written, and another client's p99 beside it.
func (b *bench) limitedRate(ctx context.Context) (rate float64, other time.Duration, err error) {
	before, err := b.status()
	for s := before; err == nil && s.Policies["p"].Throttled == before.Policies["p"].Throttled; s, err = b.status() {
		select {
		case <-ctx.Done(): // the client says why
			return 0, 0, nil
		default:
		}
		time.Sleep(10 * time.Millisecond) // a pace of looking
	}
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	from, err := b.status()
	if err != nil {
		return 0, 0, err
	}
	const each = 10 * time.Millisecond
	took, err := b.paced("other", each, b.seconds)
	if err != nil {
		return 0, 0, err
	}
	to, err := b.status()
	passed := time.Since(begin)
	// What the other wrote: a record of 100 bytes in a frame of its own.
	others := float64(len(took)) * otherBytes
	return (float64(to.Watermarks.Written-from.Watermarks.Written) - others) / passed.Seconds(), p99(took), err
}

// otherBytes is what a message of the other client takes in the stream: batch, record and frame headers with it.
const otherBytes = 272

// runKcat feeds kcat lines of 1 KiB.
func runKcat(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "kcat", "-P", "-b", b.n.Addr, "-t", topic, "-p", "0", "-X", "client.id="+limited, "-X", "acks=1", "-X", "queue.buffering.max.kbytes=65536", "-q")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	line := make([]byte, 1024)
	for i := range line {
		line[i] = 'a' + byte(i%26)
	}
	line[len(line)-1] = '\n'
	w := bufio.NewWriterSize(in, 1<<20)
	for ctx.Err() == nil {
		if _, err := w.Write(line); err != nil {
			break
		}
	}
	err = cmd.Wait()
	return unlessOver(ctx, err)
}

func runFranz(ctx context.Context, b *bench) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.n.Addr), kgo.ClientID(limited), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedBytes(8<<20), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	value := make([]byte, 1024)
	var failed atomic.Pointer[error]
	for ctx.Err() == nil && failed.Load() == nil {
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := failed.Load(); err != nil {
		return unlessOver(ctx, *err)
	}
	return nil
}

func runRaw(ctx context.Context, b *bench) error {
	c, err := b.dial(ctx, limited)
	if err != nil {
		return err
	}
	defer c.Close()
	var acked atomic.Int64
	return c.flood(request(1, batchOf(64<<10)), 16, &acked)
}

// fairnessTurns is odd, for a median.
const fairnessTurns = 5

// fairness puts a client at full speed beside a slow one, in turns with the slow one alone: a machine that is slower for a while is so for both sides of a turn, or for few turns.
func fairness(b *bench) error {
	var p99s, alones, limits, over [fairnessTurns]time.Duration
	var rates [fairnessTurns]float64
	for i := range over {
		alone, err := b.paced("small", 10*time.Millisecond, b.seconds/fairnessTurns)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		var g errgroup.Group
		g.Go(func() error { return b.largeClient(ctx) })
		time.Sleep(time.Second) // it comes up to speed
		with, rate, perMiB, err := b.besideLoad()
		cancel()
		if err := errors.Join(err, g.Wait()); err != nil {
			return err
		}
		p99s[i], alones[i], rates[i] = p99(with), p99(alone), rate
		limits[i] = (2 * (p99(alone) + perMiB)).Round(time.Microsecond)
		over[i] = p99s[i] - limits[i]
	}
	slices.Sort(over[:])
	b.check(over[fairnessTurns/2] <= 0, "100 messages a second beside a client with batches of 1 MiB at %.0f MiB/s, in turns: p99 %v, alone %v, limits %v; above the limit by %v in the median",
		rates, p99s, alones, limits, over[fairnessTurns/2])
	return nil
}

// largeClient sends batches of 1 MiB at full speed until ctx ends: in a process of its own, so that the two clients do not share a scheduler.
func (b *bench) largeClient(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, b.binary, "bench", "produce", "--bootstrap", b.n.Addr, "--client-id", "large", "--connections", "1", "--in-flight", "5",
		"--record-bytes", strconv.Itoa(1<<20-1024), "--warmup", "0s", "--duration", "1h")
	if out, err := cmd.CombinedOutput(); ctx.Err() == nil {
		return fmt.Errorf("the large client ended: %w: %s", err, out)
	}
	return nil
}

// besideLoad lets the slow client work, and returns its latencies, MiB/s of all that is written meanwhile, and how long the flush of a MiB takes.
func (b *bench) besideLoad() (took []time.Duration, rate float64, perMiB time.Duration, err error) {
	before, err := b.status()
	if err != nil {
		return nil, 0, 0, err
	}
	begin := time.Now()
	if took, err = b.paced("small", 10*time.Millisecond, b.seconds/fairnessTurns); err != nil {
		return nil, 0, 0, err
	}
	after, err := b.status()
	rate = float64(after.Watermarks.Written-before.Watermarks.Written) / (1 << 20) / time.Since(begin).Seconds()
	perMiB = time.Duration((after.Flushes.Seconds - before.Flushes.Seconds) / float64(after.Flushes.Bytes-before.Flushes.Bytes) * (1 << 20) * float64(time.Second))
	return took, rate, perMiB, err
}

// memory has ten clients offer twice what the disk takes: it is limited to half of what they bring without a limit.
func memory(b *bench) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var g errgroup.Group
	for i := range 10 {
		g.Go(func() error { return b.load(ctx, fmt.Sprintf("offers-%d", i), 1, 32, 256<<10) }) // 80 MiB on the way together: more than admission takes
	}
	time.Sleep(time.Second) // they come up to speed
	offered, _, _, err := b.watch(3 * time.Second)
	if err != nil {
		return err
	}
	undo, err := throttle(b.n.PID(), b.dir, int64(offered/2))
	if err != nil {
		fmt.Printf("n/a  the disk cannot be limited here, and takes what it takes: %v\n", err)
		undo = func() error { return nil }
	}
	d := 3 * b.seconds / 2
	rate, early, most, err := b.watch(d)
	cancel()
	if err := errors.Join(err, undo(), g.Wait()); err != nil {
		return err
	}
	b.check(float64(most) < 1.15*float64(early), "ten clients with 80 MiB on the way for %v, %.0f MiB/s, who bring %.0f where nothing limits the disk: %d MiB resident at most, %d MiB in the first third", d, rate/(1<<20), offered/(1<<20), most>>20, early>>20)
	return nil
}

// watch takes, over d, the bytes that are written a second, and how many are resident at most in the first third and at all.
func (b *bench) watch(d time.Duration) (rate float64, early, most int64, err error) {
	before, err := b.status()
	if err != nil {
		return 0, 0, 0, err
	}
	begin := time.Now()
	for time.Since(begin) < d {
		time.Sleep(500 * time.Millisecond) // a pace of looking
		r := b.n.Resident()
		if time.Since(begin) < d/3 {
			early = max(early, r)
		}
		most = max(most, r)
	}
	after, err := b.status()
	return float64(after.Watermarks.Written-before.Watermarks.Written) / time.Since(begin).Seconds(), early, most, err
}

// load is a client at full speed until ctx ends, as a process of its own, so that it takes no time from the clients here.
func (b *bench) load(ctx context.Context, id string, connections, inFlight, bytes int) error {
	cmd := exec.CommandContext(ctx, b.binary, "bench", "produce", "--bootstrap", b.n.Addr, "--topic", topic, "--partitions", "1", "--client-id", id, "--duration", "10m",
		"--connections", strconv.Itoa(connections), "--in-flight", strconv.Itoa(inFlight), "--record-bytes", strconv.Itoa(bytes))
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w: %s", id, err, out)
	}
	return nil
}
