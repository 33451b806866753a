package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestBenchNull measures a process of its own, which stores nothing and answers all.
func TestBenchNull(t *testing.T) {
	r := tidemark(t, t.Context(), nil, nil, "bench", "produce", "--null", "--connections", "2", "--in-flight", "8", "--duration", "300ms", "--warmup", "0s", "--json")
	var report benchReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%q: %v\n%s", r.stdout, err, r.stderr)
	}
	if r.code != exitOK || !report.Null || report.Requests == 0 || report.Errors != 0 || report.Unanswered != 0 || report.P99Ms == nil {
		t.Errorf("exit code %d, %+v", r.code, report)
	}
}

// TestBenchOpenLoop wants every request that was due to be counted once, acknowledged and read back, and drawn.
func TestBenchOpenLoop(t *testing.T) {
	b := newBroker(t)
	plot := filepath.Join(t.TempDir(), "latency.svg")
	r := b.mustRun(t, "", "bench", "latency", "--topic", "paced", "--rate", "500/s", "--connections", "3", "--record-bytes", "100", "--end-to-end", "--plot", plot,
		"--duration", "1s", "--warmup", "20ms", "--json")
	var report benchReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%s: %v", r.stdout, err)
	}
	if math.Abs(float64(report.Requests)-500) > 1 || report.Count != report.Requests || report.Errors != 0 || report.Unanswered != 0 || report.RateAsked != 500 {
		t.Errorf("%+v", report)
	}
	if report.SentLate == nil || report.SentLate.Count != report.Requests {
		t.Errorf("sent late: %+v", report.SentLate)
	}
	if report.EndToEnd == nil || report.EndToEnd.Count != report.Requests {
		t.Errorf("read back: %+v, of %d", report.EndToEnd, report.Requests)
	}
	picture, err := os.ReadFile(plot)
	if err != nil || !strings.Contains(string(picture), "<svg") || !strings.Contains(string(picture), "99.9") {
		t.Errorf("%v: %.200q", err, picture)
	}
	if r := b.mustRun(t, "", "bench", "produce", "--topic", "paced", "--rate", "200/s", "--connections", "1", "--duration", "300ms", "--warmup", "0s"); !strings.Contains(r.stdout, "sent late") {
		t.Errorf("table: %q", r.stdout)
	}
}

// TestBenchThatLosesTheBroker wants what was measured until then, and the exit code of a connection that broke.
func TestBenchThatLosesTheBroker(t *testing.T) {
	b := newBroker(t)
	var produced atomic.Int64
	b.ControlKey(kmsg.Produce.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.KeepControl()
		b.cutNext.Store(produced.Add(1) == 200)
		return nil, nil, false
	})
	r := b.run(t, "", "bench", "produce", "--topic", "cut", "--connections", "1", "--in-flight", "1", "--duration", "1m", "--warmup", "0s", "--json")
	var report benchReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%q: %v\n%s", r.stdout, err, r.stderr)
	}
	if report.Requests != 199 || report.MeasuredS <= 0 || report.MeasuredS > 60 || report.RequestsPerS == 0 || report.Unanswered != 1 {
		t.Errorf("%+v", report)
	}
	if r.code != exitUnreachable || !strings.Contains(r.stderr, b.addr) {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}

// TestBenchConsume wants all records that are there, once, and those that come while it follows.
func TestBenchConsume(t *testing.T) {
	b := newBroker(t)
	b.mustRun(t, "", "bench", "produce", "--topic", "read", "--connections", "2", "--record-bytes", "100", "--records-per-batch", "3", "--duration", "200ms", "--warmup", "0s")
	var stored int64
	for p := range int32(4) {
		stored += b.PartitionInfo("read", p).HighWatermark
	}
	for _, connections := range []string{"1", "3"} {
		r := b.mustRun(t, "", "bench", "consume", "--topic", "read", "--connections", connections, "--fetch-bytes", "10000", "--duration", "20s", "--json")
		var report consumeReport
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatalf("%s: %v", r.stdout, err)
		}
		if !report.Complete || report.Records != stored || report.Batches != stored/3 || report.Bytes == 0 {
			t.Errorf("%d records stored: %+v", stored, report)
		}
	}
	if r := b.mustRun(t, "", "bench", "consume", "--topic", "read", "--from", "latest", "--duration", "100ms"); !strings.Contains(r.stdout, "0 records") {
		t.Errorf("table: %q", r.stdout)
	}
	if r := b.run(t, "", "bench", "consume", "--topic", "missing"); r.code != exitRefused || !strings.Contains(r.stderr, "missing") {
		t.Errorf("a topic that is not there: %+v", r)
	}
}
