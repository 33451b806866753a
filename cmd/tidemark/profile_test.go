package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"tidemark/server"
)

// adminStub answers with a profile of two levels, or with a refusal.
func adminStub(t *testing.T, status int) (addr string, asked *http.Request) {
	t.Helper()
	asked = new(http.Request)
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "time", Unit: "nanoseconds"}},
		Comments: []string{
			`{"level":"receive","stage":"respond","requests":10,"time_ns":1000000,"p50_ns":90000,"p99_ns":110000}`,
			`{"level":"persistence","stage":"cache wait","requests":4,"time_ns":1000000,"p50_ns":250000,"p99_ns":250000}`,
			`{"level":"persistence","stage":"flush","requests":4,"time_ns":3000000,"p50_ns":700000,"p99_ns":900000}`,
		},
	}
	var body bytes.Buffer
	if err := p.Write(&body); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r
		if status != http.StatusOK {
			http.Error(w, "a profile is being taken already", status)
			return
		}
		w.Write(body.Bytes())
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), asked
}

func TestProfileTable(t *testing.T) {
	addr, asked := adminStub(t, http.StatusOK)
	file := filepath.Join(t.TempDir(), "p.pb.gz")
	r := tidemark(t, t.Context(), nil, nil, "profile", "--admin", addr, "--seconds", "0.5", "--client", "orders", "-o", file)
	if r.code != exitOK {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	for _, want := range []string{"flush       4         0.700 ms  0.900 ms  75.0 %", "persistence: most of the time is flush (75 %)", "receive: most of the time is respond (100 %)"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	if q := asked.URL.Query(); q.Get("seconds") != "0.5" || q.Get("client") != "orders" {
		t.Errorf("asked %s", asked.URL)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(raw)
	if err != nil || len(p.Comments) != 0 {
		t.Errorf("the file: %v, comments %q", err, p.Comments)
	}
}

func TestProfileRefusals(t *testing.T) {
	addr, _ := adminStub(t, http.StatusConflict)
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--admin", addr}, exitRefused, "already"},
		{[]string{"--admin", addr, "--seconds", "0"}, exitUsage, "--seconds"},
		{[]string{"--admin", addr, "--seconds", "601"}, exitUsage, "--seconds"},
		{[]string{"--admin", "127.0.0.1:1", "--seconds", "1"}, exitUnreachable, "127.0.0.1:1"},
	} {
		if r := tidemark(t, t.Context(), nil, nil, append([]string{"profile"}, tc.args...)...); r.code != tc.code || !strings.Contains(r.stderr, tc.want) {
			t.Errorf("%v: exit code %d, %s", tc.args, r.code, r.stderr)
		}
	}
}

func TestEveryStageHasAHint(t *testing.T) {
	for _, stage := range []string{"decode", "admission", "serialize", "cache wait", "flush", "replicate", "respond", "socket write"} {
		if strings.Contains(stageHint(stage), "does not know") {
			t.Errorf("%s has no hint", stage)
		}
	}
	var b bytes.Buffer
	if err := printProfile(&b, []server.ProfileRow{{Level: "all", Stage: "new", Time: time.Second}}); err != nil || !strings.Contains(b.String(), "does not know") {
		t.Errorf("%v: %s", err, b.String())
	}
}
