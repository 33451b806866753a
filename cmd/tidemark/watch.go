package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"tidemark/pipeline"
	"tidemark/server"
	"tidemark/server/kafka"
)

// WatchCmd is `tidemark watch`.
type WatchCmd struct {
	AdminFlags `embed:""`
	Interval   time.Duration `default:"1s" help:"Time between two looks." placeholder:"D"`
	Count      int           `help:"Looks to take; 0: until interrupted." placeholder:"N"`
}

// Help is kong's detailed help.
func (WatchCmd) Help() string {
	return `What is refused or throttled, watermarks and how far each is behind the one that it follows, the consumer groups that are most behind, rates and times by level, the clients with the most
requests, the queue and the disk: what happened since the look before. It fits a terminal of 80 columns and 24 lines. Without a terminal the looks are printed one below the other.

Example:

    tidemark watch
    tidemark watch --interval 5s --count 12 > minute.txt`
}

// watched is one look: what /status says.
type watched struct {
	pipeline.Status
	Connections int                            `json:"connections"`
	FetchMemory kafka.FetchMemory              `json:"fetch_memory"`
	Policies    map[string]server.PolicyCounts `json:"policies"`
	Groups      int                            `json:"groups"`
	Behind      []kafka.GroupLag               `json:"groups_most_behind"`
}

// watchRows and watchColumns are what a look takes at most.
const (
	watchRows    = 24
	watchColumns = 80
	watchClients = 5
)

// Run looks until it is interrupted.
func (c *WatchCmd) Run(e *env) error {
	if c.Interval < 10*time.Millisecond {
		return usageErrorf("--interval %v: it is at least 10ms", c.Interval)
	}
	if c.Count < 0 {
		return usageErrorf("--count %d: it is at least 1, or 0 for no end", c.Count)
	}
	out, ok := e.stdout.(*os.File)
	clearScreen := ok && term.IsTerminal(int(out.Fd()))
	var before *watched
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for looks := 0; c.Count == 0 || looks < c.Count; looks++ {
		raw, err := c.get(e, "/status", 0)
		if e.ctx.Err() != nil {
			return nil
		}
		if err != nil && before == nil {
			return err
		}
		if err != nil { // it is started again, perhaps: that is when one watches
			if _, err := fmt.Fprintf(e.stdout, "%s  the node is away: %s\n", time.Now().Format(time.TimeOnly), oneLine(err)); err != nil {
				return err
			}
			if !c.wait(e, tick.C, looks) {
				return nil
			}
			continue
		}
		now := new(watched)
		if err := json.Unmarshal(raw, now); err != nil {
			return fmt.Errorf("admin listener %s: %w", c.Admin, err)
		}
		if before == nil { // nothing is drawn until something can have changed: averages since the start would hide what is going on now
			before = now
			looks--
			select {
			case <-time.After(min(c.Interval, watchFirst)):
				tick.Reset(c.Interval)
				continue
			case <-e.ctx.Done():
				return nil
			}
		}
		if before.UptimeS > now.UptimeS { // it was started again
			before = &watched{}
		}
		if clearScreen {
			fmt.Fprint(e.stdout, "\x1b[H\x1b[2J")
		}
		if _, err := io.WriteString(e.stdout, draw(c.Admin, before, now)); err != nil {
			return err
		}
		before = now
		if !c.wait(e, tick.C, looks) {
			return nil
		}
	}
	return nil
}

// watchFirst is how long the first look takes.
const watchFirst = 500 * time.Millisecond

// wait waits for the next look; false: there is none.
func (c *WatchCmd) wait(e *env, tick <-chan time.Time, looks int) bool {
	if c.Count > 0 && looks == c.Count-1 {
		return false
	}
	select {
	case <-tick:
		return true
	case <-e.ctx.Done():
		return false
	}
}

