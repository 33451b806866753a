package group

import (
	"slices"
)

// The assignors of Consumer groups, by their names in Kafka.
const (
	Uniform = "uniform" // as many partitions for each as can be, and each keeps what it had
	Range   = "range"   // of each topic a stretch for each
)

var assignors = map[string]func([]wish) map[string][]Partition{Uniform: assignUniform, Range: assignRange}

// Assigns says whether there is an assignor of this name.
func Assigns(name string) bool { return assignors[name] != nil }

// wish is what a member wants to read, and what it was to have before.
type wish struct {
	member string
	topics []Topic // by name
	has    []Partition
}

// assignRange gives each member a stretch of each topic, the first ones one partition more where it does not come out even. Members are in order.
func assignRange(in []wish) map[string][]Partition {
	out := make(map[string][]Partition, len(in))
	topics, all := topicsOf(in)
	for _, t := range topics {
		takers := all[t.ID]
		n, at := int(t.Partitions), int32(0)
		for i, k := range takers {
			size := n / len(takers)
			if i < n%len(takers) {
				size++
			}
			for range size {
				out[in[k].member] = append(out[in[k].member], Partition{t.ID, at})
				at++
			}
		}
	}
	return out
}

// assignUniform keeps what members had, gives the rest to who has least, and then moves partitions from who has more to who has at least two less, until there is nothing to move. Each move makes the sum of squares smaller, so that comes to an end.
func assignUniform(in []wish) map[string][]Partition {
	type place struct {
		p      Partition
		takers []int
		of     int // in in; −1: nobody's
	}
	var places []place
	before := make(map[Partition]int)
	for k := range in {
		for _, p := range in[k].has {
			before[p] = k
		}
	}
	load := make([]int, len(in))
	topics, all := topicsOf(in)
	for _, t := range topics {
		takers := all[t.ID]
		for i := range t.Partitions {
			pl := place{p: Partition{t.ID, i}, takers: takers, of: -1}
			if k, had := before[pl.p]; had && slices.Contains(takers, k) {
				pl.of = k
				load[k]++
			}
			places = append(places, pl)
		}
	}
	least := func(takers []int) int {
		best := takers[0]
		for _, k := range takers[1:] {
			if load[k] < load[best] {
				best = k
			}
		}
		return best
	}
	for i := range places {
		if pl := &places[i]; pl.of < 0 {
			pl.of = least(pl.takers)
			load[pl.of]++
		}
	}
	for moved := true; moved; {
		moved = false
		for i := range places {
			pl := &places[i]
			if to := least(pl.takers); load[pl.of] > load[to]+1 {
				load[pl.of]--
				load[to]++
				pl.of, moved = to, true
			}
		}
	}
	out := make(map[string][]Partition, len(in))
	for _, pl := range places {
		out[in[pl.of].member] = append(out[in[pl.of].member], pl.p)
	}
	return out
}

// topicsOf are the topics that somebody wants, each once, and who wants each, by their place in in.
func topicsOf(in []wish) (ts []Topic, takers map[[16]byte][]int) {
	takers = make(map[[16]byte][]int)
	for k := range in {
		for _, t := range in[k].topics {
			if takers[t.ID] == nil {
				ts = append(ts, t)
			}
			takers[t.ID] = append(takers[t.ID], k)
		}
	}
	slices.SortFunc(ts, func(a, b Topic) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return ts, takers
}
