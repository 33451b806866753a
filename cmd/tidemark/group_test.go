package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestGroupCommands(t *testing.T) {
	b := newBroker(t, kfake.SeedTopics(2, "t", "other"))
	b.mustRun(t, "a\nb\nc\n", "produce", "t", "--partition", "0")
	b.mustRun(t, "d\ne\n", "produce", "t", "--partition", "1")
	b.mustRun(t, "x\n", "produce", "other", "--partition", "1")

	read := func(count string) []string {
		t.Helper()
		lines := strings.Fields(b.mustRun(t, "", "consume", "t", "--group", "g", "--count", count).stdout)
		slices.Sort(lines)
		return lines
	}
	if got := strings.Join(read("5"), ""); got != "abcde" {
		t.Errorf("read %q", got)
	}
	has := func(r result, wants ...string) {
		t.Helper()
		flat := strings.Join(strings.Fields(r.stdout), " ")
		for _, want := range wants {
			if !strings.Contains(flat, want) {
				t.Errorf("no %q in:\n%s", want, r.stdout)
			}
		}
	}
	has(b.mustRun(t, "", "group", "list"), "GROUP STATE MEMBERS LAG g Empty 0 0")
	has(b.mustRun(t, "", "group", "describe", "g"), "group g: Empty, 0 members", "t 0 3 3 0 - - -", "t 1 2 2 0 - - -")

	has(b.mustRun(t, "", "group", "reset", "g", "--to", "earliest", "--dry-run"), "TOPIC PARTITION FROM TO t 0 3 0 t 1 2 0")
	has(b.mustRun(t, "", "group", "describe", "g"), "t 0 3 3 0")
	has(b.mustRun(t, "", "group", "reset", "g", "--to", "1"), "t 0 3 1 t 1 2 1")
	has(b.mustRun(t, "", "group", "describe", "g"), "t 0 1 3 2", "t 1 1 2 1")
	if got := strings.Join(read("3"), ""); got != "bce" {
		t.Errorf("read %q behind a reset", got)
	}
	far := b.mustRun(t, "", "group", "reset", "g", "--to", "99", "--topic", "other")
	has(far, "other 0 - 0 other 1 - 1")
	if !strings.Contains(far.stderr, "offset 99 is not in 2 partitions") {
		t.Errorf("an offset behind the ends: %q", far.stderr)
	}
	member, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.ConsumerGroup("m"), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	if err := member.PollFetches(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if r := b.mustRun(t, "", "group", "reset", "m", "--to", "earliest", "--topic", "t", "--dry-run"); !strings.Contains(r.stderr, `group "m" has 1 member:`) {
		t.Errorf("a reset of a group that has a member, tried: %q", r.stderr)
	}
	has(b.mustRun(t, "", "group", "reset", "g", "--to", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--topic", "t"), "t 0 3 3 t 1 2 2")
	has(b.mustRun(t, "", "group", "reset", "g", "--to", "latest"), "other 0 0 0 other 1 1 1 t 0 3 3 t 1 2 2")

	has(b.mustRun(t, "", "group", "delete", "g"), "deleted g")
	for _, args := range [][]string{{"group", "describe", "g"}, {"group", "delete", "g"}} {
		if r := b.run(t, "", args...); r.code != exitRefused || !strings.Contains(r.stderr, "no group of this name") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := b.run(t, "", "group", "reset", "g", "--to", "earliest"); r.code != exitUsage || !strings.Contains(r.stderr, "--topic") {
		t.Errorf("reset of a group that has committed nothing: %+v", r)
	}
	if r := b.run(t, "", "group", "reset", "g", "--to", "earliest", "--topic", "nobody"); r.code != exitRefused || !strings.Contains(r.stderr, "nobody") {
		t.Errorf("reset to a topic that is not there: %+v", r)
	}
}
