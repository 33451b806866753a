package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// interval is a figure and the 95 % interval that resampling its rounds gives.
type interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

func (i interval) String() string {
	digits := 2
	if i.Value >= 100 {
		digits = 0
	}
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, i.Value, digits, i.Low, digits, i.High)
}

func median(v []float64) float64 {
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

// bootstrap takes a figure of rounds, and its percentile interval over rounds drawn with replacement. The seed is fixed: the same rounds give the same interval.
func bootstrap(rounds []round, figure func([]round) float64) interval {
	random := rand.New(rand.NewPCG(1, 2))
	values, drawn := make([]float64, resamples), make([]round, len(rounds))
	for i := range values {
		for j := range drawn {
			drawn[j] = rounds[random.IntN(len(rounds))]
		}
		values[i] = figure(drawn)
	}
	slices.Sort(values)
	return interval{Value: figure(rounds), Low: values[resamples*25/1000], High: values[resamples*975/1000]}
}

// medianOf is a figure of one thing that each round measured.
func medianOf(name string) func([]round) float64 {
	return func(rounds []round) float64 {
		var v []float64
		for _, r := range rounds {
			v = append(v, r[name])
		}
		return median(v)
	}
}

// ratioOf divides two medians.
func ratioOf(a, b string) func([]round) float64 {
	return func(rounds []round) float64 {
		d := medianOf(b)(rounds)
		if d == 0 {
			return 0
		}
		return medianOf(a)(rounds) / d
	}
}

// lowestToHighest divides the lowest of several medians by the highest.
func lowestToHighest(names ...string) func([]round) float64 {
	return func(rounds []round) float64 {
		var v []float64
		for _, name := range names {
			v = append(v, medianOf(name)(rounds))
		}
		if slices.Max(v) == 0 {
			return 0
		}
		return slices.Min(v) / slices.Max(v)
	}
}
