package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"tidemark/internal/kwire"
	"tidemark/scripts/figures"
)

// scenarios in the order in which they run: S6, S8 and S11 use what S1 and S6 found.
var scenarios = []struct {
	name, title string
	run         func(*bench, *result) error
}{
	{"S1", "64 connections × 1 in flight, 1 KiB, persistence", func(b *bench, r *result) error {
		if err := b.closedLoop(r, load{connections: 64, inFlight: 1, bytes: 1024}); err != nil {
			return err
		}
		b.s1 = figures.MedianOf("tidemark")(r.Rounds)
		b.requireNull(r, 0.65)
		b.require(r, "Tidemark ÷ direct", figures.RatioOf("tidemark", "direct"), 1.2, false)
		b.requireGC(r)
		return nil
	}},
	{"S2", "8 connections × 64 in flight, 1 KiB, persistence", func(b *bench, r *result) error {
		if err := b.closedLoop(r, load{connections: 8, inFlight: 64, bytes: 1024}); err != nil {
			return err
		}
		b.requireNull(r, 0.45)
		b.require(r, "Tidemark ÷ direct", figures.RatioOf("tidemark", "direct"), 1.3, false)
		b.requireQuiet(r, "records a second", figures.MedianOf("tidemark"), 300_000, false)
		b.requireGC(r)
		return nil
	}},
	{"S3", "8 connections × 5 in flight, 100 × 1 KiB, persistence", func(b *bench, r *result) error {
		if err := b.closedLoop(r, s3); err != nil {
			return err
		}
		b.require(r, "Tidemark ÷ direct", figures.RatioOf("tidemark", "direct"), 1.3, false)
		b.require(r, "MB/s ÷ synced 256 KiB writes on the disk alone", figures.RatioOf("tidemark MB/s", "probe MB/s"), 0.8, false)
		b.requireQuiet(r, "records a second", figures.MedianOf("tidemark records"), 1_040_000, false)
		b.requireGC(r)
		return nil
	}},
	{"S4", "8 connections × 5 in flight, 1,000 × 100 bytes, persistence", func(b *bench, r *result) error {
		s, err := b.filled(r.Name)
		if err != nil {
			return err
		}
		r.Unit, r.Columns = "MB/s of request bytes", []string{"tidemark", "as S3"}
		err = b.turns(r, func(m figures.Round) error {
			small, err := b.produce(s, load{connections: 8, inFlight: 5, records: 1000, bytes: 100, topic: "-small"})
			if err != nil {
				return err
			}
			large, err := b.produce(s, s3)
			m["tidemark"], m["as S3"] = wire(small), wire(large)
			return err
		})
		if err != nil {
			return err
		}
		b.require(r, "MB/s ÷ those of S3", figures.RatioOf("tidemark", "as S3"), 0.9, false)
		if err := s.end(r); err != nil {
			return err
		}
		b.requireGC(r)
		return nil
	}},
	{"S5", "as S1, receive", func(b *bench, r *result) error {
		if err := b.closedLoop(r, load{connections: 64, inFlight: 1, bytes: 1024, qos: "receive"}); err != nil {
			return err
		}
		b.requireNull(r, 0.85)
		return nil
	}},
	{"S6", "open loop at half of S1's rate, persistence", (*bench).openLoop},
	{"S7", "catch-up reading of 4 GiB that left the cache, one consumer, checksums checked", (*bench).catchUp},
	{"S8", "S6 while one consumer catches up", (*bench).besideReader},
	{"S9", "as S3, with 1, 100 and 10,000 partitions", (*bench).partitions},
	{"S10", "as S1, with 64, 1,000 and 5,000 connections", (*bench).connections},
	{"S11", "produce (persistence) to consumer, 1,000/s", (*bench).endToEnd},
	{"S12", "start-up after kill -9", (*bench).startUp},
}

var s3 = load{connections: 8, inFlight: 5, records: 100, bytes: 1024}

// wire is the rate of request bytes, MB/s.
func wire(a figures.Answer) float64 { return a.Num("requests_per_s") * a.Num("request_bytes") / 1e6 }

