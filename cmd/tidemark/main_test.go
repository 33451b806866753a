package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/internal/kwire"
)

// result is what a run of the binary leaves behind.
type result struct {
	code           int
	stdout, stderr string
}

// tidemark runs the command line as main would. setup, if not nil, may change the parsed command before it runs.
func tidemark(t *testing.T, ctx context.Context, stdin io.Reader, setup func(*CLI), args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	e := &env{ctx: ctx, stdin: stdin, stdout: &stdout, stderr: &stderr}
	var cli CLI
	kctx, code := parse(e, &cli, args)
	if kctx != nil {
		if setup != nil {
			setup(&cli)
		}
		code = report(e, kctx.Run())
	}
	return result{code, stdout.String(), stderr.String()}
}

func TestUsageErrors(t *testing.T) {
	cases := []struct {
		args string
		want string // in the message
	}{
		{"", "expected one of"},
		{"nonsense", "nonsense"},
		{"topic", "expected one of"},
		{"topic create", "<name>"},
		{"topic create t --partitions 0", "--partitions"},
		{"topic create t --partitions x", "--partitions"},
		{"topic create t --config novalue", "--config"},
		{"produce", "<topic>"},
		{"produce t --unknown", "--unknown"},
		{"watch --count=-1", "--count"},
		{"produce t --qos sometimes", "--qos"},
		{"produce t --partition=-1", "--partition"},
		{"produce t --batch-records 0", "--batch-records"},
		{"produce t --linger=-1s", "--linger"},
		{"produce t --linger 5", "--linger"},
		{"produce t --in-flight 6", "--in-flight"},
		{"produce t --in-flight many", "--in-flight"},
		{"produce t --compression rar", "--compression"},
		{"produce t --timeout 0s", "--timeout"},
		{"consume t --from yesterday", "--from"},
		{"consume t --from=-1", "--from"},
		{"consume t --format xml", "--format"},
		{"consume t --count=-1", "--count"},
		{"consume t --partition=-1", "--partition"},
		{"consume t --group g --partition 1", "--partition"},
		{"consume t --group g --from 5", "--from"},
		{"group", "expected one of"},
		{"group describe", "<name>"},
		{"group reset g", "--to"},
		{"group reset g --to yesterday", "--to"},
		{"group delete", "<names>"},
		{"bench produce --connections 0", "--connections"},
		{"bench produce --in-flight 0", "--in-flight"},
		{"bench produce --record-bytes=-1", "--record-bytes"},
		{"bench produce --records-per-batch 0", "--records-per-batch"},
		{"bench produce --partitions 0", "--partitions"},
		{"bench produce --qos 7", "--qos"},
		{"bench produce --duration 0s", "--duration"},
		{"bench produce --warmup=-1s", "--warmup"},
		{"bench produce --acks=-2", "--acks"},
		{"bench produce --rate 0/s", "--rate"},
		{"bench produce --rate 5MiB/s", "--rate"},
		{"bench produce --rate 5/s --qos one-way", "--rate"},
		{"bench produce --plot latency.png", "--plot"},
		{"bench produce --plot latency.svg --acks 0", "--plot"},
		{"bench latency --in-flight 0", "--in-flight"},
		{"bench latency --rate fast", "--rate"},
		{"bench latency --end-to-end --records-per-batch 2", "--records-per-batch"},
		{"bench latency --end-to-end --record-bytes 7", "--record-bytes"},
		{"bench latency --end-to-end --null", "--null"},
		{"bench consume --from 5", "--from"},
		{"bench consume --connections 0", "--connections"},
		{"bench consume --fetch-bytes 0", "--fetch-bytes"},
		{"bench consume --duration 0s", "--duration"},
		{"bench produce --connections 10000 --in-flight 10000 --record-bytes 1000000", "--in-flight"},
	}
	for _, tc := range cases {
		t.Run(tc.args, func(t *testing.T) {
			r := tidemark(t, t.Context(), strings.NewReader(""), nil, strings.Fields(tc.args)...)
			if r.code != exitUsage {
				t.Errorf("exit code %d, want %d", r.code, exitUsage)
			}
			if !strings.HasPrefix(r.stderr, "tidemark: ") || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, tc.want) {
				t.Errorf("message %q, want one line that names %s", r.stderr, tc.want)
			}
		})
	}
}

// TestMain is the null server when bench runs this binary for it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" && os.Args[2] == "null" {
		main()
	}
	os.Exit(m.Run())
}

func TestHelp(t *testing.T) {
	r := tidemark(t, t.Context(), nil, nil, "--help")
	if r.code != exitOK || r.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
	}
	for _, row := range exitTable {
		if !strings.Contains(r.stdout, fmt.Sprintf("%3d  %s\n", row.code, row.meaning)) {
			t.Errorf("no exit code %d in:\n%s", row.code, r.stdout)
		}
	}
	for _, command := range []string{"topic create", "topic list", "topic describe", "topic delete", "produce", "consume", "bench produce", "bench latency", "bench consume", "version"} {
		r := tidemark(t, t.Context(), nil, nil, append(strings.Fields(command), "--help")...)
		if r.code != exitOK || !strings.Contains(r.stdout, "    tidemark "+command) {
			t.Errorf("%s --help: exit code %d, no example in:\n%s", command, r.code, r.stdout)
		}
	}
}

func TestExitCodes(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	cases := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("odd"), 1},
		{usageErrorf("--x: bad"), 2},
		{refused, 3},
		{fmt.Errorf("wrapped: %w", &kwire.ConnError{Err: io.EOF}), 3},
		{fmt.Errorf("wrapped: %w", kwire.ErrFrame), 3},
		{context.DeadlineExceeded, 3},
		{topicError("t", kerr.UnknownTopicOrPartition), 4},
		{exitWith(exitDataDir, refused), 5},
		{exitWith(exitDamaged, errors.New("x")), 6},
		{fmt.Errorf("wrapped: %w", exitWith(exitDisk, io.ErrShortWrite)), 7},
		{errInterrupted, 130},
		{context.Canceled, 130},
		{fmt.Errorf("wrapped: %w", &fs.PathError{Op: "write", Path: os.Stdout.Name(), Err: syscall.EPIPE}), 141},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, 3},
	}
	for _, tc := range cases {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("exitCode(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
	if exitWith(exitDisk, nil) != nil {
		t.Error("exitWith of no error is one")
	}
}

func TestVersionLine(t *testing.T) {
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}}
	info.Main.Version = "v1.2.3"
	if got := versionLine(info); !strings.HasPrefix(got, "tidemark v1.2.3 (revision abc, modified) go1.") {
		t.Errorf("got %q", got)
	}
	r := tidemark(t, t.Context(), nil, nil, "version")
	if r.code != exitOK || r.stdout == "" {
		t.Errorf("%+v", r)
	}
}

func TestLevelsToAcks(t *testing.T) {
	for level, want := range map[string]int16{"one-way": 0, "receive": 101, "persistence": 102, "replication": 103, "all": 104} {
		if got, ok := acksOf(level); !ok || got != want {
			t.Errorf("acksOf(%q) = %d, %v, want %d", level, got, ok, want)
		}
	}
	if _, ok := acksOf("-1"); ok {
		t.Error("acksOf takes a number")
	}
}
