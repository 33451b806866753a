package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidemark/scripts/figures"
	"tidemark/scripts/node"
)

// bench is one run of the scenarios.
type bench struct {
	rounds   int
	duration time.Duration
	brief    bool
	only     []string

	dir, binary, yardstick string
	results                results

	s1 float64 // S1's requests a second
	s6 float64 // S6's p99, ms
}

// quietDrop is what the yardstick's drop reaches at 64 x 1 on a machine that nobody else uses, frames a second.
const quietDrop = 49_000

func (b *bench) run() (err error) {
	if err := known(b.only); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.results.Run = figures.Begin("scripts/bench", b.dir)
	if b.binary, err = node.Build(b.dir); err != nil {
		return err
	}
	b.yardstick = filepath.Join(b.dir, "yardstick")
	build := exec.Command("go", "build", "-o", b.yardstick, "./scripts/yardstick")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	drop, err := b.yard("drop", load{connections: 64, inFlight: 1}, 1100)
	if err != nil {
		return err
	}
	b.results.Quiet = drop.Num("frames_per_s") >= quietDrop
	for _, s := range scenarios {
		if len(b.only) > 0 && !slices.Contains(b.only, s.name) {
			continue
		}
		r := &result{Name: s.name, Title: s.title}
		if err := s.run(b, r); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		r.print()
		b.results.Scenarios = append(b.results.Scenarios, r)
	}
	return nil
}

// require judges a figure of a scenario's rounds.
func (b *bench) require(r *result, what string, fn func([]figures.Round) float64, limit float64, atMost bool) *check {
	c := check{What: what, Figure: figures.Bootstrap(r.Rounds, fn), Limit: limit, AtMost: atMost}
	c.judge()
	if b.brief {
		c.Verdict = na
	}
	r.Checks = append(r.Checks, c)
	return &r.Checks[len(r.Checks)-1]
}

// requireQuiet judges only on a quiet machine.
func (b *bench) requireQuiet(r *result, what string, fn func([]figures.Round) float64, limit float64, atMost bool) {
	if c := b.require(r, "quiet: "+what, fn, limit, atMost); !b.results.Quiet {
		c.Verdict = na
	}
}

// server is a node that scenarios load, and what it cost.
type server struct {
	*node.Node
	dir string
}

// start runs a node on a data directory of this name, with room for what a test writes: old segments are used again, as on any node with retention.
func (b *bench) start(name string, settings ...string) (*server, error) {
	s := &server{dir: filepath.Join(b.dir, name)}
	if len(settings) == 0 {
		settings = []string{"journal.retention.bytes=" + strconv.FormatInt(b.retention(), 10)}
	}
	var err error
	s.Node, err = node.StartWith(node.Options{Admin: true}, b.binary, s.dir, settings...)
	return s, err
}

func (b *bench) retention() int64 {
	if b.brief {
		return 256 << 20
	}
	return 1 << 30
}

// end stops the node, notes what it cost, and removes its data.
func (s *server) end(r *result) error {
	gc, err := s.gcShare()
	if err != nil {
		return err
	}
	r.Resident, r.GCShare = max(r.Resident, s.ResidentPeak()), max(r.GCShare, gc)
	s.Stop()
	return os.RemoveAll(s.dir)
}

// gcShare is the collector's part of the process's processor time since its start, idle time used for it left out.
func (s *server) gcShare() (float64, error) {
	resp, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var gc float64
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "go_cpu_classes_gc_total_cpu_seconds_total":
			gc += v
		case "go_cpu_classes_gc_mark_idle_cpu_seconds_total":
			gc -= v
		}
	}
	cpu, err := s.CPU()
	if err != nil || cpu == 0 {
		return 0, err
	}
	return gc / cpu.Seconds(), nil
}

// load is a load of produce requests.
type load struct {
	connections, inFlight, records, bytes, partitions int
	qos, topic                                        string
}

func (l load) flags() []string {
	if l.qos == "" {
		l.qos = "persistence"
	}
	if l.partitions == 0 {
		l.partitions = 4
	}
	return []string{"--connections", strconv.Itoa(l.connections), "--in-flight", strconv.Itoa(l.inFlight), "--records-per-batch", strconv.Itoa(max(l.records, 1)),
		"--record-bytes", strconv.Itoa(l.bytes), "--partitions", strconv.Itoa(l.partitions), "--qos", l.qos, "--topic", "bench" + l.topic}
}

// tidemark runs `tidemark bench COMMAND`.
func (b *bench) tidemark(command string, args ...string) (figures.Answer, error) {
	return figures.Child(context.Background(), b.binary, append([]string{"bench", command, "--json"}, args...)...)
}

func (b *bench) timing() []string {
	return []string{"--duration", b.duration.String(), "--warmup", (b.duration / 6).String()}
}

// produce measures a closed loop on a server; without one, on the null.
func (b *bench) produce(s *server, l load) (figures.Answer, error) {
	defer figures.Calm()
	target := []string{"--null"}
	if s != nil {
		target = []string{"--bootstrap", s.Addr}
	}
	a, err := b.tidemark("produce", slices.Concat(target, l.flags(), b.timing())...)
	if err == nil && (a.Num("errors") > 0 || a.Num("unanswered") > 0 || a.Num("requests") == 0) {
		err = fmt.Errorf("%v requests answered, %v refused, %v not answered", a["requests"], a["errors"], a["unanswered"])
	}
	return a, err
}

// latency measures an open loop at a rate.
func (b *bench) latency(s *server, rate float64, more ...string) (figures.Answer, error) {
	defer figures.Calm()
	return b.tidemark("latency", slices.Concat([]string{"--bootstrap", s.Addr, "--rate", fmt.Sprintf("%.0f/s", rate)}, b.timing(), more)...)
}

// yard runs the yardstick.
func (b *bench) yard(mode string, l load, bytes int, files ...string) (figures.Answer, error) {
	defer figures.Calm()
	return figures.Child(context.Background(), b.yardstick, append([]string{"--mode", mode, "--dir", b.dir, "--connections", strconv.Itoa(max(l.connections, 1)), "--in-flight", strconv.Itoa(max(l.inFlight, 1)),
		"--bytes", strconv.Itoa(max(bytes, 1)), "--duration", b.duration.String()}, files...)...)
}

// probe is synced writes of a size on the disk alone.
func (b *bench) probe(bytes int) (figures.Answer, error) { return b.yard("probe", load{}, bytes) }

// fill writes at least so many bytes of records.
func (b *bench) fill(s *server, bytes int64, topic string) error {
	l := load{connections: 8, inFlight: 5, records: 100, bytes: 1024, topic: topic}
	for written, tries := 0.0, 0; written < float64(bytes); tries++ {
		if tries == 1000 {
			return errors.New("the server takes next to nothing")
		}
		a, err := b.tidemark("produce", slices.Concat([]string{"--bootstrap", s.Addr}, l.flags(), []string{"--warmup", "0s", "--duration", b.fillFor().String()})...)
		if err != nil {
			return err
		}
		written += a.Num("requests") * a.Num("request_bytes")
	}
	figures.Calm()
	return nil
}

func (b *bench) fillFor() time.Duration {
	if b.brief {
		return 50 * time.Millisecond
	}
	return 500 * time.Millisecond
}
