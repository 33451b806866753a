package server

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/kafka"
)

// calls are a connection's requests other than Produce. They are answered one after the other by a goroutine that lives while there are any, as Kafka does it: their responses leave in that order anyway. It sends large ones itself. It also keeps
// a fetch from holding the memory of its answer while one before it waits for that memory.
type calls struct {
	waiting atomic.Int32 // and running

	mu      sync.Mutex
	queue   []call // guarded by mu
	running bool   // guarded by mu
}

// call is one request; chunk holds its bytes.
type call struct {
	header kafka.Header
	who    *kafka.Client
	chunk  *chunk
	slot   uint64
	bytes  int
	until  time.Duration // that the client has to wait after it, for the requests that it made, on the pipeline's clock; 0: it has not to
	set    *qos.Policies // that say so
}

// maxCalls bounds the requests of one connection that wait for their turn. Clients have a handful in flight.
const maxCalls = 16

// call queues a request. What was read before it is submitted first, so that a client sees its own writes in order. IO goroutine.
func (s *Session) call(h kafka.Header, c *chunk, n int, wait time.Duration) {
	s.submitAll()
	one := call{header: h, who: s.who.Load(), chunk: c, slot: s.slot, bytes: n, set: s.limits.set}
	if wait > 0 {
		one.until = s.now + wait
	}
	s.slot++
	s.spend(charge(n))
	if s.calls.waiting.Add(1) == 1 && wait == 0 && h.Key == int16(kmsg.Heartbeat) { // there are many of them, and they wait for nothing: no other goroutine is woken for it
		if resp, ok := s.srv.broker.TryHeartbeat(h); ok {
			one.chunk.Release()
			s.calls.waiting.Add(-1)
			s.out.complete(one.slot, one.bytes, answered{Layout: kafka.Layout{Small: kafka.AppendResponse(nil, h.CorrelationID, resp)}}) // endData sends it
			return
		}
	}
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.queue = append(s.calls.queue, one)
	if !s.calls.running {
		s.calls.running = s.srv.goCall(s.serveCalls)
	}
}

func (c *calls) take() (call, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.queue, c.running = nil, false
		return call{}, false
	}
	one := c.queue[0]
	c.queue[0] = call{}
	c.queue = c.queue[1:]
	return one, true
}

func (s *Session) serveCalls() {
	for {
		one, ok := s.calls.take()
		if !ok {
			return
		}
		s.awaitReader()
		s.serve(one)
	}
}

// awaitReader returns once the client has taken enough of what was sent to it, so that answers that nobody reads do not pile up.
func (s *Session) awaitReader() {
	for s.unsent.Load() > int64(s.srv.opts.ConnectionUnsentBytes) {
		select {
		case <-s.taken:
		case <-s.ctx.Done():
			return
		}
	}
}

// observeFetch adds up the time in which a Fetch answer was made that brings something, and returns whose it is; nil for all others.
func (s *Session) observeFetch(who *kafka.Client, resp kmsg.Response) *pipeline.Labels {
	f, ok := resp.(*kafka.FetchAnswer)
	if !ok || f.Topic == "" {
		return nil
	}
	labels := &pipeline.Labels{ClientID: who.ID, Topic: f.Topic}
	s.srv.pipeline.Observe(pipeline.LevelFetch, labels, pipeline.Respond, 1, f.Took)
	return labels
}

func (s *Session) serve(c call) {
	if s.dead.Load() || s.ctx.Err() != nil && !s.srv.draining.Load() {
		c.chunk.Release()
		s.calls.waiting.Add(-1)
		return
	}
	resp, release, err := s.srv.broker.Handle(s.ctx, c.who, c.header)
	labels := s.observeFetch(c.who, resp)
	c.chunk.Release()
	s.calls.waiting.Add(-1) // before complete, whose Wake looks at it
	if err != nil {
		s.fail(fmt.Errorf("%w (API key %d, version %d)", err, c.header.Key, c.header.Version))
		return
	}
	wait := time.Duration(0)
	if c.set == s.srv.broker.Policies() { // else what is owed is paid at another rate
		wait = max(c.until-s.srv.pipeline.Now(), 0)
	}
	s.throttle(kafka.SetThrottle(resp, wait))
	a := layOut(c.header.CorrelationID, resp, release)
	a.labels = labels
	if n := a.Bytes(); n > s.srv.opts.ConnectionUnsentBytes {
		s.unsent.Store(int64(n)) // until it was sent: the next call waits for that
	}
	if s.out.complete(c.slot, c.bytes, a) {
		s.deliver()
	}
}

// layOut makes a response's bytes. What a Fetch brings is large, so it leaves from where it was read to, and that memory goes back with release.
func layOut(correlationID int32, resp kmsg.Response, release func()) answered {
	f, ok := resp.(*kafka.FetchAnswer)
	if !ok {
		return answered{Layout: kafka.Layout{Small: kafka.AppendResponse(nil, correlationID, resp)}, release: release}
	}
	l, memory := f.LayOut(correlationID)
	return answered{Layout: l, release: sync.OnceFunc(func() { // given back twice, the memory would have two owners
		release()
		f.Release()
		memory.Put()
	})}
}