// turns measures all rounds.
func (b *bench) turns(r *result, measure func(figures.Round) error) error {
	for range b.rounds {
		m := figures.Round{}
		if err := measure(m); err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, m)
	}
	return nil
}

// filled starts a server whose segments are all in use, so that they are used again from then on.
func (b *bench) filled(name string) (*server, error) {
	s, err := b.start(name)
	if err != nil {
		return nil, err
	}
	return s, b.fill(s, b.retention()+b.retention()/2, "")
}

// closedLoop measures Tidemark, null, drop and direct in turns.
func (b *bench) closedLoop(r *result, l load) error {
	s, err := b.filled(r.Name)
	if err != nil {
		return err
	}
	r.Unit, r.Columns = "requests/s", []string{"tidemark", "null", "drop", "direct"}
	err = b.turns(r, func(m figures.Round) error {
		ours, err := b.produce(s, l)
		if err != nil {
			return err
		}
		null, err := b.produce(nil, l)
		if err != nil {
			return err
		}
		bytes := int(ours.Num("request_bytes")) - 4
		drop, err := b.yard("drop", l, bytes)
		if err != nil {
			return err
		}
		direct, err := b.yard("direct", l, bytes)
		if err != nil {
			return err
		}
		probe, err := b.probe(256 << 10)
		m["tidemark"], m["null"], m["drop"], m["direct"] = ours.Num("requests_per_s"), null.Num("requests_per_s"), drop.Num("frames_per_s"), direct.Num("frames_per_s")
		m["tidemark p99 ms"], m["direct p99 ms"], m["tidemark records"] = ours.Num("p99_ms"), direct.Num("p99_ms"), ours.Num("records_per_s")
		m["tidemark MB/s"], m["probe MB/s"] = wire(ours), probe.Num("mb_per_s")
		return err
	})
	if err != nil {
		return err
	}
	return s.end(r)
}

// requireNull judges the ratio to null, if null itself is near to what the machine allows.
func (b *bench) requireNull(r *result, limit float64) {
	floor := b.require(r, "null ÷ drop, or the next does not count", figures.RatioOf("null", "drop"), 0.8, false).Verdict
	if c := b.require(r, "Tidemark ÷ null", figures.RatioOf("tidemark", "null"), limit, false); floor == missed {
		c.Verdict = na
	}
}

const (
	gcShareMax  = 0.03
	residentMax = 1<<30 + 64<<20 // memory.max, and what it may be over
)

func (b *bench) requireGC(r *result) {
	share := r.GCShare
	b.require(r, "garbage collection's share of processor time", func([]figures.Round) float64 { return share }, gcShareMax, true)
	resident := float64(r.Resident) / (1 << 20)
	b.require(r, "resident memory at most, MiB", func([]figures.Round) float64 { return resident }, residentMax>>20, true)
}

// s1Rate is S1's rate; measured shortly when S1 was not asked for.
func (b *bench) s1Rate(s *server) (float64, error) {
	if b.s1 == 0 {
		a, err := b.produce(s, load{connections: 64, inFlight: 1, bytes: 1024})
		if err != nil {
			return 0, err
		}
		b.s1 = a.Num("requests_per_s")
	}
	return b.s1, nil
}

func (b *bench) openLoop(r *result) error {
	s, err := b.filled(r.Name)
	if err != nil {
		return err
	}
	rate, err := b.s1Rate(s)
	if err != nil {
		return err
	}
	r.Unit, r.Columns = fmt.Sprintf("ms, at %.0f requests/s", rate/2), []string{"p50", "p99", "p99.9", "disk p99"}
	err = b.turns(r, func(m figures.Round) error {
		probe, err := b.probe(4 << 10)
		if err != nil {
			return err
		}
		a, err := b.latency(s, rate/2)
		m["p50"], m["p99"], m["p99.9"], m["disk p99"], m["disk p50"] = a.Num("p50_ms"), a.Num("p99_ms"), a.Num("p999_ms"), probe.Num("p99_ms"), probe.Num("p50_ms")
		m["sent late p99"] = a.Sub("sent_late").Num("p99_ms")
		return err
	})
	if err != nil {
		return err
	}
	b.s6 = figures.MedianOf("p99")(r.Rounds)
	b.require(r, "p99 ÷ p99 of synced 4 KiB writes on the disk alone", figures.RatioOf("p99", "disk p99"), 4, true)
	b.requireQuiet(r, "p99, ms", figures.MedianOf("p99"), 2, true)
	b.requireQuiet(r, "p99.9, ms", figures.MedianOf("p99.9"), 6, true)
	return s.end(r)
}

