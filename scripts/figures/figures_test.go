package figures

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "R.md")
	for _, w := range [][2]string{{"a", "one"}, {"b", "two"}, {"a", "three"}} {
		if err := WriteSection(path, "title", w[0], w[1]); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); strings.Count(got, "title") != 1 || strings.Contains(got, "one") || strings.Index(got, "three") > strings.Index(got, "two") || !strings.Contains(got, "two") {
		t.Errorf("%q", got)
	}
}

func TestBootstrap(t *testing.T) {
	var rounds []Round
	for i := range 9 {
		rounds = append(rounds, Round{"a": float64(10 + i), "b": 2, "c": 20})
	}
	got := Bootstrap(rounds, RatioOf("a", "b"))
	if got.Value != 7 || got.Low < 5 || got.Low >= 7 || got.High <= 7 || got.High > 9 {
		t.Errorf("ratio of 10..18 and 2: %v", got)
	}
	if again := Bootstrap(rounds, RatioOf("a", "b")); again != got {
		t.Errorf("%v, then %v", got, again)
	}
	if got := LowestToHighest("a", "b", "c")(rounds); got != 0.1 {
		t.Errorf("lowest to highest: %v", got)
	}
	if got := RatioOf("a", "missing")(rounds); got != 0 {
		t.Errorf("a ratio to nothing: %v", got)
	}
	if got := Median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median: %v", got)
	}
}
