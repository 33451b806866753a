package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tidemark/qos"
)

// otherFirst is called before the next PUT: what somebody else does meanwhile.
var otherFirst func()

// policyStub keeps policies as bytes.
func policyStub(t *testing.T) (addr string, have map[string]string) {
	t.Helper()
	have = make(map[string]string)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /qos/{name}", func(w http.ResponseWriter, r *http.Request) {
		if have[r.PathValue("name")] == "" {
			http.Error(w, "no such policy", http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", strconv.Quote(have[r.PathValue("name")]))
		fmt.Fprint(w, have[r.PathValue("name")])
	})
	mux.HandleFunc("PUT /qos/{name}", func(w http.ResponseWriter, r *http.Request) {
		if otherFirst != nil {
			otherFirst()
			otherFirst = nil
		}
		if now := have[r.PathValue("name")]; r.Header.Get("If-Match") != strconv.Quote(now) && now != "" || r.Header.Get("If-None-Match") == "*" && now != "" {
			http.Error(w, "it has changed", http.StatusPreconditionFailed)
			return
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		have[r.PathValue("name")] = string(b)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), have
}

func TestQosSetKeepsWhatIsNotNamed(t *testing.T) {
	addr, have := policyStub(t)
	set := func(args ...string) result {
		return tidemark(t, t.Context(), nil, nil, append([]string{"qos", "set", "--admin", addr}, args...)...)
	}
	if r := set("a/b", "--client", "orders-*", "--floor", "persistence", "--produce-rate", "5MiB/s", "--deadline", "50ms", "--acks-1", "receive"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if r := set("a/b", "--weight", "4", "--produce-rate", "none", "--in-flight", "8MiB", "--request-rate", "10/s"); r.code != exitOK || !strings.Contains(r.stdout, "for client=orders-*: acks_1=receive floor=persistence deadline=50ms request_rate=10/s in_flight=8MiB weight=4") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	want := `{"name":"a/b","client":"orders-*","acks_1":"receive","floor":"persistence","deadline":"50ms","request_rate":"10/s","in_flight":"8MiB","weight":4}`
	if have["a/b"] != want {
		t.Errorf("got  %s\nwant %s", have["a/b"], want)
	}
	if r := set("a/b", "--client", "none", "--topic", "t", "--weight", "none", "--in-flight", "none", "--request-rate", "none"); r.code != exitOK || !strings.Contains(have["a/b"], `{"name":"a/b","topic":"t","acks_1"`) {
		t.Errorf("%s%s", have["a/b"], r.stderr)
	}
	for _, c := range []struct{ flag, value, says string }{
		{"--floor", "strong", "the levels are"}, {"--deadline", "soon", "like 50ms"}, {"--produce-rate", "fast", "like 5MiB/s"}, {"--fetch-rate", "-1", "like 5MiB/s"},
		{"--request-rate", "1.5", "like 100/s"}, {"--in-flight", "x", "like 8MiB"}, {"--weight", "0", "from 1 to"}, {"--client", "", "it is empty"}, {"--topic", "", "it is empty"},
	} {
		if r := set("p", c.flag+"="+c.value); r.code != exitUsage || !strings.Contains(r.stderr, c.flag) || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s %s: exit code %d: %s", c.flag, c.value, r.code, r.stderr)
		}
	}
	if have["p"] != "" {
		t.Error("a bad flag was sent")
	}
}

func TestInitialPolicies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	load := func(text string) (*settings, error) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return loadSettings(file, nil, nil)
	}
	s, err := load("qos:\n  acks_1: receive\n  policies:\n    - name: a\n      client: orders-*\n      produce_rate: 5242880\n      deadline: 50ms\n      weight: 4\n    - {name: b, topic: audit, client: , floor: all}\n")
	if err != nil || len(s.Policies) != 2 || s.Policies[0].ProduceRate != 5<<20 || s.Policies[0].Weight != 4 || *s.Policies[1].Floor != qos.All || s.AcksOne != qos.Receive {
		t.Fatalf("%+v, %v", s, err)
	}
	var b strings.Builder
	s.print(&b)
	if again, err := load(b.String()); err != nil || len(again.Policies) != 2 || again.Policies[0].Deadline != s.Policies[0].Deadline {
		t.Errorf("what is printed is not read: %v\n%s", err, b.String())
	}
	for text, says := range map[string]string{
		"qos.policies: [{name: a, client: 007, weight: 1}]": "client: 7 is no text", "qos.policies: 3": "it is a list", "qos.policies: [3]": "item 1 is no map", "qos.policies: [{name: a, wait: 1}]": "wait: there is no such setting", "qos.policies: [{name: a}]": "sets nothing",
		"qos.policies: [{name: a, floor: strong}]": "strong", "qos.policies: [{name: a, weight: 1}, {name: a, weight: 2}]": "two policies", "qos.policies: [{name: a, weight: 1}, {name: b, weight: 2}]": "same requests",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Whoever sets something keeps what somebody else set meanwhile.
func TestQosSetMindsOthers(t *testing.T) {
	addr, have := policyStub(t)
	have["p"] = `{"name":"p","client":"c","deadline":"1s"}`
	otherFirst = func() { have["p"] = `{"name":"p","client":"c","deadline":"1s","weight":5}` }
	defer func() { otherFirst = nil }()
	r := tidemark(t, t.Context(), nil, nil, "qos", "set", "--admin", addr, "p", "--produce-rate", "1MiB/s")
	if want := `{"name":"p","client":"c","deadline":"1s","produce_rate":"1MiB/s","weight":5}`; r.code != exitOK || have["p"] != want {
		t.Errorf("%s: %s", have["p"], r.stderr)
	}
	if r := tidemark(t, t.Context(), nil, nil, "qos", "set", "--admin", addr, "new", "--weight", "2"); r.code != exitUsage || !strings.Contains(r.stderr, "say whom it is for") {
		t.Errorf("a new policy for everybody by accident: %d, %s", r.code, r.stderr)
	}
	for _, name := range []string{".", "..", "/", " ", "a//b"} {
		for _, cmd := range [][]string{{"set", "--weight", "2", "--client", "x"}, {"get"}, {"unset"}} {
			args := append([]string{"qos", cmd[0], "--admin", addr}, cmd[1:]...)
			if r := tidemark(t, t.Context(), nil, nil, append(args, "--", name)...); r.code != exitUsage || !strings.Contains(r.stderr, "is no name") {
				t.Errorf("%s %q: exit code %d, %s", cmd[0], name, r.code, r.stderr)
			}
		}
	}
	if r := tidemark(t, t.Context(), nil, nil, "qos", "list", "--admin", "http://"+addr); r.code != exitUsage || !strings.Contains(r.stderr, "without http://") {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
}
