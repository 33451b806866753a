package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/google/pprof/profile"

	"tidemark/server"
)

// ProfileCmd fetches the pipeline profile of a running node.
type ProfileCmd struct {
	AdminFlags `embed:""`
	Seconds    float64 `default:"10" help:"How long requests are counted, in seconds; up to 600."`
	Client     string  `help:"Only requests of this client id." placeholder:"ID"`
	Out        string  `short:"o" help:"Also write the profile to FILE, for go tool pprof." placeholder:"FILE" type:"path"`
}

// Help is shown under the flags.
func (c *ProfileCmd) Help() string {
	return `Says where the time of acknowledgements goes, by level and stage, while clients are at work:

    decode        from reading the request to queueing it
    admission     queued for the write stage
    serialize     in a turn of the write stage
    cache wait    written, and the flush that takes it has not begun
    flush         in the flush that takes it: the disk
    replicate     flushed here and not yet by a majority
    respond       durable, and laid out for its connection
    socket write  until the socket has the answer

The file is in pprof's own format: go tool pprof -http=:0 FILE draws it, -tagfocus client_id=ID shows one client.`
}

// Run fetches, writes and prints.
func (c *ProfileCmd) Run(e *env) error {
	if !(c.Seconds > 0 && c.Seconds <= server.ProfileSecondsMax) {
		return usageErrorf("--seconds %g: it is above 0 and at most %d", c.Seconds, server.ProfileSecondsMax)
	}
	query := url.Values{"seconds": {strconv.FormatFloat(c.Seconds, 'f', -1, 64)}, "table": {"1"}}
	if c.Client != "" {
		query.Set("client", c.Client)
	}
	if e.stderrIsTerminal() {
		fmt.Fprintf(e.stderr, "counting requests for %g s\n", c.Seconds)
	}
	raw, err := c.get(e, "/debug/pprof/pipeline?"+query.Encode(), time.Duration(c.Seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	p, err := profile.ParseData(raw)
	if err != nil {
		return fmt.Errorf("admin listener %s: %w", c.Admin, err)
	}
	rows, err := server.ProfileRows(p)
	if err != nil {
		return err
	}
	if c.Out != "" {
		if err := writeProfile(c.Out, p); err != nil {
			return err
		}
	}
	if len(rows) == 0 {
		of := ""
		if c.Client != "" {
			of = fmt.Sprintf(" of client %q", c.Client)
		}
		fmt.Fprintf(e.stdout, "no request%s was answered in %g s\n", of, c.Seconds)
		return nil
	}
	return printProfile(e.stdout, rows)
}

// writeProfile writes a profile without its rows, which pprof would print above everything else.
func writeProfile(name string, p *profile.Profile) error {
	p.Comments = nil
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// printProfile prints a table and, for each level, the stage that takes the most time.
func printProfile(w io.Writer, rows []server.ProfileRow) error {
	total := map[string]time.Duration{}
	for _, r := range rows {
		total[r.Level] += r.Time
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "LEVEL\tSTAGE\tREQUESTS\tP50\tP99\tSHARE")
	var levels []string
	for _, r := range rows {
		if !slices.Contains(levels, r.Level) {
			levels = append(levels, r.Level)
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\t%.1f %%\n", r.Level, r.Stage, r.Requests, millis(r.P50), millis(r.P99), 100*float64(r.Time)/float64(max(total[r.Level], 1)))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, level := range levels {
		most := slices.MaxFunc(rows, func(a, b server.ProfileRow) int {
			return cmp.Compare(share(a, level), share(b, level))
		})
		fmt.Fprintf(w, "%s: most of the time is %s (%.0f %%): %s\n", level, most.Stage, 100*float64(most.Time)/float64(max(total[level], 1)), stageHint(most.Stage))
	}
	return nil
}

func share(r server.ProfileRow, level string) time.Duration {
	if r.Level != level {
		return -1
	}
	return r.Time
}

func millis(d time.Duration) string { return strconv.FormatFloat(d.Seconds()*1e3, 'f', 3, 64) + " ms" }

// stageHint says what it means that a stage takes most of the time.
func stageHint(stage string) string {
	for _, h := range []struct{ stage, hint string }{
		{"decode", "the event loops are busy, or a client sends large requests"},
		{"admission", "requests wait for the write stage: it is held up by a disk that does not keep up, or by the load"},
		{"serialize", "the write stage copies and sums large frames"},
		{"cache wait", "the flush before takes long: the disk, or large batches of another client"},
		{"flush", "the disk's synced write"},
		{"replicate", "a majority of the nodes"},
		{"respond", "the processors: answers wait to be laid out"},
		{"socket write", "the connection's event loop is busy, or the client does not read"},
	} {
		if h.stage == stage {
			return h.hint
		}
	}
	return "a stage that this version does not know"
}
