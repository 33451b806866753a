package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/kafka"
)

// Session is one connection's protocol state.
//
// The IO goroutine owns the inbound half; responses come from the respond stage and from the calls' goroutine (call.go) and meet under outbound.mu. A request gets a slot when it is read and its response leaves when all
// slots before it have left. Flow of a request: Data → read → dispatch → (pipeline or calls) → outbound.complete → Turn → Send.
type Session struct {
	// immutable
	srv    *Server
	conn   transportConn
	arena  *arena       // its IO goroutine's
	client kafka.Client // Turn is set by the IO goroutine with the first request; who has the client id

	// IO goroutine only
	in     inbound
	submit []*pipeline.Request
	keep   func(*pipeline.Request) // keepRequest
	budget int64                   // bytes of requests in flight: read, and their responses not handed to the transport
	slot   uint64                  // of the next request
	free   []*kafka.Produce        // to be used again
	now    time.Duration           // the pipeline's clock in this turn
	labels labels
	turn   bool // client.Turn is set
	limits limits
	later  []laid    // answers that are sent, of which the client has not taken all yet
	held   []func()  // gives back the memory of answers that the client has not taken yet
	bufs   [][]byte  // to be used again
	beats  int       // heartbeats that came one after the other, and nothing else
	left   int       // unsent when it was looked last
	since  time.Time // when it was last seen to shrink

	resume     pipeline.Resume
	paused     atomic.Bool                  // not read; the IO goroutine writes
	who        atomic.Pointer[kafka.Client] // newest client id; the IO goroutine writes
	calls      calls
	looking    atomic.Bool   // a timer will wake the connection to look at what is unsent
	unsent     atomic.Int64  // what the client had not taken when the IO goroutine looked last
	delivering atomic.Int64  // what sendLarge has not sent yet
	taken      chan struct{} // signalled when it has taken enough
	dead       atomic.Bool   // failed: closing takes a moment, and nothing that comes meanwhile is taken for a request

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	_   [64]byte // what the IO goroutine writes for each request lies apart from what the respond stage does
	out outbound
}

func newSession(srv *Server, c transportConn, a *arena) *Session {
	s := &Session{srv: srv, conn: c, arena: a, taken: make(chan struct{}, 1)}
	s.client = kafka.Client{Principal: kafka.Anonymous, Address: c.RemoteAddr().String()}
	s.who.Store(&s.client)
	s.keep = s.keepRequest
	s.out.now = srv.pipeline.Now
	s.resume.Wake = c.Wake
	s.ctx, s.cancel = context.WithCancel(srv.ctx)
	return s
}

// Turn is called on the IO goroutine after Wake: it sends what is ready, and goes on reading if that was stopped.
func (s *Session) Turn(io ioConn) {
	if !s.flush(io) {
		return
	}
	if !s.paused.Load() {
		if s.tooMuchUnsent(io) || s.throttled() {
			s.paused.Store(true)
			io.Pause()
			s.conn.Wake() // as in endData
		}
		return
	}
	if s.mustPause(io) {
		return
	}
	s.paused.Store(false)
	s.now = s.srv.pipeline.Now()
	s.in.resume(s)
	s.endData(io)
	if !s.paused.Load() {
		io.Resume()
	}
}

// Data is called on the IO goroutine with what was read. p is the transport's again when it returns.
func (s *Session) Data(io ioConn, p []byte) {
	if s.dead.Load() {
		return
	}
	if s.paused.Load() { // a transport may read a little more than it was asked to
		s.in.keep(p)
		io.Pause()
		return
	}
	s.now = s.srv.pipeline.Now()
	s.look()
	s.in.feed(s, p)
	s.endData(io)
	if s.atRest(io) {
		s.beats = 0 // whatever ends the rest, it takes as many to come to rest again
		io.Rest()
	}
}

