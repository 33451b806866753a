// Package figures is what the scripts that measure share: rounds, medians and their Intervals, the machine, and the sections of a document that they write.
package figures

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Round is what one turn measured, by name.
type Round map[string]float64

// Interval is a figure and the 95 % interval that resampling its rounds gives.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

func (i Interval) String() string {
	digits := 2
	if i.Value >= 100 {
		digits = 0
	}
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, i.Value, digits, i.Low, digits, i.High)
}

// Median of all values, 0 without any.
func Median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if n := len(s) / 2; len(s)%2 == 0 {
		return (s[n-1] + s[n]) / 2
	}
	return s[len(s)/2]
}

// resamples of a bootstrap (Efron, 1979).
const resamples = 10_000

// Bootstrap takes a figure of rounds, and its percentile interval over rounds drawn with replacement. The seed is fixed: the same rounds give the same interval.
func Bootstrap(rounds []Round, figure func([]Round) float64) Interval {
	random := rand.New(rand.NewPCG(1, 2))
	values, drawn := make([]float64, resamples), make([]Round, len(rounds))
	for i := range values {
		for j := range drawn {
			drawn[j] = rounds[random.IntN(len(rounds))]
		}
		values[i] = figure(drawn)
	}
	slices.Sort(values)
	return Interval{Value: figure(rounds), Low: values[resamples*25/1000], High: values[resamples*975/1000]}
}

// MedianOf is a figure of one thing that each round measured.
func MedianOf(name string) func([]Round) float64 {
	return func(rounds []Round) float64 {
		var v []float64
		for _, r := range rounds {
			v = append(v, r[name])
		}
		return Median(v)
	}
}

// RatioOf divides two medians.
func RatioOf(a, b string) func([]Round) float64 {
	return func(rounds []Round) float64 {
		d := MedianOf(b)(rounds)
		if d == 0 {
			return 0
		}
		return MedianOf(a)(rounds) / d
	}
}

// LowestToHighest divides the lowest of several medians by the highest.
func LowestToHighest(names ...string) func([]Round) float64 {
	return func(rounds []Round) float64 {
		var v []float64
		for _, name := range names {
			v = append(v, MedianOf(name)(rounds))
		}
		if slices.Max(v) == 0 {
			return 0
		}
		return slices.Min(v) / slices.Max(v)
	}
}
