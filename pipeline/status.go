package pipeline

import (
	"sync/atomic"
	"time"

	"tidemark/journal"
	"tidemark/qos"
)

// Status is a picture of the stages for an operator. Its parts are read one after the other, so they may be a moment apart.
type Status struct {
	UptimeS    float64          `json:"uptime_s"`
	Failed     string           `json:"failed,omitempty"` // why nothing is acknowledged any more
	Watermarks StatusWatermarks `json:"watermarks"`
	LagBytes   map[string]int64 `json:"lag_bytes"` // of each stage, behind the watermark that it follows
	Admission  StatusAdmission  `json:"admission"`
	Journal    StatusJournal    `json:"journal"`
	Answers    map[string]int64 `json:"answers_total"`  // by level, since the start
	Refusals   map[string]int64 `json:"refusals_total"` // likewise: refused or failed as a whole
	Timeouts   map[string]int64 `json:"timeouts_total"` // likewise: their deadline passed
	Pending    int64            `json:"pending_requests"`
	Readers    int32            `json:"waiting_readers"`
	Flushes    StatusFlushes    `json:"flushes_total"`
	Epoch      int32            `json:"leader_epoch"`
	Topics     int              `json:"topics"`
	Times      StatusTimes      `json:"times"`
}

// StatusWatermarks are offsets in the stream, bytes.
type StatusWatermarks struct {
	Written    journal.Offset `json:"written"`
	Replicated journal.Offset `json:"replicated"`
	Flushed    journal.Offset `json:"flushed"`
	Committed  journal.Offset `json:"committed"`
	Indexed    journal.Offset `json:"indexed"`
	Applied    journal.Offset `json:"applied"`
	Marked     journal.Offset `json:"marked"`
}

// StatusAdmission is what waits for the write stage.
type StatusAdmission struct {
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`
	Clients  int   `json:"clients"`
}

// StatusJournal is the journal on disk and in memory.
type StatusJournal struct {
	FirstOffset  journal.Offset `json:"first_offset"`
	ReadyOffset  journal.Offset `json:"ready_offset"` // frames can go up to here
	SegmentBytes int64          `json:"segment_bytes"`
	CacheBytes   int64          `json:"cache_bytes"`
}

// StatusFlushes are synced writes since the start.
type StatusFlushes struct {
	Count   int64   `json:"count"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// Status looks at all stages. Any goroutine.
func (p *Pipeline) Status() Status {
	w := StatusWatermarks{ // the followers first, so that no lag is negative
		Marked: p.marker.marked.Load(), Applied: p.applied.Load(), Indexed: p.indexed.Load(), Committed: p.committed.Load(),
		Flushed: p.flushed.Load(), Replicated: p.replicated.Load(), Written: p.written.Load(),
	}
	s := Status{
		UptimeS:    p.Now().Round(time.Millisecond).Seconds(),
		Watermarks: w,
		LagBytes: map[string]int64{
			"flushed": int64(w.Written - w.Flushed), "replicated": int64(w.Written - w.Replicated), "committed": int64(w.Written - w.Committed),
			"indexed": int64(w.Committed - w.Indexed), "applied": int64(w.Committed - w.Applied), "marked": int64(w.Flushed - w.Marked),
		},
		Admission: StatusAdmission{Requests: p.admit.waiting.Load(), Bytes: p.admit.bytes.Load(), Clients: p.admit.clientCount()},
		Journal:   StatusJournal{FirstOffset: p.journal.First(), ReadyOffset: p.journal.ReadyTo(), SegmentBytes: p.journal.SegmentBytes(), CacheBytes: p.opts.CacheBytes},
		Answers:   byLevel(&p.stats.answers),
		Refusals:  byLevel(&p.stats.refusals),
		Timeouts:  byLevel(&p.stats.timeouts),
		Pending:   p.respond.pending.Load(),
		Readers:   p.readers.Load(),
		Flushes:   StatusFlushes{Count: p.stats.flushes.Load(), Bytes: p.stats.flushBytes.Load(), Seconds: float64(p.stats.flushNanos.Load()) / 1e9},
		Epoch:     p.LeaderEpoch(),
		Topics:    len(p.View().Topics),
		Times:     p.respond.times.status(),
	}
	if err := p.Err(); err != nil {
		s.Failed = err.Error()
	}
	return s
}

func byLevel(counts *[qos.All + 1]atomic.Int64) map[string]int64 {
	m := make(map[string]int64, len(counts))
	for level := range counts {
		m[qos.Level(level).String()] = counts[level].Load()
	}
	return m
}
