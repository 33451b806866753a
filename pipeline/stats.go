package pipeline

import (
	"errors"
	"sync/atomic"
	"time"

	"tidemark/qos"
)

// stats counts what the stages do. Each counter has one writing stage; metrics.go shows them.
type stats struct {
	frames, requests, records, batches atomic.Int64 // write
	flushes, flushBytes, flushNanos    atomic.Int64 // flush
	answers, timeouts, refusals        [qos.All + 1]atomic.Int64
}

func (s *stats) observeTurn(reqs []*Request) {
	var batches, records int64
	for _, r := range reqs {
		for i := range r.Records {
			if r.Records[i].at > 0 {
				batches++
				records += int64(r.Records[i].Info.Count)
			}
		}
	}
	s.requests.Add(int64(len(reqs)))
	s.batches.Add(batches)
	s.records.Add(records)
	if batches > 0 {
		s.frames.Add(1)
	}
}

func (s *stats) flushed(bytes int, took time.Duration) {
	s.flushes.Add(1)
	s.flushBytes.Add(int64(bytes))
	s.flushNanos.Add(int64(took))
}

// turn counts answers by level within one turn of the respond stage, so that the shared counters are touched once.
type turn [qos.All + 1]int64

func (s *stats) endTurn(t *turn) {
	for level, n := range t {
		if n > 0 {
			s.answers[level].Add(n)
			t[level] = 0
		}
	}
}

func (s *stats) answered(t *turn, r *Request) {
	switch {
	case r.Err == nil:
		t[r.Level]++
	case errors.Is(r.Err, ErrTimedOut) || errors.Is(r.Err, ErrExpired):
		s.timeouts[r.Level].Add(1)
	default:
		s.refusals[r.Level].Add(1)
	}
}
