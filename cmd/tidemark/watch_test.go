package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"tidemark/pipeline"
	"tidemark/server"
	"tidemark/server/kafka"
)

// looks answers /status with one picture after the other.
func looks(t *testing.T) string {
	t.Helper()
	n := int64(0)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		one := watched{Connections: 12, Groups: 3, Behind: []kafka.GroupLag{{Group: "billing", Members: 2, Lag: 12_345}, {Group: "audit"}}}
		one.Refusals, one.Timeouts = map[string]int64{"persistence": 5 * n, "all": 7 * n}, map[string]int64{"all": 4}
		one.Policies = map[string]server.PolicyCounts{"idle": {Throttled: 9}, "orders": {Throttled: 40 * n}, strings.Repeat("long ", 20): {Throttled: 30 * n}}
		one.UptimeS, one.Epoch = float64(100+n), 3
		one.Watermarks.Written, one.Watermarks.Flushed = 1<<40, 1<<40-2<<20
		one.Watermarks.Applied = 1 << 39
		one.LagBytes = map[string]int64{"flushed": 2 << 20}
		one.Flushes = pipeline.StatusFlushes{Count: 100 * n, Bytes: 100 * n << 20, Seconds: float64(n) / 10}
		one.Times.Levels = map[string]pipeline.StatusLatency{"persistence": {Count: 1000 * n, Buckets: []int64{0, 500 * n, 490 * n, 10 * n}}}
		one.Times.Clients = map[string]pipeline.StatusLatency{}
		for i, name := range []string{"a", "b", "c", "d", "e", "f", strings.Repeat("long ", 20), "\x1b[31mred", "silent"} {
			if count := int64(i) * n; name != "silent" {
				one.Times.Clients[name] = pipeline.StatusLatency{Count: count, Buckets: []int64{count}}
			}
		}
		b, err := json.Marshal(one)
		if err != nil {
			t.Error(err)
		}
		w.Write(b)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestWatch(t *testing.T) {
	r := tidemark(t, t.Context(), nil, nil, "watch", "--admin", looks(t), "--interval", "10ms", "--count", "2")
	if r.code != exitOK {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if len(lines) != 2*watchRows {
		t.Fatalf("%d lines for two looks:\n%s", len(lines), r.stdout)
	}
	second := strings.Join(lines[watchRows:], "\n")
	for _, line := range lines {
		if utf8.RuneCountInString(line) > watchColumns || strings.Contains(line, "\x1b") {
			t.Errorf("%d columns: %q", utf8.RuneCountInString(line), line)
		}
	}
	for _, want := range []string{
		"up 1m43s  epoch 3", "\nrefused: 12 requests/s; policy \"orders\" throttles 40 requests/s\n", "12 connections", "flushed             1099509530624        2.0 MiB", "persistence                           1,000     0.016 ms     0.032 ms",
		`groups: 3; "billing" is 12,345 behind (2 members)`, `"\x1b[31mred"                             7`, "disk: 100 flushes/s of 1.0 MiB and 1.00 ms",
	} {
		if !strings.Contains(second, want) {
			t.Errorf("no %q in\n%s", want, second)
		}
	}
	if strings.Contains(second, `"a"`) || strings.Count(second, "\n\"") != watchClients {
		t.Errorf("the clients with the most requests, %d of them:\n%s", watchClients, second)
	}
	if r := tidemark(t, t.Context(), nil, nil, "watch", "--interval", "1ms"); r.code != exitUsage {
		t.Errorf("exit code %d for an interval of 1ms", r.code)
	}
	if r := tidemark(t, t.Context(), nil, nil, "watch", "--admin", "127.0.0.1:1"); r.code != exitUnreachable {
		t.Errorf("exit code %d without a node", r.code)
	}
}

func TestWatchQuantile(t *testing.T) {
	r := movedRow{count: 100, buckets: []int64{0, 0, 100}}
	if got := r.quantile(0.5); got != "0.024 ms" { // halfway from 16 to 32 µs
		t.Errorf("median %s", got)
	}
	if got := (movedRow{count: 1}).quantile(0.99); got != "-" {
		t.Errorf("of nothing: %s", got)
	}
	if got := moved(map[string]pipeline.StatusLatency{"a": {Count: 5, Buckets: []int64{5}}}, map[string]pipeline.StatusLatency{"a": {Count: 2, Buckets: []int64{2}}}, 3); len(got) != 1 || got[0].count != 2 {
		t.Errorf("a histogram that began anew: %+v", got)
	}
}
