package server

import (
	"sync"
	"sync/atomic"
	"time"

	"tidemark/qos"
	"tidemark/server/kafka"
)

// limits are what policies allow the client of one connection: how fast it may ask, and how much it may have in flight. They are looked up again when the policies or the client id change. IO goroutine only, but for until and timer.
type limits struct {
	set   *qos.Policies  // that the rest comes from
	who   *kafka.Client  // whose they are
	says  *qos.Effective // of all topics; nil: there are no policies
	share *inFlightShare // of all the client's connections; nil: no limit
	until atomic.Int64   // the connection is not read before, on the pipeline's clock. Also set by the calls' goroutine
	timer atomic.Bool    // one that wakes the connection runs
}

// throttleLook is how often a connection that has to wait looks whether the policies have changed.
const throttleLook = 250 * time.Millisecond

// look takes the newest policies' limits, if they or the client id have changed.
func (s *Session) look() {
	l, set, who := &s.limits, s.srv.broker.Policies(), s.who.Load()
	if set == l.set && (set == nil || who == l.who) {
		return
	}
	l.set, l.who, l.says = set, who, nil
	l.until.Store(0) // what is owed is seen by owes, at the new rate
	s.labels = labels{}
	limit := qos.Bytes(0)
	if set != nil {
		l.says = set.For(who.Principal, who.ID, "")
		limit = l.says.InFlight
	}
	old := l.share
	l.share = s.srv.shares.take(who, int64(limit))
	if l.share != nil {
		l.share.used.Add(s.budget)
	}
	s.out.mu.Lock()
	s.out.shared = l.share != nil
	s.out.mu.Unlock()
	if old != nil {
		s.srv.shares.leave(old, s, s.budget)
	}
}

// weight is the client's at admission.
func (l *limits) weight() int {
	if l.says == nil {
		return 1
	}
	return int(l.says.Weight)
}

// throttle has the connection not read until wait has passed.
func (s *Session) throttle(wait time.Duration) {
	if wait <= 0 {
		return
	}
	until := int64(s.srv.pipeline.Now() + wait)
	for old := s.limits.until.Load(); old < until; old = s.limits.until.Load() {
		if s.limits.until.CompareAndSwap(old, until) {
			return
		}
	}
}

// throttled says whether the connection may not be read yet; if so a timer wakes it.
func (s *Session) throttled() bool {
	l := &s.limits
	until := time.Duration(l.until.Load())
	if until == 0 {
		return false
	}
	left := until - s.srv.pipeline.Now()
	if left <= 0 || l.set != s.srv.broker.Policies() {
		return false
	}
	if l.timer.CompareAndSwap(false, true) {
		time.AfterFunc(min(left, throttleLook), func() {
			l.timer.Store(false)
			s.conn.Wake()
		})
	}
	return true
}

// owes says whether a frame has to wait since its client has not paid for what it had before, on this connection or on another.
func (s *Session) owes(frame []byte) bool {
	if s.limits.says == nil {
		return false
	}
	var h kafka.Header
	if h.Parse(frame) != nil {
		return false // dispatch says so
	}
	s.named(&h)
	if s.look(); s.limits.says == nil {
		return false
	}
	wait := s.srv.broker.Owes(s.limits.set, s.who.Load(), h.Key, s.now)
	s.throttle(wait)
	return wait > 0
}

// spend and refund count the bytes of a request in flight.
func (s *Session) spend(n int64) {
	s.budget += n
	if s.limits.share != nil {
		s.limits.share.used.Add(n)
	}
}

func (s *Session) refund(n int64) {
	s.budget -= n
	if n > 0 && s.limits.share != nil {
		s.limits.share.giveBack(n)
	}
}

// inFlightShare is what all connections of one client have in flight together.
type inFlightShare struct {
	key   shareKey
	limit atomic.Int64
	used  atomic.Int64

	holders int // guarded by shares.mu

	mu     sync.Mutex
	paused map[*Session]struct{} // guarded by mu: woken when there is room
}

type shareKey struct{ principal, client string }

// full says whether the limit is reached; if so s is woken when it may not be any more.
func (i *inFlightShare) full(s *Session) bool {
	if !i.over() {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.paused == nil {
		i.paused = make(map[*Session]struct{})
	}
	i.paused[s] = struct{}{} // before used is looked at again: giveBack changes used and then looks here
	if i.over() {
		return true
	}
	delete(i.paused, s)
	return false
}

// over is full for who looks again later.
func (i *inFlightShare) over() bool { return i != nil && i.used.Load() >= i.limit.Load() }

// giveBack takes n bytes off and wakes who waits for that.
func (i *inFlightShare) giveBack(n int64) {
	if i.used.Add(-n) >= i.limit.Load() {
		return
	}
	i.mu.Lock()
	paused := i.paused
	i.paused = nil
	i.mu.Unlock()
	for s := range paused {
		s.conn.Wake()
	}
}

// inFlightShares are those of all clients that have a limit and a connection.
type inFlightShares struct {
	mu sync.Mutex
	m  map[shareKey]*inFlightShare // guarded by mu
}

// take finds or makes a client's share, for one more connection; nil without a limit.
func (a *inFlightShares) take(who *kafka.Client, limit int64) *inFlightShare {
	if limit <= 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := shareKey{who.Principal, who.ID}
	i := a.m[key]
	if i == nil {
		i = &inFlightShare{key: key}
		if a.m == nil {
			a.m = make(map[shareKey]*inFlightShare)
		}
		a.m[key] = i
	}
	i.limit.Store(limit)
	i.holders++
	return i
}

// leave ends a connection's part in a share, of which it uses so many bytes.
func (a *inFlightShares) leave(i *inFlightShare, s *Session, used int64) {
	i.mu.Lock()
	delete(i.paused, s)
	i.mu.Unlock()
	i.giveBack(used)
	a.mu.Lock()
	defer a.mu.Unlock()
	if i.holders--; i.holders == 0 {
		delete(a.m, i.key)
	}
}
