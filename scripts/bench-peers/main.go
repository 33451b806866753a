// Bench-peers measures Tidemark beside other brokers: NATS JetStream, Redis Streams and Apache Kafka, each with a sync for every acknowledgement and as it comes.
//
//	go run ./scripts/bench-peers [--rounds 3] [--duration 3s] [--only tidemark,nats,redis,kafka] [--write]
//
// In each round each of them is started on loopback with new data on the same disk, runs S1 to S4 and S6 (see docs/bench/RESULTS.md), and is stopped. What is needed is got first, into a folder that
// is removed at the end: nats-server by the Go tool, Redis from Debian's packages, Kafka and what it needs from Maven's repository, for the machine's Java. One that cannot be had is named as missing.
// --write puts peers.json and its part of RESULTS.md into docs/bench.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidemark/scripts/figures"
	"tidemark/scripts/node"
)

func main() {
	var r run
	flag.IntVar(&r.rounds, "rounds", 3, "turns")
	flag.DurationVar(&r.duration, "duration", 3*time.Second, "of each measurement")
	only := flag.String("only", "", "systems, comma-separated; all by default")
	write := flag.Bool("write", false, "write the run into docs/bench")
	flag.Parse()
	if *only != "" {
		r.only = strings.Split(*only, ",")
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		endAll()
		node.KillAll()
		os.RemoveAll(r.dir)
		os.Exit(130)
	}()
	err := r.run()
	if err == nil && *write {
		err = figures.Write("docs/bench", "peers", &r, r.markdown())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-peers:", err)
		os.Exit(1)
	}
}

// run is all that is measured.
type run struct {
	figures.Run
	Missing []missing `json:"missing"`
	Results []*result `json:"results"`

	rounds   int
	duration time.Duration
	only     []string

	dir, binary, loader string
}

// missing is a system that could not be had, and why.
type missing struct {
	System string `json:"system"`
	Why    string `json:"why"`
}

// result is one configuration's.
type result struct {
	System   string          `json:"system"`
	Durable  bool            `json:"durable"` // nothing is acknowledged before it is synced
	Settings string          `json:"settings"`
	Rounds   []figures.Round `json:"rounds"`
}

func (r *run) run() (err error) {
	if r.dir, err = os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-peers-"); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	r.Run = figures.Begin("scripts/bench-peers", r.dir)
	for _, name := range r.only {
		if !slices.ContainsFunc(systems, func(s system) bool { return s.name == name }) {
			return fmt.Errorf("--only: there is no system %q", name)
		}
	}
	if r.binary, err = node.Build(r.dir); err != nil {
		return err
	}
	r.loader = filepath.Join(r.dir, "load")
	build := exec.Command("go", "build", "-o", r.loader, ".")
	build.Dir, build.Stderr = "scripts/bench-peers/load", os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	have := map[string]bool{}
	for _, s := range systems {
		if len(r.only) > 0 && !slices.Contains(r.only, s.name) {
			continue
		}
		fmt.Printf("getting %s\n", s.name)
		if err := s.get(r.folder(s.name)); err != nil {
			fmt.Printf("%s is missing: %v\n", s.name, err)
			r.Missing = append(r.Missing, missing{s.name, err.Error()})
			continue
		}
		have[s.name] = true
		for _, c := range s.configurations {
			r.Results = append(r.Results, &result{System: s.name, Durable: c.durable, Settings: c.settings})
		}
	}
	for round := range r.rounds {
		at := 0
		for _, s := range systems {
			for _, c := range s.configurations {
				if !have[s.name] {
					break
				}
				m, err := r.measure(s, c)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, c.settings, err)
				}
				r.Results[at].Rounds = append(r.Results[at].Rounds, m)
				fmt.Printf("round %d: %s, %s: S1 %.0f/s, S2 %.0f/s, S3 %.1f MB/s, S4 %.1f MB/s, S6 p99 %.2f ms\n", round+1, s.name, c.settings, m["S1"], m["S2"], m["S3 MB/s"], m["S4 MB/s"], m["S6 p99 ms"])
				at++
			}
		}
	}
	r.Done()
	fmt.Printf("\n%s", r.markdown())
	return nil
}

// folder is where a system's own files are.
func (r *run) folder(name string) string { return filepath.Join(r.dir, name) }

// scenario is a closed loop.
type scenario struct {
	name                                  string
	connections, inFlight, records, bytes int
}

var closedLoops = []scenario{
	{"S1", 64, 1, 1, 1024},
	{"S2", 8, 64, 1, 1024},
	{"S3", 8, 5, 100, 1024},
	{"S4", 8, 5, 1000, 100},
}

// warm is how long each runs before anything counts.
const warm = 10 * time.Second

// measure runs all scenarios on one configuration, with new data.
func (r *run) measure(s system, c configuration) (_ figures.Round, err error) {
	data := filepath.Join(r.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(data)
	p, err := s.start(r, c, data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()); figures.Calm() }()
	for begin := time.Now(); time.Since(begin) < warm; { // Java compiles what it runs often
		if _, err := p.load(closedLoops[0], 0); err != nil {
			return nil, fmt.Errorf("warming up: %w", err)
		}
	}
	m := figures.Round{}
	for _, l := range closedLoops {
		a, err := p.load(l, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		m[l.name], m[l.name+" p99 ms"], m[l.name+" records"] = a.Num("requests_per_s"), a.Num("p99_ms"), a.Num("records_per_s")
		m[l.name+" MB/s"] = a.Num("records_per_s") * float64(l.bytes) / 1e6
		figures.Calm()
	}
	a, err := p.load(closedLoops[0], m["S1"]/2)
	m["S6 rate"], m["S6 p50 ms"], m["S6 p99 ms"], m["S6 p999 ms"] = m["S1"]/2, a.Num("p50_ms"), a.Num("p99_ms"), a.Num("p999_ms")
	return m, err
}

func (r *run) markdown() string {
	var b strings.Builder
	b.WriteString("## Beside other brokers\n\n" + r.Run.String())
	b.WriteString(`
Medians of the rounds. *Durable*: nothing is acknowledged before it is synced. S1 and S2: acknowledged messages of 1 KiB a second, 64 connections with 1 in flight and 8 with 64. S3 and S4: MB of values a second, 8 connections with 5 requests in flight
of 100 × 1 KiB and of 1,000 × 100 bytes; NATS and Redis have no batch, so a request is as many messages, sent one behind the other; 0: nothing was answered in the measured time. S6: ms at half of the system's own S1 rate, from when a message was due.
Kafka is driven by ` + "`tidemark bench --acks=-1`" + `, NATS and Redis by ` + "`scripts/bench-peers/load`" + `, the same way.

| | durable | S1 /s | S1 p99 ms | S2 /s | S3 MB/s | S4 MB/s | S6 p50 ms | S6 p99 ms |
|---|---|---|---|---|---|---|---|---|
`)
	for _, x := range r.Results {
		durable := "no"
		if x.Durable {
			durable = "yes"
		}
		fmt.Fprintf(&b, "| %s, %s | %s |", x.System, x.Settings, durable)
		for _, name := range []string{"S1", "S1 p99 ms", "S2", "S3 MB/s", "S4 MB/s", "S6 p50 ms", "S6 p99 ms"} {
			fmt.Fprintf(&b, " %s |", figures.Short(figures.MedianOf(name)(x.Rounds)))
		}
		b.WriteString("\n")
	}
	for _, x := range r.Missing {
		fmt.Fprintf(&b, "\nMissing: %s (%s).\n", x.System, x.Why)
	}
	return b.String()
}