// endData submits what was read in this turn, sends what was answered at once, and stops reading when a budget is used up.
func (s *Session) endData(io ioConn) {
	s.submitAll()
	if !s.flush(io) {
		return
	}
	if s.in.held() || s.mustPause(io) {
		s.paused.Store(true)
		io.Pause()
		s.conn.Wake() // Turn looks again: what ends the pause may have come before paused was known
	}
}

// submitAll hands the requests of this turn on. Behind it none of them lies in the transport's buffer.
func (s *Session) submitAll() {
	if len(s.submit) == 0 {
		return
	}
	if err := s.srv.pipeline.SubmitLent(ioLabels, s.submit, s.keep); err != nil {
		for _, r := range s.submit {
			r.Err = err
			r.Owner.Answer(r)
		}
	}
	clear(s.submit)
	s.submit = s.submit[:0]
}

// keepRequest copies a request's bytes out of the transport's buffer.
func (s *Session) keepRequest(r *pipeline.Request) {
	if p := r.Owner.(*kafka.Produce); p.Buffer == nil {
		body, c := s.arena.copy(p.Body)
		p.MoveTo(body, c)
	}
}

// mustPause says whether the connection may not be read for now. When it may again, Wake is called.
func (s *Session) mustPause(io ioConn) bool {
	s.look()
	return s.tooMuchUnsent(io) || s.throttled() || s.overBudget() || s.limits.share.full(s) || s.in.behind && s.calls.waiting.Load() > 0 || s.srv.pipeline.Full(s.client.Turn, &s.resume)
}

// tooMuchUnsent says whether the client leaves too much unread. No transport tells when that changes, so a timer, one at a time, has the IO goroutine look again, also while answers' memory is held. A client that takes nothing
// for SendTimeout is closed: what it holds is taken from the others.
func (s *Session) tooMuchUnsent(io ioConn) bool {
	n, backlog := io.Unsent(), s.backlog()
	s.unsent.Store(int64(n + backlog))
	much := n+backlog > s.srv.opts.ConnectionUnsentBytes
	if !much {
		s.hasTaken()
	}
	if n == 0 {
		s.giveBack()
		s.observeTaken()
		s.left = 0
		return much // sendLarge wakes when it is done
	}
	now := time.Now()
	if s.left == 0 || n < s.left {
		s.since = now
	}
	if s.left = n; now.Sub(s.since) > s.srv.opts.SendTimeout {
		s.fail(fmt.Errorf("%w: %d bytes for %v", errNotReading, n, s.srv.opts.SendTimeout))
		return true
	}
	if !much && len(s.held) == 0 && len(s.later) == 0 {
		return false
	}
	if s.looking.CompareAndSwap(false, true) {
		time.AfterFunc(unsentLook, func() {
			s.looking.Store(false)
			s.conn.Wake()
		})
	}
	return much
}

// hasTaken lets the next call be answered, if it waits for that.
func (s *Session) hasTaken() {
	select {
	case s.taken <- struct{}{}:
	default:
	}
}

// observeTaken adds the time of answers up that the client has taken.
func (s *Session) observeTaken() {
	if len(s.later) == 0 {
		return
	}
	now := s.srv.pipeline.Now()
	for i, l := range s.later {
		s.srv.pipeline.Observe(l.level, l.labels, pipeline.SocketWrite, l.n, now-l.since)
		s.later[i] = laid{}
	}
	s.later = s.later[:0]
}

// laterMax bounds the kinds of answers whose time is kept until they were taken; one more counts as taken with the last.
const laterMax = 64

// keepLater notes answers that the client has not taken as a whole.
func (s *Session) keepLater(ls []laid, since time.Duration) {
	for _, l := range ls {
		if last := len(s.later) - 1; last >= 0 && (s.later[last].labels == l.labels && s.later[last].level == l.level || len(s.later) == laterMax) {
			s.later[last].n += l.n
			continue
		}
		l.since = since
		s.later = append(s.later, l)
	}
}

// giveBack lets go of the memory of answers that were taken.
func (s *Session) giveBack() {
	for i, release := range s.held {
		release()
		s.held[i] = nil
	}
	s.held = s.held[:0]
}

