package main

import (
	"testing"

	"tidemark/scripts/figures"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		limit float64
		most  bool
		want  string
	}{{0.9, false, met}, {0.95, false, missed}, {1.1, true, met}, {1.05, true, missed}} {
		k := check{Figure: figures.Interval{Value: 1, Low: 0.9, High: 1.1}, Limit: c.limit, AtMost: c.most}
		k.judge()
		if k.Verdict != c.want {
			t.Errorf("limit %v, at most %v: %s, want %s", c.limit, c.most, k.Verdict, c.want)
		}
	}
}