// draw lays a look out: what changed from before to now.
func draw(addr string, before, now *watched) string {
	took := max(now.UptimeS-before.UptimeS, 1e-3)
	var lines []string
	line := func(format string, args ...any) {
		s := []rune(fmt.Sprintf(format, args...))
		lines = append(lines, strings.TrimRight(string(s[:min(len(s), watchColumns)]), " "))
	}
	up := (time.Duration(now.UptimeS) * time.Second).String()
	line("%s  tidemark %s  up %s  epoch %d  %d topics  %d connections", time.Now().Format(time.TimeOnly), addr, up, now.Epoch, now.Topics, now.Connections)
	if now.Failed != "" {
		line("FAILED: %s", now.Failed)
	} else {
		line("%s", troubleLine(before, now, took))
	}
	line("%-12s %20s %14s %14s", "WATERMARK", "OFFSET", "BEHIND", "PER SECOND")
	for _, w := range []struct {
		name         string
		before, from int64
	}{
		{"written", int64(before.Watermarks.Written), int64(now.Watermarks.Written)}, {"flushed", int64(before.Watermarks.Flushed), int64(now.Watermarks.Flushed)},
		{"replicated", int64(before.Watermarks.Replicated), int64(now.Watermarks.Replicated)}, {"committed", int64(before.Watermarks.Committed), int64(now.Watermarks.Committed)},
		{"indexed", int64(before.Watermarks.Indexed), int64(now.Watermarks.Indexed)}, {"applied", int64(before.Watermarks.Applied), int64(now.Watermarks.Applied)},
		{"marked", int64(before.Watermarks.Marked), int64(now.Watermarks.Marked)},
	} {
		behind := ""
		if lag, ok := now.LagBytes[w.name]; ok {
			behind = size(float64(lag))
		}
		line("%-12s %20d %14s %14s", w.name, w.from, behind, size(float64(w.from-w.before)/took))
	}
	line("%s", groupsLine(now))
	line("%-28s %14s %12s %12s", "LEVEL", "ANSWERS/S", "P50", "P99")
	for _, row := range moved(before.Times.Levels, now.Times.Levels, 4) {
		line("%-28s %14s %12s %12s", row.name, perSecond(row, took), row.quantile(0.5), row.quantile(0.99))
	}
	line("%-28s %14s %12s %12s", "CLIENT", "ANSWERS/S", "P50", "P99")
	for _, row := range moved(before.Times.Clients, now.Times.Clients, watchClients) {
		line("%-28.28s %14s %12s %12s", fmt.Sprintf("%q", row.name), perSecond(row, took), row.quantile(0.5), row.quantile(0.99))
	}
	for len(lines) < watchRows-2 {
		lines = append(lines, "")
	}
	line("queue: %d requests, %s, of %d clients; %d not answered; %d fetches wait", now.Admission.Requests, size(float64(now.Admission.Bytes)), now.Admission.Clients, now.Pending, now.Readers)
	flushes := max(now.Flushes.Count-before.Flushes.Count, 0)
	each, took1 := 0.0, 0.0
	if flushes > 0 {
		each = float64(now.Flushes.Bytes-before.Flushes.Bytes) / float64(flushes)
		took1 = 1e3 * (now.Flushes.Seconds - before.Flushes.Seconds) / float64(flushes)
	}
	line("disk: %.0f flushes/s of %s and %.2f ms; journal %s, cache %s", float64(flushes)/took, size(each), took1,
		size(float64(now.Journal.ReadyOffset-now.Journal.FirstOffset)), size(float64(now.Journal.CacheBytes)))
	return strings.Join(lines, "\n") + "\n"
}

// groupsLine names the consumer groups that are most behind, as many as fit.
func groupsLine(now *watched) string {
	if now.Groups == 0 {
		return ""
	}
	parts := []string{fmt.Sprintf("groups: %d", now.Groups)}
	for i, g := range now.Behind {
		if g.Lag == 0 || i == 3 {
			break
		}
		parts = append(parts, fmt.Sprintf("%.20q is %s behind (%d members)", g.Group, humanize.Comma(g.Lag), g.Members))
	}
	return fitting(parts)
}

// troubleLine says what was not done for clients: requests that were refused or late, fetches that wait for memory, and the policies that made most clients wait.
func troubleLine(before, now *watched, took float64) string {
	var parts []string
	count := func(what string, before, now map[string]int64) {
		n := int64(0)
		for level := range now {
			n += max(now[level]-before[level], 0)
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s: %s requests/s", what, humanize.CommafWithDigits(float64(n)/took, 1)))
		}
	}
	count("refused", before.Refusals, now.Refusals)
	count("past their deadline", before.Timeouts, now.Timeouts)
	if m := now.FetchMemory; m.Waiting > 0 {
		parts = append(parts, fmt.Sprintf("%d fetches wait for memory, %s are held", m.Waiting, size(float64(m.Bytes))))
	}
	var policies []movedRow
	for name, c := range now.Policies {
		if n := c.Throttled - before.Policies[name].Throttled; n > 0 {
			policies = append(policies, movedRow{name: name, count: n})
		}
	}
	slices.SortFunc(policies, byCount)
	for _, p := range policies {
		parts = append(parts, fmt.Sprintf("policy %.20q throttles %s requests/s", p.name, humanize.CommafWithDigits(float64(p.count)/took, 1)))
	}
	return fitting(parts)
}

// fitting joins as many parts as go on a line.
func fitting(parts []string) string {
	s := ""
	for i, p := range parts {
		if i > 0 {
			p = "; " + p
		}
		if utf8.RuneCountInString(s)+utf8.RuneCountInString(p) > watchColumns {
			break
		}
		s += p
	}
	return s
}

func size(n float64) string { return humanize.IBytes(uint64(max(n, 0))) }

// movedRow is one histogram's growth between two looks.
type movedRow struct {
	name    string
	count   int64
	buckets []int64
}

// moved are the histograms that grew the most, at most n.
func moved(before, now map[string]pipeline.StatusLatency, n int) []movedRow {
	var rows []movedRow
	for name, h := range now {
		old := before[name]
		if old.Count > h.Count { // another histogram of that name
			old = pipeline.StatusLatency{}
		}
		r := movedRow{name: name, count: h.Count - old.Count, buckets: slices.Clone(h.Buckets)}
		for i := range min(len(old.Buckets), len(r.buckets)) {
			r.buckets[i] -= old.Buckets[i]
		}
		if r.count > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, byCount)
	return rows[:min(len(rows), n)]
}

// byCount sorts the larger first.
func byCount(a, b movedRow) int {
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.name, b.name))
}

func perSecond(r movedRow, took float64) string {
	return humanize.Commaf(float64(int64(float64(r.count) / took)))
}

// quantile is read off the buckets, as if times were even within each.
func (r movedRow) quantile(q float64) string {
	rank := q * float64(r.count)
	for i, n := range r.buckets {
		if float64(n) < rank {
			rank -= float64(n)
			continue
		}
		low := time.Duration(0)
		if i > 0 {
			low = pipeline.LatencyBound(i - 1)
		}
		t := low + time.Duration(rank/float64(n)*float64(pipeline.LatencyBound(i)-low))
		return fmt.Sprintf("%.3f ms", t.Seconds()*1e3)
	}
	return "-"
}
