package pipeline

import (
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/qos"
)

// latency is a histogram of powers of two. One goroutine adds, or several; anyone reads.
type latency struct {
	buckets [latencyBuckets]atomic.Int64 // [i]: below latencyLeast<<i, and not in the one before; the last has the rest
	nanos   atomic.Int64
}

const (
	latencyLeast   = 8 * time.Microsecond
	latencyBuckets = 23 // up to 33 s
)

func (l *latency) add(took time.Duration, n int64) {
	took = max(took, 0)
	l.buckets[min(bits.Len64(uint64(took/latencyLeast)), latencyBuckets-1)].Add(n)
	l.nanos.Add(int64(took) * n)
}

// StatusLatency is a histogram of the time from reading requests to having their answers ready, since the start. Buckets has as many as are needed: the first is below 8 µs, each further one below twice the bound of the one before.
type StatusLatency struct {
	Count   int64   `json:"count"`
	Seconds float64 `json:"seconds"`
	Buckets []int64 `json:"buckets"`
}

// LatencyBound is the upper bound of a bucket of StatusLatency.
func LatencyBound(bucket int) time.Duration { return latencyLeast << bucket }

func (l *latency) status() StatusLatency {
	s := StatusLatency{Seconds: float64(l.nanos.Load()) / 1e9}
	for i := range l.buckets {
		n := l.buckets[i].Load()
		s.Count += n
		s.Buckets = append(s.Buckets, n)
	}
	for n := len(s.Buckets); n > 0 && s.Buckets[n-1] == 0; n-- {
		s.Buckets = s.Buckets[:n-1]
	}
	return s
}

// clientLatencies are the histograms of clients: of maxClientLatencies at a time, and one of the rest. One that was silent for clientSilence makes room for another. The respond stage adds; anyone reads.
type clientLatencies struct {
	rest clientLatency

	mu sync.Mutex
	m  map[string]*clientLatency // guarded by mu
}

type clientLatency struct {
	latency
	last atomic.Int64 // when a request was answered last, on the pipeline's clock
	gone bool         // it made room. Respond stage only
}

const (
	maxClientLatencies = 100
	clientSilence      = 10 * time.Minute
	// ClientsRest is what the clients are called that have no histogram of their own.
	ClientsRest = "other"
)

// add takes n requests with these labels that were answered at now.
func (c *clientLatencies) add(labels *Labels, took, now time.Duration, n int64) {
	if labels == nil {
		return
	}
	l := labels.latency
	if l == nil || l.gone || l == &c.rest && now > labels.lookedUp+clientSilence {
		l = c.of(labels.ClientID, now)
		labels.latency, labels.lookedUp = l, now
	}
	l.add(took, n)
	l.last.Store(int64(now))
}

func (c *clientLatencies) of(client string, now time.Duration) *clientLatency {
	client = strings.ToValidUTF8(client, "?") // it becomes a metric's label
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.m[client]; l != nil {
		return l
	}
	if client == ClientsRest {
		return &c.rest
	}
	if len(c.m) >= maxClientLatencies {
		for name, l := range c.m {
			if now-time.Duration(l.last.Load()) > clientSilence {
				l.gone = true
				delete(c.m, name)
			}
		}
		if len(c.m) >= maxClientLatencies {
			return &c.rest
		}
	}
	if c.m == nil {
		c.m = make(map[string]*clientLatency)
	}
	l := new(clientLatency)
	c.m[client] = l
	return l
}

// each calls fn for every histogram.
func (c *clientLatencies) each(fn func(client string, l *latency)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.m {
		fn(name, &l.latency)
	}
	fn(ClientsRest, &c.rest.latency)
}

// StatusTimes are the histograms of all levels and clients that were answered since the start.
type StatusTimes struct {
	Levels  map[string]StatusLatency `json:"levels"`
	Clients map[string]StatusLatency `json:"clients"` // of at most 100, and "other"
}

func (t *timer) status() StatusTimes {
	s := StatusTimes{Levels: make(map[string]StatusLatency), Clients: make(map[string]StatusLatency)}
	for level := range t.total {
		if l := t.total[level].status(); l.Count > 0 {
			s.Levels[qos.Level(level).String()] = l
		}
	}
	t.clients.each(func(client string, l *latency) {
		if l := l.status(); l.Count > 0 {
			s.Clients[client] = l
		}
	})
	return s
}
