package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// benchReport is what a bench prints: results first, then every setting that they depend on. Latencies are null when nothing was answered.
type benchReport struct {
	RequestsPerS float64 `json:"requests_per_s"`
	RecordsPerS  float64 `json:"records_per_s"`
	MBPerS       float64 `json:"mb_per_s"` // 10^6 bytes of record values
	latencies
	Requests     int64            `json:"requests"`
	Errors       int64            `json:"errors"`
	ErrorsByCode map[string]int64 `json:"errors_by_code"`
	Unanswered   int              `json:"unanswered"`
	MeasuredS    float64          `json:"measured_s"`
	SentLate     *latencies       `json:"sent_late,omitempty"`  // from when a request was due until the bench itself sent it; it is part of the latencies
	EndToEnd     *latencies       `json:"end_to_end,omitempty"` // until a consumer had the record

	Bench           string   `json:"bench"`
	Bootstrap       []string `json:"bootstrap"`
	Topic           string   `json:"topic"`
	Connections     int      `json:"connections"`
	InFlight        int      `json:"in_flight"`
	RateAsked       float64  `json:"rate_asked,omitempty"` // requests a second; latencies are from when they were due
	Null            bool     `json:"null,omitempty"`       // the ceiling: nothing was stored
	RecordBytes     int      `json:"record_bytes"`
	RecordsPerBatch int      `json:"records_per_batch"`
	RequestBytes    int      `json:"request_bytes"` // the whole frame
	Partitions      int32    `json:"partitions"`
	QoS             string   `json:"qos"`
	Acks            int16    `json:"acks"`
	DurationS       float64  `json:"duration_s"`
	WarmupS         float64  `json:"warmup_s"`
	Note            string   `json:"note,omitempty"`
}

// latencies are percentiles, ms; null when nothing was measured.
type latencies struct {
	P50Ms  *float64 `json:"p50_ms"`
	P99Ms  *float64 `json:"p99_ms"`
	P999Ms *float64 `json:"p999_ms"`
	MaxMs  *float64 `json:"max_ms"`
	Count  int64    `json:"count"`

	histogram *hdrhistogram.Histogram // µs
}

func newLatencies(h *hdrhistogram.Histogram) latencies {
	l := latencies{histogram: h, Count: h.TotalCount()}
	if l.Count > 0 {
		ms := func(us int64) *float64 {
			v := float64(us) / 1e3
			return &v
		}
		l.P50Ms, l.P99Ms, l.P999Ms, l.MaxMs = ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.ValueAtQuantile(99.9)), ms(h.Max())
	}
	return l
}

func (l *latencies) writeRows(w io.Writer, prefix string) {
	ms := func(v *float64) string {
		if v == nil {
			return "n/a"
		}
		return fmt.Sprintf("%.3f ms", *v)
	}
	fmt.Fprintf(w, "%[1]sp50\t%[2]s\n%[1]sp99\t%[3]s\n%[1]sp99.9\t%[4]s\n%[1]smax\t%[5]s\n", prefix, ms(l.P50Ms), ms(l.P99Ms), ms(l.P999Ms), ms(l.MaxMs))
}

const oneWayNote = "one-way: sent until TCP pushed back, never answered; a request counts when the kernel has it"

// newBenchReport adds the connections up. The load has ended.
func newBenchReport(name string, c *BenchLoad, acks int16, l *load) *benchReport {
	r := &benchReport{
		ErrorsByCode: make(map[string]int64),
		MeasuredS:    float64(l.end.Load()-l.from.Load()) / 1e9,
		Bench:        name, Bootstrap: c.Bootstrap, Topic: c.Topic,
		Connections: c.Connections, InFlight: c.inFlight, RateAsked: c.rate, Null: c.Null,
		RecordBytes: c.RecordBytes, RecordsPerBatch: c.RecordsPerBatch, RequestBytes: l.conns[0].frame,
		Partitions: c.Partitions, QoS: c.level(), Acks: acks,
		DurationS: c.Duration.Seconds(), WarmupS: c.Warmup.Seconds(),
	}
	var latency *hdrhistogram.Histogram
	for _, lc := range l.conns {
		if latency == nil {
			latency = lc.latency
		} else {
			latency.Merge(lc.latency)
		}
		r.Requests += lc.requests
		for code, n := range lc.errors {
			r.Errors += n
			r.ErrorsByCode[codeName(code)] += n
		}
	}
	if r.MeasuredS > 0 {
		r.RequestsPerS = float64(r.Requests) / r.MeasuredS
	}
	r.RecordsPerS = r.RequestsPerS * float64(c.RecordsPerBatch)
	r.MBPerS = r.RecordsPerS * float64(c.RecordBytes) / 1e6
	if l.oneWay {
		r.Note = oneWayNote
	} else {
		r.Unanswered = l.unanswered()
	}
	if l.rate > 0 { // what was due and is not answered is as late as it is by now
		now := l.now()
		for _, lc := range l.conns {
			lc.recordLate(latency, now)
		}
	}
	r.latencies = newLatencies(latency)
	if l.late != nil {
		late := newLatencies(l.late)
		r.SentLate = &late
	}
	if back := l.consumed(); back != nil {
		e2e := newLatencies(back)
		r.EndToEnd = &e2e
	}
	return r
}

func (r *benchReport) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return r.writeTable(w)
}

func (r *benchReport) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if r.Null {
		fmt.Fprintf(t, "null\tdecoded and answered at once, nothing stored: the ceiling\n")
	}
	fmt.Fprintf(t, "load\t%d connections × %d in flight, %d × %d bytes a request, %d partitions\n",
		r.Connections, r.InFlight, r.RecordsPerBatch, r.RecordBytes, r.Partitions)
	fmt.Fprintf(t, "level\t%s (acks %d)\n", r.QoS, r.Acks)
	fmt.Fprintf(t, "measured\t%.1f s after %.1f s of warm-up, %d requests\n", r.MeasuredS, r.WarmupS, r.Requests)
	fmt.Fprintf(t, "requests\t%.0f /s\nrecords\t%.0f /s\nvalues\t%.2f MB/s\n", r.RequestsPerS, r.RecordsPerS, r.MBPerS)
	if r.RateAsked > 0 {
		fmt.Fprintf(t, "asked\t%g requests/s; latencies are from when a request was due\n", r.RateAsked)
	}
	r.latencies.writeRows(t, "")
	if r.SentLate != nil {
		fmt.Fprintf(t, "sent late\tby the bench itself, part of the latencies:\n")
		r.SentLate.writeRows(t, "  ")
	}
	if r.EndToEnd != nil {
		fmt.Fprintf(t, "consumed\t%d records, until the consumer had them:\n", r.EndToEnd.Count)
		r.EndToEnd.writeRows(t, "  ")
	}
	fmt.Fprintf(t, "errors\t%d", r.Errors)
	var codes []string
	for _, name := range slices.Sorted(maps.Keys(r.ErrorsByCode)) {
		codes = append(codes, fmt.Sprintf("%s %d", name, r.ErrorsByCode[name]))
	}
	if len(codes) > 0 {
		fmt.Fprintf(t, ": %s", strings.Join(codes, ", "))
	}
	fmt.Fprintln(t)
	if r.Unanswered > 0 {
		fmt.Fprintf(t, "unanswered\t%d after the end\n", r.Unanswered)
	}
	if r.Note != "" {
		fmt.Fprintf(t, "note\t%s\n", r.Note)
	}
	return t.Flush()
}
