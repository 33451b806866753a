package kafka

import (
	"context"
	"sync"
	"time"
)

// fetchMemory is what all Fetch answers that are being made or sent may hold.
//
// One answer gets a sixteenth of what is free at most, or one batch if that is more. So clients that take nothing, and hold their answers' memory until they are closed, leave something for those that do: the k-th of them leaves (15/16)^k of
// it, until shares are smaller than batches. This is the dynamic threshold of shared-memory switches (Choudhury and Hahne, 1998) with α = 1/15.
type fetchMemory struct {
	total int64

	mu      sync.Mutex
	free    int64          // less than nothing when a batch was larger than all or came between counting and reading, or since buffers are up to a quarter larger than what is read; guarded by mu
	waiting []*fetchWanted // that a share is not enough for, in the order in which they came; guarded by mu
}

// fetchWanted is an answer that waits for memory.
type fetchWanted struct {
	least, want, got int64
	granted          chan struct{} // closed when got is set
}

// fetchShares is how many times more than one answer gets must be free.
const fetchShares = 16

// fetchPatience is how long an answer waits for memory before it goes out without batches: shorter than any client's patience.
const fetchPatience = 10 * time.Second

// FetchMemory is a picture of the memory of Fetch answers.
type FetchMemory struct {
	Bytes   int64 `json:"bytes"` // that answers hold
	Limit   int64 `json:"limit_bytes"`
	Waiting int   `json:"waiting"` // answers
}

func newFetchMemory(total int64) *fetchMemory { return &fetchMemory{total: total, free: total} }

// take gets memory for an answer: of want bytes, or fewer but at least one batch of least bytes. It waits until there is some; false: there was none for too long, or ctx has ended.
func (m *fetchMemory) take(ctx context.Context, least, want int64) (got int64, ok bool) {
	if want <= 0 {
		return 0, true
	}
	w := &fetchWanted{least: least, want: want}
	m.mu.Lock()
	if (len(m.waiting) == 0 || m.modest(w)) && m.grant(w) {
		m.mu.Unlock()
		return w.got, true
	}
	w.granted = make(chan struct{})
	m.waiting = append(m.waiting, w)
	m.mu.Unlock()
	timer := time.NewTimer(fetchPatience)
	defer timer.Stop()
	select {
	case <-w.granted:
		return w.got, true
	case <-timer.C:
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.waiting {
		if m.waiting[i] == w {
			m.waiting = append(m.waiting[:i], m.waiting[i+1:]...)
			m.wake() // the next one may fit
			return 0, false
		}
	}
	return w.got, true // granted meanwhile
}

// modest says whether a share, or less, is enough for w. Then it passes those that wait: they need more than that, and may have to wait for long. mu is held.
func (m *fetchMemory) modest(w *fetchWanted) bool { return min(w.least, w.want) <= m.free/fetchShares }

// grant returns false if there is too little. mu is held.
func (m *fetchMemory) grant(w *fetchWanted) bool {
	got := min(w.want, max(w.least, m.free/fetchShares))
	if got > m.free && m.free < m.total {
		return false
	}
	w.got = got
	m.free -= got
	return true
}

// give returns memory; less than nothing: more is held than was taken.
func (m *fetchMemory) give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += n
	m.wake()
}

// wake serves who waits: the first ones, and those behind them that are modest. mu is held.
func (m *fetchMemory) wake() {
	left := m.waiting[:0]
	for _, w := range m.waiting {
		if (len(left) == 0 || m.modest(w)) && m.grant(w) {
			close(w.granted)
		} else {
			left = append(left, w)
		}
	}
	clear(m.waiting[len(left):])
	m.waiting = left
}

func (m *fetchMemory) status() FetchMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return FetchMemory{Bytes: m.total - m.free, Limit: m.total, Waiting: len(m.waiting)}
}

// FetchMemory looks at the memory of Fetch answers. Any goroutine.
func (b *Broker) FetchMemory() FetchMemory { return b.fetchMemory.status() }
