package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// lines collects log lines from any goroutine.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// with returns the lines that have a message.
func (l *lines) with(message string) (out []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range strings.Split(l.b.String(), "\n") {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && strings.Contains(m["message"].(string), message) {
			out = append(out, m)
		}
	}
	return out
}

// A request that takes longer than profile.slow_request leaves a trace and one line of log that says where its time went.
func TestSlowRequestLeavesATrace(t *testing.T) {
	var log lines
	dir := filepath.Join(t.TempDir(), "traces")
	flight, err := StartFlight(time.Second, dir, zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	defer flight.Close()
	const slow = 30 * time.Millisecond
	n := start(t, TransportGnet, func(c *config) {
		c.pipeline.SlowRequest, c.pipeline.OnEvent = slow, LogEvents(zerolog.New(&log), flight)
	})
	c := n.dialAs(t, "orders")
	c.create("t", 1)
	c.produce("t", 0, -1, values("quick"))
	if got := log.with("slow request"); len(got) != 0 {
		t.Fatalf("a quick request was slow: %v", got)
	}
	n.gate.Hold()
	req := produceTo("t", 0, 102, values("slow"))
	id := c.send(req)
	n.dial(t).fence("t", 0, 1)
	time.Sleep(2 * slow) // it is to be slow
	n.gate.Release()
	c.receive(req, id)
	eventually(t, "its trace is written", func() bool { return len(log.with("slow request")) == 1 })
	line := log.with("slow request")[0]
	if line["client_id"] != "orders" || line["topic"] != "t" || line["qos_level"] != "persistence" || line["took_ms"].(float64) < 2*30 {
		t.Errorf("the line says %v", line)
	}
	if flush, _ := line["flush_ms"].(float64); flush < 30 {
		t.Errorf("flush took %v ms of %v", flush, line)
	}
	name, _ := line["trace"].(string)
	if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte("go 1.")) {
		t.Errorf("trace %q: %d bytes, %v", name, len(b), err)
	}
	for range 2 * FlightFiles {
		if _, err := flight.save(); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != FlightFiles {
		t.Errorf("%d files, %v", len(files), err)
	}

	a := n.admin(t, prometheus.NewRegistry())
	if code, says := a.ask(t, http.MethodGet, "/debug/trace/flight", ""); code != http.StatusNotFound || !strings.Contains(says, "profile.flight") {
		t.Errorf("without a recorder: status %d, %s", code, says)
	}
	a.Records(flight)
	if code, trace := a.ask(t, http.MethodGet, "/debug/trace/flight", ""); code != http.StatusOK || !strings.HasPrefix(trace, "go 1.") {
		t.Errorf("status %d, %d bytes", code, len(trace))
	}
}
