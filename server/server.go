package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"tidemark/pipeline"
	"tidemark/server/kafka"
)

// Options of the endpoint. All fields are set; Settings has the defaults.
type Options struct {
	Listen    string // host:port; port 0: chosen by the system
	Advertise string // host:port that clients are told; "": the bound address

	Transport string // "gnet" or "net"
	Loops     int    // gnet's event loops

	Kafka kafka.Config // Host and Port are set by Start

	RequestMaxBytes         int           // the largest request frame
	ConnectionInFlightBytes int64         // requests of one connection that are read and not answered; past it the connection is not read
	ConnectionUnsentBytes   int           // responses of one connection that its client has not taken; past it the connection is not read
	SendTimeout             time.Duration // how long a client may take nothing of what was sent to it, before it is closed
	MaxConnections          int

	// Null has Produce requests decoded, checked and answered at once, and stores nothing: the ceiling that bench measures. No setting reaches it.
	Null bool

	Log zerolog.Logger
	// OnFailed is told, once, that the endpoint stopped by itself. It must not block.
	OnFailed func(error)
}

// Transports that Options.Transport names.
const (
	TransportGnet = "gnet"
	TransportNet  = "net"
)

// Server is the endpoint of one pipeline.
type Server struct {
	opts     Options
	pipeline *pipeline.Pipeline
	broker   *kafka.Broker
	t        transport
	ready    chan struct{} // closed when broker is set: connections may come before

	ctx      context.Context // ends the waiting of requests
	cancel   context.CancelFunc
	draining atomic.Bool

	callsMu sync.Mutex
	calls   sync.WaitGroup // added to under callsMu, and not while draining

	mu   sync.Mutex
	open map[*Session]struct{} // guarded by mu

	shares inFlightShares

	bad      zerolog.Logger // rate-limited
	counters counters
}

// counters are what metrics.go shows.
type counters struct {
	accepted, tooMany, misbehaved atomic.Int64
}

// Start listens and serves. The pipeline stays the caller's to close, between Drain and Close.
func Start(opts Options, p *pipeline.Pipeline) (*Server, error) {
	s := &Server{opts: opts, pipeline: p, open: make(map[*Session]struct{}), ready: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.bad = opts.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second})
	var err error
	switch opts.Transport {
	case TransportGnet:
		s.t, err = listenGnet(opts.Listen, opts.Loops, s)
	case TransportNet:
		s.t, err = listenNet(opts.Listen, s)
	default:
		err = fmt.Errorf("transport %q is neither %s nor %s", opts.Transport, TransportGnet, TransportNet)
	}
	if err != nil {
		return nil, err
	}
	if err := s.advertise(); err != nil {
		s.t.Close()
		return nil, err
	}
	s.broker = kafka.New(s.opts.Kafka, p)
	s.goCall(func() { s.broker.ExpireOffsets(s.ctx) })
	s.goCall(func() { s.broker.EndLateTransactions(s.ctx) })
	close(s.ready)
	return s, nil
}

// advertise settles the address that clients are told.
func (s *Server) advertise() error {
	addr := s.opts.Advertise
	if addr == "" {
		host, _, err := net.SplitHostPort(s.opts.Listen)
		if err != nil {
			return err
		}
		bound := s.t.Addr().(*net.TCPAddr)
		if host == "" || bound.IP.IsUnspecified() {
			return errors.New("listen on all addresses needs --advertise HOST:PORT: clients cannot connect to a wildcard")
		}
		addr = net.JoinHostPort(host, strconv.Itoa(bound.Port))
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("advertise %q: %w", addr, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" {
		return fmt.Errorf("advertise %q: it is HOST:PORT with a port from 1 to 65535", addr)
	}
	if n == 0 {
		n = uint64(s.t.Addr().(*net.TCPAddr).Port)
	}
	s.opts.Kafka.Host, s.opts.Kafka.Port = host, int32(n)
	return nil
}

// Addr is where it listens; Advertised what clients are told.
func (s *Server) Addr() string { return s.t.Addr().String() }

// Advertised is the address that clients are told.
func (s *Server) Advertised() string {
	return net.JoinHostPort(s.opts.Kafka.Host, strconv.Itoa(int(s.opts.Kafka.Port)))
}

// Open makes a connection's session, or nil when there are too many.
func (s *Server) Open(c transportConn, a *arena) *Session {
	<-s.ready
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return nil
	}
	if len(s.open) >= s.opts.MaxConnections {
		s.counters.tooMany.Add(1)
		s.bad.Warn().Int("limit", s.opts.MaxConnections).Str("client", c.RemoteAddr().String()).Msg("connection refused: server.connections.max is reached")
		return nil
	}
	s.counters.accepted.Add(1)
	session := newSession(s, c, a)
	s.open[session] = struct{}{}
	return session
}

// Failed is told by the transport that it ended by itself.
func (s *Server) Failed(err error) { s.opts.OnFailed(fmt.Errorf("endpoint stopped: %w", err)) }

func (s *Server) closed(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, session)
}

// refused notes a connection that is closed for what its client sent.
func (s *Server) refused(session *Session, err error) {
	s.counters.misbehaved.Add(1)
	s.bad.Warn().Err(err).Str("client", session.client.Address).Str("client_id", session.who.Load().ID).Msg("connection closed")
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// goCall runs a connection's calls on a goroutine that Drain waits for; false while draining.
func (s *Server) goCall(fn func()) bool {
	s.callsMu.Lock()
	defer s.callsMu.Unlock()
	if s.draining.Load() {
		return false
	}
	s.calls.Go(fn)
	return true
}

// drainTimeout bounds the wait for requests that are being answered.
const drainTimeout = 10 * time.Second

// Drain takes no new request, ends the waiting of fetches, and returns when no request goroutine is left. What is in the pipeline is answered by its Close.
func (s *Server) Drain() {
	s.callsMu.Lock()
	s.draining.Store(true)
	s.callsMu.Unlock()
	s.t.StopAccepting()
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTimeout):
	}
}

// Close sends what is answered and ends the connections.
func (s *Server) Close() error {
	s.draining.Store(true)
	s.cancel()
	s.broker.Close()
	for end := time.Now().Add(time.Second); time.Now().Before(end) && s.unsent(); {
		time.Sleep(time.Millisecond)
	}
	return s.t.Close()
}

func (s *Server) unsent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session := range s.open {
		if session.out.unsent() {
			return true
		}
	}
	return false
}
