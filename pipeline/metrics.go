package pipeline

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/qos"
)

// Metrics registers everything that the pipeline counts.
func (p *Pipeline) Metrics(reg prometheus.Registerer) {
	mark := func(name string, w *Watermark) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tidemark_pipeline_watermark_offset_bytes", Help: "Where each watermark stands in the stream.", ConstLabels: prometheus.Labels{"watermark": name},
		}, func() float64 { return float64(w.Load()) }))
	}
	mark("written", &p.written)
	mark("flushed", &p.flushed)
	mark("replicated", &p.replicated)
	mark("committed", &p.committed)
	mark("indexed", &p.indexed)
	mark("applied", &p.applied)
	mark("marked", &p.marker.marked)
	count := func(name, help string, v *atomic.Int64, labels prometheus.Labels) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(v.Load()) }))
	}
	count("tidemark_pipeline_frames_total", "Frames written.", &p.stats.frames, nil)
	count("tidemark_pipeline_requests_total", "Requests serialized.", &p.stats.requests, nil)
	count("tidemark_pipeline_batches_total", "Journal records written: batches and commands.", &p.stats.batches, nil)
	count("tidemark_pipeline_records_total", "Client records written.", &p.stats.records, nil)
	count("tidemark_pipeline_flushes_total", "Synced writes of the journal.", &p.stats.flushes, nil)
	count("tidemark_pipeline_flush_bytes_total", "Bytes of synced writes of the journal.", &p.stats.flushBytes, nil)
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tidemark_pipeline_flush_seconds_total", Help: "Time spent in synced writes of the journal."},
		func() float64 { return float64(p.stats.flushNanos.Load()) / 1e9 }))
	for _, l := range qos.Levels() {
		labels := prometheus.Labels{"level": l.String()}
		count("tidemark_pipeline_answers_total", "Requests answered with success, by level.", &p.stats.answers[l], labels)
		count("tidemark_pipeline_timeouts_total", "Requests whose deadline passed, by level.", &p.stats.timeouts[l], labels)
		count("tidemark_pipeline_refusals_total", "Requests refused or failed as a whole, by level.", &p.stats.refusals[l], labels)
	}
	reg.MustRegister(stageTimes{&p.respond.times})
	gauge := func(name, help string, fn func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn))
	}
	gauge("tidemark_pipeline_admission_bytes", "Bytes of requests that wait for the write stage.", func() float64 { return float64(p.admit.bytes.Load()) })
	gauge("tidemark_pipeline_pending_requests", "Requests serialized and not yet answered.", func() float64 { return float64(p.respond.pending.Load()) })
	gauge("tidemark_pipeline_waiting_readers", "Partitions that fetches wait on.", func() float64 { return float64(p.readers.Load()) })
	gauge("tidemark_pipeline_log_start_offset_bytes", "First offset that is still on disk.", func() float64 { return float64(p.journal.First()) })
}

// stageTimes shows the histograms of where requests' time goes.
type stageTimes struct{ t *timer }

var (
	stageTimeDesc  = prometheus.NewDesc("tidemark_pipeline_stage_seconds", "Time of answered Produce requests in each stage, by level; of Fetch answers as level fetch.", []string{"level", "stage"}, nil)
	levelTimeDesc  = prometheus.NewDesc("tidemark_pipeline_request_seconds", "Time of answered Produce requests, from reading them to having the answer ready, by level.", []string{"level"}, nil)
	clientTimeDesc = prometheus.NewDesc("tidemark_client_request_seconds", "The same by client id: of at most 100 clients, and the rest as other.", []string{"client_id"}, nil)
)

func (s stageTimes) Describe(out chan<- *prometheus.Desc) {
	out <- stageTimeDesc
	out <- levelTimeDesc
	out <- clientTimeDesc
}

func (s stageTimes) Collect(out chan<- prometheus.Metric) {
	for _, level := range qos.Levels() {
		for _, stage := range Stages() {
			out <- s.t.hist[level][stage].metric(stageTimeDesc, level.String(), stage.Label())
		}
		out <- s.t.total[level].metric(levelTimeDesc, level.String())
	}
	for _, stage := range []Stage{Respond, SocketWrite} {
		out <- s.t.hist[LevelFetch][stage].metric(stageTimeDesc, levelName(LevelFetch), stage.Label())
	}
	s.t.clients.each(func(client string, l *latency) { out <- l.metric(clientTimeDesc, client) })
}

func (l *latency) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	var count uint64
	buckets := make(map[float64]uint64, latencyBuckets-1)
	for i := range l.buckets {
		count += uint64(l.buckets[i].Load())
		if i < latencyBuckets-1 {
			buckets[LatencyBound(i).Seconds()] = count
		}
	}
	return prometheus.MustNewConstHistogram(desc, count, float64(l.nanos.Load())/1e9, buckets, labels...)
}
