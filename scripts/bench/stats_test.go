package main

import "testing"

func TestBootstrap(t *testing.T) {
	var rounds []round
	for i := range 9 {
		rounds = append(rounds, round{"a": float64(10 + i), "b": 2, "c": 20})
	}
	got := bootstrap(rounds, ratioOf("a", "b"))
	if got.Value != 7 || got.Low < 5 || got.Low >= 7 || got.High <= 7 || got.High > 9 {
		t.Errorf("ratio of 10..18 and 2: %v", got)
	}
	if again := bootstrap(rounds, ratioOf("a", "b")); again != got {
		t.Errorf("%v, then %v", got, again)
	}
	if got := lowestToHighest("a", "b", "c")(rounds); got != 0.1 {
		t.Errorf("lowest to highest: %v", got)
	}
	if got := ratioOf("a", "missing")(rounds); got != 0 {
		t.Errorf("a ratio to nothing: %v", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median: %v", got)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		limit float64
		most  bool
		want  string
	}{{0.9, false, met}, {0.95, false, missed}, {1.1, true, met}, {1.05, true, missed}} {
		k := check{Figure: interval{Value: 1, Low: 0.9, High: 1.1}, Limit: c.limit, AtMost: c.most}
		k.judge()
		if k.Verdict != c.want {
			t.Errorf("limit %v, at most %v: %s, want %s", c.limit, c.most, k.Verdict, c.want)
		}
	}
}
