package main

import (
	"fmt"
	"slices"
	"strings"

	"tidemark/scripts/figures"
)

// check is one figure against its limit.
type check struct {
	What    string           `json:"what"`
	Figure  figures.Interval `json:"figure"`
	Limit   float64          `json:"limit"`
	AtMost  bool             `json:"at_most"` // else at least
	Verdict string           `json:"verdict"`
}

const (
	met    = "met"
	missed = "missed"
	na     = "n/a" // what it is compared with does not count in this run
)

// judge looks at the worse end of the interval.
func (c *check) judge() {
	c.Verdict = missed
	if c.AtMost && c.Figure.High <= c.Limit || !c.AtMost && c.Figure.Low >= c.Limit {
		c.Verdict = met
	}
}

// result is one scenario's.
type result struct {
	Name     string          `json:"name"`
	Title    string          `json:"title"`
	Unit     string          `json:"unit"`    // of the columns
	Columns  []string        `json:"columns"` // of the rounds, that the table shows
	Checks   []check         `json:"checks"`
	Rounds   []figures.Round `json:"rounds"`
	Resident int64           `json:"resident_peak_bytes"` // of the server, 0: not looked at
	GCShare  float64         `json:"gc_share"`            // of the server's processor time
}

// results is the whole run.
type results struct {
	figures.Run
	Quiet     bool      `json:"quiet"` // drop reached quietDrop at 64 x 1
	Scenarios []*result `json:"scenarios"`
}

func (r *results) count() (yes, no int) {
	for _, s := range r.Scenarios {
		for _, c := range s.Checks {
			switch c.Verdict {
			case met:
				yes++
			case missed:
				no++
			}
		}
	}
	return yes, no
}

// print shows a scenario as it ends.
func (s *result) print() {
	var medians []string
	for _, c := range s.Columns {
		medians = append(medians, fmt.Sprintf("%s %s", c, figures.Short(figures.MedianOf(c)(s.Rounds))))
	}
	fmt.Printf("%-3s %s: %s (%s)\n", s.Name, s.Title, strings.Join(medians, ", "), s.Unit)
	for _, c := range s.Checks {
		fmt.Printf("    %-6s %s: %v, %s %.6g\n", c.Verdict, c.What, c.Figure, c.side(), c.Limit)
	}
}

func (c *check) side() string {
	if c.AtMost {
		return "at most"
	}
	return "at least"
}

// write puts the results into a folder.
func (r *results) write(dir string) error {
	r.Done()
	return figures.Write(dir, "bench", r, r.markdown())
}

func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString("## Scenarios\n\n" + r.Run.String())
	quiet := "no: limits for a quiet machine do not count in this run"
	if r.Quiet {
		quiet = "yes"
	}
	fmt.Fprintf(&b, "- Quiet (the yardstick's drop reached %d/s at 64 × 1): %s\n", quietDrop, quiet)
	b.WriteString(`
Columns are medians of the rounds. *null* is Tidemark's endpoint and decoder, which answers at once; *drop* and *direct* are the yardstick (` + "`scripts/yardstick`" + `), a server without protocol, without and with a synced
direct write, at the same connections, frames in flight and bytes. A check is a figure with its 95 % interval (bootstrapped over the rounds), and the worse end counts.

| | scenario | medians | check | figure | limit | |
|---|---|---|---|---|---|---|
`)
	for _, s := range r.Scenarios {
		var medians []string
		for _, c := range s.Columns {
			medians = append(medians, c+" "+figures.Short(figures.MedianOf(c)(s.Rounds)))
		}
		first := fmt.Sprintf("| %s | %s | %s (%s) |", s.Name, s.Title, strings.Join(medians, ", "), s.Unit)
		for _, c := range s.Checks {
			verdict := c.Verdict
			if verdict == missed {
				verdict = "**missed**"
			}
			fmt.Fprintf(&b, "%s %s | %v | %s %.6g | %s |\n", first, c.What, c.Figure, c.side(), c.Limit, verdict)
			first = "| | | |"
		}
	}
	b.WriteString("\nThe server beside it:\n\n| | resident at most | garbage collection |\n|---|---|---|\n")
	for _, s := range r.Scenarios {
		if s.Resident > 0 {
			fmt.Fprintf(&b, "| %s | %d MiB | %.2f %% of its processor time |\n", s.Name, s.Resident>>20, 100*s.GCShare)
		}
	}
	return b.String()
}

// names of all scenarios, for --only.
func names() (all []string) {
	for _, s := range scenarios {
		all = append(all, s.name)
	}
	return all
}

// known refuses names that no scenario has.
func known(only []string) error {
	for _, name := range only {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("--only: there is no scenario %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	return nil
}