var errNotReading = errors.New("the client does not take its answers")

// charge is what a request of n bytes counts for in its connection's budget: a small one costs more than its bytes.
func charge(n int) int64 { return int64(n) + 512 }

// unsentLook is how often a connection whose client does not read is looked at.
const unsentLook = 20 * time.Millisecond

func (s *Session) overBudget() bool {
	return s.budget > s.srv.opts.ConnectionInFlightBytes || s.calls.waiting.Load() >= maxCalls
}

// Closed is called on the IO goroutine when the connection has ended. Requests in flight go on; their answers are dropped.
func (s *Session) Closed() {
	s.cancel()
	s.giveBack()
	if share := s.limits.share; share != nil {
		s.srv.shares.leave(share, s, s.budget)
		s.limits.share = nil
	}
	s.in.drop()
	s.out.close()
	s.srv.closed(s)
}

// fail closes the connection for a reason that the client is to blame for.
func (s *Session) fail(err error) {
	if s.dead.Swap(true) {
		return
	}
	s.srv.refused(s, err)
	s.conn.Close()
}

// outbound is the half that leads to the client.
//
// One goroutine sends at a time: the IO goroutine, in flush, whoever has made the last answer ready, in sendNow, or, with large answers, a goroutine that may wait, in sendLarge.
type outbound struct {
	mu      sync.Mutex
	sending bool // somebody hands bytes to the socket; guarded by mu
	again   bool // the IO goroutine came meanwhile, and is to come once more; guarded by mu
	behind  bool // the transport keeps bytes that the socket did not take: what follows has to go the same way; guarded by mu
	shared  bool // the client's connections share a limit of bytes in flight, so that each answer is the IO goroutine's to count; guarded by mu

	closed   bool             // guarded by mu
	done     int64            // bytes of requests that were answered since the IO goroutine came last; guarded by mu
	free     []*kafka.Produce // answered, to be used again; guarded by mu
	head     uint64           // slot whose response leaves next; guarded by mu
	ready    []answered       // by slot modulo its length: responses that wait for those before them; guarded by mu
	outgoing                  // laid out and not yet sent; guarded by mu
	spare    outgoing         // memory of what was sent last; guarded by mu
	awake    bool             // Wake was asked for, and nobody has begun to send since; guarded by mu
	now      func() time.Duration
}

// laid is answers of one kind that lie one behind the other.
type laid struct {
	level  qos.Level // or pipeline.LevelFetch
	labels *pipeline.Labels
	n      int64
	since  time.Duration // when the first of them was ready
}

// labels are those of a connection's requests. IO goroutine only.
type labels struct {
	last *pipeline.Labels
	all  map[string]*pipeline.Labels // by topic; of last's client
}

// maxLabels is how many topics' labels a connection keeps.
const maxLabels = 64

func (l *labels) of(who *kafka.Client, topic string, weight int) *pipeline.Labels {
	if l.last != nil && l.last.Topic == topic && l.last.ClientID == who.ID {
		return l.last
	}
	if l.all == nil || l.last.ClientID != who.ID || len(l.all) >= maxLabels {
		l.all = make(map[string]*pipeline.Labels)
	}
	have := l.all[topic]
	if have == nil {
		have = &pipeline.Labels{ClientID: who.ID, Topic: topic, Turn: who.Turn, Weight: weight}
		l.all[topic] = have
	}
	l.last = have
	return have
}

// answered is a response that is ready: a Produce to be laid out, or bytes.
type answered struct {
	produce      *kafka.Produce
	kafka.Layout                  // of any other
	release      func()           // gives its memory back; nil: nothing does
	labels       *pipeline.Labels // of a Fetch
	charged      int64            // in the connection's budget
	full         bool
}

// piece is a part of a response that has its own memory. It is sent behind the first after bytes of small.
type piece struct {
	bytes   []byte
	release func()
	after   int
}
