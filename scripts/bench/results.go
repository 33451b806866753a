package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// round is what one turn measured, by name.
type round map[string]float64

// check is one figure against its limit.
type check struct {
	What    string   `json:"what"`
	Figure  interval `json:"figure"`
	Limit   float64  `json:"limit"`
	AtMost  bool     `json:"at_most"` // else at least
	Verdict string   `json:"verdict"`
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
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Unit     string   `json:"unit"`    // of the columns
	Columns  []string `json:"columns"` // of the rounds, that the table shows
	Checks   []check  `json:"checks"`
	Rounds   []round  `json:"rounds"`
	Resident int64    `json:"resident_peak_bytes"` // of the server, 0: not looked at
	GCShare  float64  `json:"gc_share"`            // of the server's processor time
}

// results is the whole run.
type results struct {
	Started   time.Time `json:"started"`
	Took      float64   `json:"took_s"`
	Machine   string    `json:"machine"`
	Kernel    string    `json:"kernel"`
	Go        string    `json:"go"`
	Disk      string    `json:"disk"`
	Commit    string    `json:"commit"`
	Command   string    `json:"command"`
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
		medians = append(medians, fmt.Sprintf("%s %s", c, figure(medianOf(c)(s.Rounds))))
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

// figure has three digits that count, or all of a large number.
func figure(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// describe notes what the figures depend on.
func (r *results) describe(dir string) {
	r.Started = time.Now().UTC().Truncate(time.Second)
	r.Go = runtime.Version()
	r.Machine = fmt.Sprintf("%d × %s", runtime.NumCPU(), processor())
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		r.Disk = fmt.Sprintf("file system of type %#x", uint32(fs.Type))
		if name, ok := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs"}[int64(fs.Type)]; ok {
			r.Disk = name
		}
	}
	r.Commit = "unknown"
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		r.Commit = strings.TrimSpace(string(out))
	}
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// write puts the results into a folder.
func (r *results) write(dir, args string) error {
	r.Command = strings.TrimSpace("go run ./scripts/bench " + args)
	r.Took = time.Since(r.Started).Round(time.Second).Seconds()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(r.markdown()), 0o644)
}

func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results\n\nWritten by `%s` on %s in %.0f s; every round is in [results.json](results.json). What did not help is in [NOTES.md](NOTES.md).\n\n", r.Command, r.Started.Format("2006-01-02 15:04 MST"), r.Took)
	fmt.Fprintf(&b, "- Machine: %s, shared by clients and server; %s; %s; %s\n- Commit: %s\n", r.Machine, r.Kernel, r.Disk, r.Go, r.Commit)
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
			medians = append(medians, c+" "+figure(medianOf(c)(s.Rounds)))
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