// coldBytes is what is read from disk.
func (b *bench) coldBytes() int64 {
	if b.brief {
		return 64 << 20
	}
	return 4 << 30
}

// withCold starts a server that has cold bytes in topic bench-cold, and behind them as much as its cache holds.
func (b *bench) withCold(name string) (*server, error) {
	s, err := b.start(name, "journal.retention.bytes=0")
	if err != nil {
		return nil, err
	}
	if err := b.fill(s, b.coldBytes(), "-cold"); err != nil {
		return nil, err
	}
	return s, b.fill(s, b.coldBytes()/12, "") // the cache has 256 MiB
}

// segments are a server's journal files, dropped from the page cache.
func (s *server) segments() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "journal", "*", "*.journal"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no segments in %s: %w", s.dir, err)
	}
	for _, name := range files {
		if err := figures.DropCached(name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func consumeFlags(s *server) []string {
	return []string{"--bootstrap", s.Addr, "--topic", "bench-cold", "--duration", "10m"}
}

func (b *bench) catchUp(r *result) error {
	s, err := b.withCold(r.Name)
	if err != nil {
		return err
	}
	r.Unit, r.Columns = "MB/s", []string{"tidemark", "read and write"}
	err = b.turns(r, func(m figures.Round) error {
		files, err := s.segments()
		if err != nil {
			return err
		}
		a, err := b.tidemark("consume", consumeFlags(s)...)
		if err != nil {
			return err
		}
		if a["complete"] != true {
			return fmt.Errorf("not all was read: %v", a)
		}
		figures.Calm()
		cold, err := b.yard("cold", load{}, 1, files...)
		m["tidemark"], m["read and write"] = a.Num("mb_per_s"), cold.Num("mb_per_s")
		return err
	})
	if err != nil {
		return err
	}
	b.require(r, "Tidemark ÷ the same files with plain read and write", figures.RatioOf("tidemark", "read and write"), 0.6, false)
	return s.end(r)
}

func (b *bench) besideReader(r *result) error {
	s, err := b.withCold(r.Name)
	if err != nil {
		return err
	}
	rate, err := b.s1Rate(s)
	if err != nil {
		return err
	}
	r.Unit, r.Columns = fmt.Sprintf("p99 ms, at %.0f requests/s", rate/2), []string{"alone", "beside a reader"}
	err = b.turns(r, func(m figures.Round) error {
		alone, err := b.latency(s, rate/2)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		reading := make(chan error, 1)
		go func() { reading <- b.keepReading(ctx, s) }()
		beside, err := b.latency(s, rate/2)
		cancel()
		if readErr := <-reading; err == nil {
			err = readErr
		}
		m["alone"], m["beside a reader"] = alone.Num("p99_ms"), beside.Num("p99_ms")
		return err
	})
	if err != nil {
		return err
	}
	b.require(r, "p99 beside ÷ alone", figures.RatioOf("beside a reader", "alone"), 1.5, true)
	return s.end(r)
}

// keepReading catches up from the start again and again.
func (b *bench) keepReading(ctx context.Context, s *server) error {
	for ctx.Err() == nil {
		if _, err := s.segments(); err != nil {
			return err
		}
		if _, err := figures.Child(ctx, b.binary, append([]string{"bench", "consume", "--json"}, consumeFlags(s)...)...); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// each measures a load for each of some numbers, in turns.
func (b *bench) each(r *result, s *server, counts []int, of func(n int) load) error {
	r.Unit = "requests/s"
	for _, n := range counts {
		r.Columns = append(r.Columns, strconv.Itoa(n))
	}
	return b.turns(r, func(m figures.Round) error {
		for i, n := range counts {
			a, err := b.produce(s, of(n))
			if err != nil {
				return err
			}
			m[r.Columns[i]] = a.Num("requests_per_s")
		}
		return nil
	})
}

func (b *bench) partitions(r *result) error {
	s, err := b.filled(r.Name)
	if err != nil {
		return err
	}
	counts := []int{1, 100, 10_000}
	if b.brief {
		counts = []int{1, 100, 1000}
	}
	err = b.each(r, s, counts, func(n int) load {
		l := s3
		l.partitions, l.topic = n, "-"+strconv.Itoa(n)
		return l
	})
	if err != nil {
		return err
	}
	b.require(r, "lowest ÷ highest", figures.LowestToHighest(r.Columns...), 0.85, false)
	return s.end(r)
}

func (b *bench) connections(r *result) error {
	s, err := b.filled(r.Name)
	if err != nil {
		return err
	}
	counts := []int{64, 1000, 5000}
	if b.brief {
		counts = []int{64, 200}
	}
	err = b.each(r, s, counts, func(n int) load { return load{connections: n, inFlight: 1, bytes: 1024} })
	if err != nil {
		return err
	}
	for _, c := range r.Columns[1:] {
		b.require(r, c+" connections ÷ 64", figures.RatioOf(c, "64"), 0.7, false)
	}
	if err := s.end(r); err != nil {
		return err
	}
	idle, err := b.idle(counts[len(counts)-1])
	if err != nil {
		return err
	}
	b.require(r, "resident KiB for each idle connection", func([]figures.Round) float64 { return idle }, 8, true)
	return nil
}

// idle opens connections that have said who they are and nothing more, and says how many KiB of the server's memory each takes.
func (b *bench) idle(n int) (float64, error) {
	s, err := b.start("idle")
	if err != nil {
		return 0, err
	}
	defer s.Kill()
	figures.Calm()
	before := s.Resident()
	for range n {
		c, err := kwire.Dial(context.Background(), s.Addr, kwire.Options{ClientID: "idle"})
		if err != nil {
			return 0, err
		}
		defer c.Close()
	}
	return float64(s.Resident()-before) / 1024 / float64(n), nil
}

func (b *bench) endToEnd(r *result) error {
	s, err := b.filled(r.Name)
	if err != nil {
		return err
	}
	r.Unit, r.Columns = "ms", []string{"acknowledged p99", "consumed p50", "consumed p99"}
	err = b.turns(r, func(m figures.Round) error {
		a, err := b.latency(s, 1000, "--end-to-end")
		if err != nil {
			return err
		}
		e := a.Sub("end_to_end")
		if e.Num("count") != a.Num("requests") {
			return fmt.Errorf("%v records were acknowledged, %v read", a["requests"], e["count"])
		}
		m["acknowledged p99"], m["consumed p50"], m["consumed p99"] = a.Num("p99_ms"), e.Num("p50_ms"), e.Num("p99_ms")
		return nil
	})
	if err != nil {
		return err
	}
	if b.s6 > 0 {
		b.require(r, "p99, ms; the limit is S6's and 1 ms", figures.MedianOf("consumed p99"), b.s6+1, true)
	}
	return s.end(r)
}

func (b *bench) startUp(r *result) error {
	small, large := int64(256<<20), int64(8<<30)
	if b.brief {
		small, large = 16<<20, 64<<20
	}
	r.Unit, r.Columns = "ms from exec to listening", []string{"small", "large"}
	dirs := map[string]string{}
	for name, bytes := range map[string]int64{"small": small, "large": large} {
		s, err := b.start(r.Name+name, "journal.retention.bytes=0")
		if err != nil {
			return err
		}
		if err := b.fill(s, bytes, ""); err != nil {
			return err
		}
		s.Kill()
		dirs[name] = r.Name + name
		defer os.RemoveAll(s.dir)
	}
	err := b.turns(r, func(m figures.Round) error {
		for _, name := range r.Columns {
			begin := time.Now()
			s, err := b.start(dirs[name], "journal.retention.bytes=0")
			if err != nil {
				return err
			}
			m[name] = float64(time.Since(begin).Microseconds()) / 1e3
			if err := b.fill(s, 1, ""); err != nil { // what the next start finds
				return err
			}
			s.Kill()
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.require(r, fmt.Sprintf("with %d MiB ÷ with %d MiB", large>>20, small>>20), figures.RatioOf("large", "small"), 2, true)
	return nil
}
