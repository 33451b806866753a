package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tidemark/internal/vfs"
	"tidemark/pipeline"
)

// admin starts the admin listener of a node.
func (n *node) admin(t *testing.T, reg *prometheus.Registry) *Admin {
	t.Helper()
	a, err := StartAdmin("127.0.0.1:0", reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func (a *Admin) get(t *testing.T, path string) (int, []byte) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + a.Addr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b
}

// top is the stage with the most time, as go tool pprof -top has it in its first row.
func top(p *profile.Profile) string {
	flat := map[string]int64{}
	most := ""
	for _, s := range p.Sample {
		name := s.Location[0].Line[0].Function.Name
		if flat[name] += s.Value[1]; flat[name] > flat[most] {
			most = name
		}
	}
	return most
}

func TestPipelineProfileShowsASlowDisk(t *testing.T) {
	slow := func(c *config) {
		inner := c.pipeline.FS
		c.pipeline.FS = vfs.NewFaulty(inner, func(op vfs.Op) error {
			if op.Kind == vfs.OpWriteSync {
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		})
	}
	each(t, func(t *testing.T, n *node) {
		a := n.admin(t, prometheus.NewRegistry())
		if code, _ := a.get(t, "/debug/pprof/pipeline?seconds=1.5"); code != http.StatusServiceUnavailable {
			t.Errorf("before recovery: status %d", code)
		}
		a.Serves(n.srv)
		for _, bad := range []string{"0", "-1", "NaN", "ten", "601"} {
			if code, b := a.get(t, "/debug/pprof/pipeline?seconds="+bad); code != http.StatusBadRequest || !strings.Contains(string(b), "seconds") {
				t.Errorf("seconds=%s: status %d, %s", bad, code, b)
			}
		}
		c := n.dial(t)
		c.create("t", 1)
		fetched := make(chan *profile.Profile, 1)
		go func() {
			defer close(fetched)
			code, b := a.get(t, "/debug/pprof/pipeline?seconds=0.5&table=1")
			if code != http.StatusOK {
				t.Errorf("status %d: %s", code, b)
				return
			}
			p, err := profile.ParseData(b)
			if err != nil {
				t.Error(err)
				return
			}
			fetched <- p
		}()
		sent := 0
		var p *profile.Profile
		for p == nil {
			select {
			case p = <-fetched:
				if p == nil {
					return
				}
			default:
				c.produce("t", 0, 102, values(fmt.Sprint(sent)))
				sent++
			}
		}
		if err := p.CheckValid(); err != nil {
			t.Error(err)
		}
		if got := top(p); got != "flush" {
			t.Errorf("most of the time is %q, and the disk is slow", got)
		}
		for _, s := range p.Sample {
			if s.Label["client_id"][0] != "test" || s.Label["topic"][0] != "t" || s.Label["level"][0] != "persistence" || s.Location[1].Line[0].Function.Name != "level persistence" {
				t.Errorf("a sample has labels %v", s.Label)
			}
			if s.Value[0] == 0 || s.Value[0] > int64(sent) {
				t.Errorf("%d requests in a sample, %d were sent", s.Value[0], sent)
			}
		}
		rows, err := ProfileRows(p)
		if err != nil {
			t.Error(err)
		}
		for _, r := range rows {
			if r.Stage == "flush" && r.P50 < 5*time.Millisecond {
				t.Errorf("a flush takes 5 ms, and the median is %v", r.P50)
			}
		}
	}, slow)
}

// taken takes a profile while act is called again and again.
func (a *Admin) taken(t *testing.T, act func()) *profile.Profile {
	t.Helper()
	done := make(chan []byte, 1)
	go func() {
		defer close(done)
		if code, b := a.get(t, "/debug/pprof/pipeline?seconds=1.5"); code == http.StatusOK {
			done <- b
		} else {
			t.Errorf("status %d: %s", code, b)
		}
	}()
	for {
		select {
		case b := <-done:
			p, err := profile.ParseData(b)
			if err != nil {
				t.Fatal(err)
			}
			return p
		default:
			act()
		}
	}
}

// of is the time of the samples with a label.
func of(p *profile.Profile, label, value string) (ns int64) {
	for _, s := range p.Sample {
		if value == "" || s.Label[label][0] == value {
			ns += s.Value[1]
		}
	}
	return ns
}

// A client that offers more than the disk takes waits in admission, and the profile names it.
func TestPipelineProfileShowsAFlood(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		a := n.admin(t, prometheus.NewRegistry())
		a.Serves(n.srv)
		flood, orders := n.dialAs(t, "flood"), n.dialAs(t, "orders")
		flood.create("t", 1)
		records := values(strings.Repeat("x", 64<<10))
		p := a.taken(t, func() {
			var ids []int32
			req := produceTo("t", 0, 102, records)
			for range 48 {
				ids = append(ids, flood.send(req))
			}
			orders.produce("t", 0, 102, values("x"))
			for _, id := range ids {
				flood.receive(req, id)
			}
		})
		if got := top(p); got != "admission" {
			t.Errorf("most of the time is %q, and a client offers more than the disk takes", got)
		}
		if mine, all := of(p, "client_id", "flood"), of(p, "client_id", ""); mine < all*9/10 {
			t.Errorf("%d of %d ns are the flood's", mine, all)
		}
	}, func(c *config) {
		c.pipeline.DirtyBytes = 128 << 10
		inner := c.pipeline.FS
		c.pipeline.FS = vfs.NewFaulty(inner, func(op vfs.Op) error {
			if op.Kind == vfs.OpWriteSync {
				time.Sleep(2 * time.Millisecond) // what the disk takes
			}
			return nil
		})
	})
}

