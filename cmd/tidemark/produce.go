package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/schollz/progressbar/v3"
)

// inFlightMax is how many batches of a producer a broker remembers; more in flight could be stored twice.
const inFlightMax = 5

// ProduceCmd is `tidemark produce`.
type ProduceCmd struct {
	ClientFlags
	Topic        string        `arg:"" help:"Topic to write to."`
	Input        string        `arg:"" optional:"" default:"-" name:"file" help:"File to read; - is standard input."`
	QoS          string        `name:"qos" help:"When a line counts as stored: one-way, receive, persistence, replication or all." default:"persistence"`
	Partition    *int32        `help:"Write to this partition only. Without it lines go by key, or to one partition after the other." placeholder:"P"`
	KeySeparator string        `help:"Cut each line into key and value at the first occurrence. Lines without it have no key." placeholder:"S"`
	BatchRecords int           `help:"Records a batch at most." default:"500"`
	Linger       time.Duration `help:"How long a batch waits to fill." default:"5ms"`
	InFlight     int           `help:"Requests without an answer a connection, 1 to 5." default:"5"`
	Compression  string        `help:"none, gzip, snappy, lz4 or zstd." default:"none"`
	Timeout      time.Duration `help:"How long a batch is tried, and how long the broker may take." default:"30s"`

	acksOverride *int16 // tests run against brokers that know no levels
}

// Help is kong's detailed help.
func (ProduceCmd) Help() string {
	return `Each line is one record; an empty line is an empty record. A line is cut at its newline only: a carriage return stays.
Lines of one partition keep their order and are stored once, also when the broker refuses some for a while.

Levels:

` + qosHelp() + `
Examples:

    tidemark produce orders lines.txt
    tail -f app.log | tidemark produce logs --qos receive --linger 50ms
    printf 'k1:v1\nk2:v2\n' | tidemark produce orders --key-separator : --qos all`
}

// validate checks what kong's types do not, and returns the level's acks.
func (c *ProduceCmd) validate() (acks int16, err error) {
	acks, ok := acksOf(c.QoS)
	switch {
	case !ok:
		return 0, usageErrorf("--qos: %q, must be one of %s", c.QoS, qosNames())
	case c.Partition != nil && *c.Partition < 0:
		return 0, usageErrorf("--partition: %d, must not be negative", *c.Partition)
	case c.BatchRecords < 1:
		return 0, usageErrorf("--batch-records: %d, must be at least 1", c.BatchRecords)
	case c.Linger < 0:
		return 0, usageErrorf("--linger: %s, must not be negative", c.Linger)
	case c.InFlight < 1 || c.InFlight > inFlightMax:
		return 0, usageErrorf("--in-flight: %d, must be 1 to %d, since a broker recognises only a producer's last %d batches", c.InFlight, inFlightMax, inFlightMax)
	case c.Timeout < time.Millisecond || c.Timeout > 24*time.Hour:
		return 0, usageErrorf("--timeout: %s, must be 1ms to 24h", c.Timeout)
	}
	switch c.Compression {
	case "none", "gzip", "snappy", "lz4", "zstd":
	default:
		return 0, usageErrorf("--compression: %q, must be one of none, gzip, snappy, lz4, zstd", c.Compression)
	}
	if c.acksOverride != nil {
		acks = *c.acksOverride
	}
	return acks, nil
}

// Run writes the lines.
func (c *ProduceCmd) Run(e *env) error {
	acks, err := c.validate()
	if err != nil {
		return err
	}
	input, size := e.stdin, int64(-1)
	if c.Input != "-" {
		f, err := os.Open(c.Input)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		input = f
	}
	p, err := newProducer(e.ctx, c, acks)
	if err != nil {
		if e.ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	clear := func() error { return nil }
	if e.stderrIsTerminal() {
		bar := newBytesBar(e, size)
		clear = bar.Clear
		p.onAck = func(b *batch) { bar.Add(b.payload + b.records) }
	}

	begin := time.Now()
	// The reader may sit in a Read that nothing can interrupt: on a failure it is left behind, and ends with the process.
	chunks := make(chan lineChunk)
	go readLines(input, p.batcher.bytesMax, func(chunk lineChunk) bool {
		select {
		case chunks <- chunk:
			return true
		case <-p.done:
			return false
		}
	})
	err = p.run(e.ctx, chunks)
	_ = clear()
	c.summarize(e.stderr, p, time.Since(begin))
	if p.stopping && err == nil {
		return errInterrupted
	}
	return err
}

// summarize prints the one line of figures.
func (c *ProduceCmd) summarize(w io.Writer, p *producer, took time.Duration) {
	verb, latency := "acknowledged at "+c.QoS, latencyText(p.latency)
	if p.oneWay() {
		verb, latency = "sent one-way, never acknowledged", "p50 n/a, p99 n/a, p99.9 n/a"
	}
	var rest strings.Builder
	if left := p.linesRead - p.acked - p.uncertain; left > 0 {
		fmt.Fprintf(&rest, "; %d lines read and not delivered", left)
	}
	if p.uncertain > 0 {
		fmt.Fprintf(&rest, "; %d possibly stored", p.uncertain)
	}
	secs := max(took.Seconds(), 1e-9)
	fmt.Fprintf(w, "%d records, %d bytes in %.3f s (%.0f records/s, %.2f MB/s), %s: %s%s\n",
		p.acked, p.ackedSize, took.Seconds(), float64(p.acked)/secs, float64(p.ackedSize)/secs/1e6, verb, latency, rest.String())
}

// latencyText is "p50 1.2 ms, p99 …, p99.9 …".
func latencyText(h *hdrhistogram.Histogram) string {
	if h.TotalCount() == 0 {
		return "p50 n/a, p99 n/a, p99.9 n/a"
	}
	ms := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return fmt.Sprintf("p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms", ms(50), ms(99), ms(99.9))
}

// newBytesBar shows how much was acknowledged; size is -1 when nobody knows how much there is.
func newBytesBar(e *env, size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(e.stderr),
		progressbar.OptionSetDescription("acknowledged"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(),
	)
}
