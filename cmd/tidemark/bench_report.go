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
	RequestsPerS float64          `json:"requests_per_s"`
	RecordsPerS  float64          `json:"records_per_s"`
	MBPerS       float64          `json:"mb_per_s"` // 10^6 bytes of record values
	P50Ms        *float64         `json:"p50_ms"`
	P99Ms        *float64         `json:"p99_ms"`
	P999Ms       *float64         `json:"p999_ms"`
	MaxMs        *float64         `json:"max_ms"`
	Requests     int64            `json:"requests"`
	Errors       int64            `json:"errors"`
	ErrorsByCode map[string]int64 `json:"errors_by_code"`
	Unanswered   int              `json:"unanswered"`
	MeasuredS    float64          `json:"measured_s"`

	Bench           string   `json:"bench"`
	Bootstrap       []string `json:"bootstrap"`
	Topic           string   `json:"topic"`
	Connections     int      `json:"connections"`
	InFlight        int      `json:"in_flight"`
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

const oneWayNote = "one-way: sent until TCP pushed back, never answered; a request counts when the kernel has it"

// newBenchReport adds the connections up. The load has ended.
func newBenchReport(c *BenchProduceCmd, acks int16, l *load) *benchReport {
	r := &benchReport{
		ErrorsByCode: make(map[string]int64),
		MeasuredS:    float64(l.end.Load()-l.from.Load()) / 1e9,
		Bench:        "produce", Bootstrap: c.Bootstrap, Topic: c.Topic,
		Connections: c.Connections, InFlight: c.InFlight,
		RecordBytes: c.RecordBytes, RecordsPerBatch: c.RecordsPerBatch, RequestBytes: l.conns[0].frame,
		Partitions: c.Partitions, QoS: c.QoS, Acks: acks,
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
	if latency.TotalCount() > 0 {
		ms := func(us int64) *float64 {
			v := float64(us) / 1e3
			return &v
		}
		r.P50Ms, r.P99Ms, r.P999Ms = ms(latency.ValueAtQuantile(50)), ms(latency.ValueAtQuantile(99)), ms(latency.ValueAtQuantile(99.9))
		r.MaxMs = ms(latency.Max())
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
	ms := func(v *float64) string {
		if v == nil {
			return "n/a"
		}
		return fmt.Sprintf("%.3f ms", *v)
	}
	fmt.Fprintf(t, "load\t%d connections × %d in flight, %d × %d bytes a request, %d partitions\n",
		r.Connections, r.InFlight, r.RecordsPerBatch, r.RecordBytes, r.Partitions)
	fmt.Fprintf(t, "level\t%s (acks %d)\n", r.QoS, r.Acks)
	fmt.Fprintf(t, "measured\t%.1f s after %.1f s of warm-up, %d requests\n", r.MeasuredS, r.WarmupS, r.Requests)
	fmt.Fprintf(t, "requests\t%.0f /s\nrecords\t%.0f /s\nvalues\t%.2f MB/s\n", r.RequestsPerS, r.RecordsPerS, r.MBPerS)
	fmt.Fprintf(t, "p50\t%s\np99\t%s\np99.9\t%s\nmax\t%s\n", ms(r.P50Ms), ms(r.P99Ms), ms(r.P999Ms), ms(r.MaxMs))
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
