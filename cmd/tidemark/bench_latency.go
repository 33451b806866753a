package main

import (
	"strconv"
	"strings"
)

// BenchLatencyCmd is `tidemark bench latency`.
type BenchLatencyCmd struct {
	BenchLoad
	InFlight int    `help:"Requests without an answer on each connection, at most; while all have as many, what is due waits, and its waiting counts." default:"256"`
	Rate     string `help:"Requests a second of all connections together: 20000/s." default:"1000/s" placeholder:"N/s"`
	EndToEnd bool   `help:"Also read the records back, and measure until a consumer has them."`
}

// Help is kong's detailed help.
func (BenchLatencyCmd) Help() string {
	return `An open loop: requests are due at a fixed rate, one after the other over the connections, whether the broker keeps up or not, and a
request's latency is counted from when it was due. So a broker that stands still for a second has a second's requests that were late, not
one slow request in each connection (which is known as coordinated omission). Requests that are due in the measured time count, whenever
they are answered.

With --end-to-end each record carries the time when it was due, and one consumer for each broker reads from the end of the topic with
fetches that wait; its figure is the time from a request's due time until the consumer has the record.

Levels:

` + qosHelp() + `
Examples:

    tidemark bench latency --rate 20000/s
    tidemark bench latency --rate 1000/s --end-to-end --plot latency.svg
    tidemark bench latency --rate 5000/s --qos receive --json`
}

// Run measures and prints.
func (c *BenchLatencyCmd) Run(e *env) (err error) {
	c.inFlight, c.readBack = c.InFlight, c.EndToEnd
	if c.rate, err = parseRate("--rate", c.Rate); err != nil {
		return err
	}
	switch {
	case c.EndToEnd && c.RecordsPerBatch != 1:
		return usageErrorf("--records-per-batch: %d, must be 1 with --end-to-end", c.RecordsPerBatch)
	case c.EndToEnd && c.RecordBytes < stampBytes:
		return usageErrorf("--record-bytes: %d, must be at least %d with --end-to-end", c.RecordBytes, stampBytes)
	case c.EndToEnd && c.Null:
		return usageErrorf("--null stores nothing that --end-to-end could read")
	}
	return c.measure(e, "latency")
}

// benchRateMax is more than a paced sender reaches.
const benchRateMax = 10_000_000

// parseRate reads a rate like 20000/s; the unit may be left out.
func parseRate(flag, s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(s, "/s")), 64)
	if err != nil || !(v > 0 && v <= benchRateMax) {
		return 0, usageErrorf("%s: %q, must be requests a second like 20000/s, more than 0 and at most %d", flag, s, benchRateMax)
	}
	return v, nil
}
