package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestTopicCommands(t *testing.T) {
	b := newBroker(t)
	if r := b.mustRun(t, "", "topic", "create", "orders", "--partitions", "3", "--config", "max.message.bytes=2000", "--config", "cleanup.policy=compact,delete"); r.stdout != "created orders, partitions: 3\n" {
		t.Errorf("create: %q", r.stdout)
	}
	if r := b.mustRun(t, "", "topic", "list"); !strings.Contains(r.stdout, "orders  3\n") {
		t.Errorf("list: %q", r.stdout)
	}
	b.mustRun(t, "a\nb\n", "produce", "orders", "--partition", "1")
	r := b.mustRun(t, "", "topic", "describe", "orders")
	for _, want := range []string{"partitions:  3", "1          0       0      2    2", "max.message.bytes", "2000", "compact,delete"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("describe has no %q:\n%s", want, r.stdout)
		}
	}
	b.mustRun(t, "", "topic", "delete", "orders")

	if r := b.run(t, "", "topic", "describe", "orders"); r.code != exitRefused || !strings.Contains(r.stderr, "UNKNOWN_TOPIC_OR_PARTITION") || !strings.Contains(r.stderr, "tidemark topic create orders") {
		t.Errorf("describe what is gone: %+v", r)
	}
	if r := b.run(t, "", "topic", "delete", "orders"); r.code != exitRefused {
		t.Errorf("delete what is gone: %+v", r)
	}
	b.mustRun(t, "", "topic", "create", "twice")
	if r := b.run(t, "", "topic", "create", "twice"); r.code != exitRefused || !strings.Contains(r.stderr, "TOPIC_ALREADY_EXISTS") {
		t.Errorf("create again: %+v", r)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, args := range [][]string{{"topic", "list"}, {"topic", "create", "t"}, {"produce", "t"}, {"consume", "t"}, {"bench", "produce"}} {
		r := tidemark(t, t.Context(), strings.NewReader("x\n"), nil, append(args, "--bootstrap", addr)...)
		if r.code != exitUnreachable || !strings.Contains(r.stderr, addr) || !strings.Contains(r.stderr, "--bootstrap") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	// One that answers is enough.
	b := newBroker(t)
	if r := tidemark(t, t.Context(), nil, nil, "topic", "list", "--bootstrap", addr+","+b.addr); r.code != exitOK {
		t.Errorf("second bootstrap: %+v", r)
	}
}

func TestConsume(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(2, "t"))
	b.mustRun(t, "k0:v0\n:v1\nv2\nk3:\xff\xfe\n", "produce", "t", "--partition", "1", "--key-separator", ":")

	cases := []struct {
		args string
		want string
	}{
		{"", "v0 v1 v2 \xff\xfe"},
		{"--partition 1", "v0 v1 v2 \xff\xfe"},
		{"--partition 0", ""},
		{"--count 2", "v0 v1"},
		{"--count 0", ""},
		{"--from latest", ""},
		{"--from 2 --partition 1", "v2 \xff\xfe"},
		{"--from 4 --partition 1", ""},
		{"--from 2000-01-01T00:00:00Z --count 1", "v0"},
		{"--from 2200-01-01T00:00:00Z", ""},
		{"--from 1 --follow --count 2 --partition 1", "v1 v2"},
	}
	for _, tc := range cases {
		got := strings.Join(b.lines(t, "t", strings.Fields(tc.args)...), " ")
		if got != tc.want {
			t.Errorf("consume t %s: %q, want %q", tc.args, got, tc.want)
		}
	}

	type line struct {
		Topic, Timestamp string
		Partition        int32
		Offset           int64
		Key, Value       *string
		KeyB64           *string `json:"key_b64"`
		ValueB64         *string `json:"value_b64"`
		Headers          []any
	}
	var lines []line
	for _, text := range b.lines(t, "t", "--format", "json") {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, l)
	}
	if len(lines) != 4 {
		t.Fatalf("%d lines", len(lines))
	}
	if l := lines[0]; l.Topic != "t" || l.Partition != 1 || l.Offset != 0 || *l.Key != "k0" || *l.Value != "v0" || l.Headers == nil || len(l.Timestamp) != len("2026-01-31T08:00:00.000Z") {
		t.Errorf("line 0: %+v", l)
	}
	if l := lines[1]; l.Key == nil || *l.Key != "" {
		t.Errorf("an empty key is no key: %+v", l)
	}
	if l := lines[2]; l.Key != nil || l.KeyB64 != nil || *l.Value != "v2" {
		t.Errorf("no key: %+v", l)
	}
	if l := lines[3]; l.Value != nil || *l.ValueB64 != "//4=" {
		t.Errorf("not UTF-8: %+v", l)
	}

	for args, code := range map[string]int{
		"consume missing":             exitRefused,
		"consume t --partition 2":     exitUsage,
		"consume t --from 9 --follow": exitUsage,
	} {
		if r := b.run(t, "", strings.Fields(args)...); r.code != code {
			t.Errorf("%s: %+v, want code %d", args, r, code)
		}
	}
}