// A client that is slow to take its answers shows in socket write.
func TestPipelineProfileShowsASlowReader(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		a := n.admin(t, prometheus.NewRegistry())
		a.Serves(n.srv)
		w := n.dialAs(t, "writer")
		w.create("t", 1)
		for range 96 {
			w.produce("t", 0, 101, values(strings.Repeat("x", 120<<10)))
		}
		w.produce("t", 0, 102, values("x")) // all is flushed
		slow := n.dialAs(t, "slow")
		if err := slow.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		req := fetchFrom("t", 0, 0)
		p := a.taken(t, func() {
			id := slow.send(req)
			w.produce("t", 0, 102, values("x"))
			time.Sleep(450 * time.Millisecond) // it is slow
			slow.receive(req, id)
		})
		if got := top(p); got != "socket write" {
			t.Errorf("most of the time is %q, and a client does not read", got)
		}
		if mine, all := of(p, "client_id", "slow"), of(p, "client_id", ""); mine < all*9/10 {
			t.Errorf("%d of %d ns are the slow client's", mine, all)
		}
		if got := of(p, "level", "fetch"); got == 0 {
			t.Error("no sample is of a fetch")
		}
	})
}

func TestStatus(t *testing.T) {
	n := start(t, TransportGnet)
	a := n.admin(t, prometheus.NewRegistry())
	if code, _ := a.get(t, "/status"); code != http.StatusServiceUnavailable {
		t.Errorf("before recovery: status %d", code)
	}
	a.Serves(n.srv)
	c := n.dial(t)
	c.create("t", 1)
	c.produce("t", 0, 102, values("x"))
	n.gate.Hold()
	c.produce("t", 0, 101, values("y"))
	code, b := a.get(t, "/status")
	var got struct {
		pipeline.Status
		Connections int
	}
	if err := json.Unmarshal(b, &got); code != http.StatusOK || err != nil {
		t.Fatalf("status %d, %v: %s", code, err, b)
	}
	if got.Connections != 1 || got.Topics != 1 || got.Answers["persistence"] != 1 || got.Answers["receive"] != 1 || got.Epoch != n.epoch() || got.Flushes.Count == 0 {
		t.Errorf("%s", b)
	}
	if got.LagBytes["flushed"] <= 0 || got.Watermarks.Written <= got.Watermarks.Flushed {
		t.Errorf("the disk is held back, and nothing lags: %s", b)
	}
}

func TestMetricsAreWellNamed(t *testing.T) {
	n := start(t, TransportNet)
	reg := prometheus.NewRegistry()
	n.srv.Metrics(reg)
	n.srv.pipeline.Metrics(reg)
	a := n.admin(t, reg)
	code, b := a.get(t, "/metrics")
	if code != http.StatusOK || !strings.Contains(string(b), `tidemark_pipeline_stage_seconds_bucket{level="persistence",stage="cache_wait"`) {
		t.Errorf("status %d", code)
	}
	problems, err := promlint.New(strings.NewReader(string(b))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
