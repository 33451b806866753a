package pipeline

import (
	"fmt"
	"sync/atomic"

	"tidemark/journal"
)

// Watermark is an exclusive end in the stream that only moves forward. It has one writer, named where it is declared; anyone reads.
type Watermark struct{ v atomic.Int64 }

// Load is where the watermark stands.
func (w *Watermark) Load() journal.Offset { return journal.Offset(w.v.Load()) }

// Advance moves the watermark. Moving back is a bug and panics: somebody may already have been told.
func (w *Watermark) Advance(to journal.Offset) {
	if old := w.v.Load(); int64(to) < old {
		panic(fmt.Sprintf("pipeline: watermark would go back from %d to %d", old, to))
	}
	w.v.Store(int64(to))
}

// signal wakes one goroutine. Signals that come before it looks are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