// cancelAfter is a standard output that interrupts the command when it has seen enough.
type cancelAfter struct {
	bytes.Buffer
	enough string
	cancel func()
}

func (w *cancelAfter) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.String() == w.enough {
		w.cancel()
	}
	return n, err
}

// A follower prints what there is before it waits for more, and ends with SIGINT.
func TestConsumeFollowInterrupted(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(1, "t"))
	b.mustRun(t, "a\nb\n", "produce", "t")
	ctx, cancel := context.WithCancel(t.Context())
	out := &cancelAfter{enough: "a\nb\n", cancel: cancel}
	var stderr bytes.Buffer
	code := run(&env{ctx: ctx, stdout: out, stderr: &stderr}, []string{"consume", "t", "--follow", "--bootstrap", b.addr})
	if code != exitInterrupted || stderr.String() != "tidemark: interrupted\n" {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
}

func TestBench(t *testing.T) {
	b := newBroker(t)
	for _, qos := range []string{"all", "one-way"} {
		r := b.mustRun(t, "", "bench", "produce", "--topic", "bench-"+qos, "--qos", qos, "--connections", "3", "--in-flight", "7", "--records-per-batch", "2",
			"--record-bytes", "100", "--duration", "1s", "--warmup", "20ms", "--json")
		var report benchReport
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatalf("%s: %v", r.stdout, err)
		}
		if report.Requests == 0 || report.RequestsPerS == 0 || report.RecordsPerS != 2*report.RequestsPerS || report.Errors != 0 || report.Connections != 3 {
			t.Errorf("%s: %+v", qos, report)
		}
		if (report.P50Ms == nil) != (qos == "one-way") || (report.Note == "") == (qos == "one-way") {
			t.Errorf("%s: p50 %v, note %q", qos, report.P50Ms, report.Note)
		}
		if qos == "all" { // every partition got some, and the broker has at least what was counted
			var stored int64
			for p := range int32(4) {
				n := b.PartitionInfo("bench-all", p).HighWatermark
				if n == 0 {
					t.Errorf("partition %d is empty", p)
				}
				stored += n
			}
			if stored < 2*report.Requests {
				t.Errorf("%d records stored, %d requests counted", stored, report.Requests)
			}
		}
	}
	if r := b.mustRun(t, "", "bench", "produce", "--topic", "bench-all", "--connections", "1", "--duration", "500ms", "--warmup", "0s"); !strings.Contains(r.stdout, "p99.9") {
		t.Errorf("table: %q", r.stdout)
	}
	if r := b.run(t, "", "bench", "produce", "--topic", "bench-all", "--partitions", "9"); r.code != exitUsage || !strings.Contains(r.stderr, "--partitions") {
		t.Errorf("too many partitions: %+v", r)
	}
	// Kafka knows no acks 102: every request is refused, and the report says by what.
	r := tidemark(t, t.Context(), nil, nil, "bench", "produce", "--bootstrap", b.addr, "--connections", "1", "--duration", "500ms", "--warmup", "0s", "--json")
	if r.code != exitRefused || !strings.Contains(r.stdout, `"INVALID_REQUIRED_ACKS"`) || !strings.Contains(r.stderr, "INVALID_REQUIRED_ACKS") {
		t.Errorf("refused: %+v", r)
	}
}
