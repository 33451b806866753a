package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tidemark/server/kafka"
)

// Whoever has made an answer ready sends it, unless something stands before it: however the IO goroutine and two others meet, and however little the socket takes, the client gets each answer once and in the order of the requests.
func TestAnswersLeaveInOrder(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		conn := &stingyConn{random: random, wake: make(chan struct{}, 1)}
		s := &Session{srv: &Server{opts: Options{SendTimeout: time.Hour, ConnectionUnsentBytes: 1 << 20}}, conn: conn, taken: make(chan struct{}, 1)}
		s.out.now = func() time.Duration { return 0 }

		const answers = 300
		var want []byte
		made := make([]answered, answers)
		var held atomic.Int32
		for i := range made {
			n := 4 + random.IntN(64)
			if random.IntN(10) == 0 {
				n += copyBelow
			}
			b := make([]byte, n)
			binary.BigEndian.PutUint32(b, uint32(i))
			want = append(want, b...)
			made[i].Small = b
			if random.IntN(10) == 0 { // some of it is lent, in two parts
				k := 4 + random.IntN(n-3)
				made[i] = answered{Layout: kafka.Layout{Small: slices.Concat(b[:3], b[k:]), Lent: []kafka.Lent{{Bytes: b[3:4], After: 3}, {Bytes: b[4:k], After: 3}}}}
			}
			held.Add(1)
			made[i].release = func() { held.Add(-1) }
		}
		var makers sync.WaitGroup
		for k := range 2 {
			makers.Go(func() {
				for i := k; i < answers; i += 2 {
					if !s.out.complete(uint64(i), 1, made[i]) {
						continue
					}
					if k == 0 {
						s.Wake()
					} else { // as the calls' goroutine
						s.deliver()
					}
				}
			})
		}
		done := make(chan struct{})
		go func() {
			makers.Wait()
			close(done)
		}()
		for all := false; !all || s.out.unsent() || conn.Unsent() > 0; { // the IO goroutine
			if all {
				conn.take() // the client reads what the transport kept
				s.flush(conn)
				continue
			}
			select {
			case <-conn.wake:
				s.flush(conn)
			case <-done:
				all = true
			}
		}
		if got := conn.stream; !bytes.Equal(got, want) {
			t.Fatalf("seed %d: %d bytes arrived, %d were sent, or in another order", seed, len(got), len(want))
		}
		if conn.overtaken {
			t.Fatalf("seed %d: bytes went past those that the transport kept", seed)
		}
		s.giveBack()
		if n := held.Load(); n != 0 {
			t.Fatalf("seed %d: the memory of %d answers was not given back, or more than once", seed, n)
		}
		s.flush(conn) // what others sent behind the IO goroutine's last turn counts with its next
		if s.budget != -answers*charge(1) {
			t.Fatalf("seed %d: %d bytes were given back", seed, s.budget)
		}
	}
}

// What the socket did not take goes before all that was laid out since, a large answer too, which has memory of its own.
func TestRestGoesBeforeWhatCameSince(t *testing.T) {
	conn := &stingyConn{random: rand.New(rand.NewPCG(1, 1))}
	s := &Session{srv: &Server{opts: Options{SendTimeout: time.Hour, ConnectionUnsentBytes: 1 << 20}}, conn: conn, taken: make(chan struct{}, 1)}
	o := &s.out
	o.now = func() time.Duration { return 0 }
	answer := func(slot uint64, b []byte) { o.complete(slot, 1, answered{Layout: kafka.Layout{Small: b}}) }
	large := bytes.Repeat([]byte("L"), copyBelow+1)
	answer(0, []byte("abc"))
	out := o.take()
	answer(1, []byte("d"))
	answer(2, large)
	answer(3, []byte("e"))
	o.putBack(&out, 1)
	o.sent(out, false)
	s.flush(conn)
	s.srv.calls.Wait()
	conn.take()
	if got, want := string(conn.stream), "bcd"+string(large)+"e"; got != want {
		t.Errorf("%d bytes left, beginning with %.8q; want %d, beginning with %.8q", len(got), got, len(want), want)
	}
}

// While a client takes a large answer its IO goroutine does not wait, and does not read on when too much lies behind that answer. What was answered meanwhile comes behind it, and reading goes on.
func TestWhatWaitsBehindALargeAnswer(t *testing.T) {
	conn := &waitingConn{began: make(chan struct{}), goOn: make(chan error)}
	conn.wake = make(chan struct{}, 1)
	s := &Session{srv: &Server{opts: Options{SendTimeout: time.Hour, ConnectionUnsentBytes: 100}}, conn: conn, taken: make(chan struct{}, 1), ctx: t.Context()}
	s.out.now = func() time.Duration { return 0 }
	large := bytes.Repeat([]byte("L"), copyBelow+1)
	released := false
	s.out.complete(0, 1, answered{Layout: kafka.Layout{Small: large}, release: func() { released = true }})
	done := make(chan struct{})
	go func() {
		s.deliver()
		close(done)
	}()
	<-conn.began
	if !s.tooMuchUnsent(conn) {
		t.Error("the connection is read on")
	}
	want := string(large)
	for slot := range uint64(300) {
		b := fmt.Sprintf("%d,", slot)
		want += b
		if s.out.complete(1+slot, 1, answered{Layout: kafka.Layout{Small: []byte(b)}}) {
			s.Wake()
		}
	}
	<-conn.wake
	s.flush(conn) // does not wait
	if released || len(conn.stream) > 0 {
		t.Error("something overtook the large answer")
	}
	conn.goOn <- nil
	<-done
	<-conn.wake
	s.flush(conn)
	if s.tooMuchUnsent(conn) {
		t.Error("the connection is not read again")
	}
	if got := string(conn.stream); got != want || !released {
		t.Errorf("%d bytes left, want %d; memory given back: %v", len(got), len(want), released)
	}
}

// A large answer that had to wait for a small one before it does not go through the IO goroutine either, and a connection that is paused is looked at when its answer begins to leave.
func TestLargeAnswerBehindASmallOne(t *testing.T) {
	conn := &waitingConn{began: make(chan struct{}), goOn: make(chan error)}
	conn.wake = make(chan struct{}, 1)
	s := &Session{srv: &Server{opts: Options{SendTimeout: time.Hour, ConnectionUnsentBytes: 1 << 20}}, conn: conn, taken: make(chan struct{}, 1), ctx: t.Context()}
	s.out.now = func() time.Duration { return 0 }
	large := bytes.Repeat([]byte("L"), copyBelow+1)
	if s.out.complete(1, 1, answered{Layout: kafka.Layout{Small: large}}) {
		t.Error("it is not its turn")
	}
	s.paused.Store(true)
	if s.out.complete(0, 1, answered{Layout: kafka.Layout{Small: []byte("small")}}) {
		s.Wake()
	}
	<-conn.wake
	s.flush(conn) // does not wait
	<-conn.began
	<-conn.wake
	if n := s.backlog(); n != len("small")+len(large) {
		t.Errorf("%d bytes are not sent", n)
	}
	conn.goOn <- nil
	s.srv.calls.Wait()
	if got := string(conn.stream); got != "small"+string(large) {
		t.Errorf("%d bytes left, beginning with %.8q", len(got), got)
	}
}

// An answer that left in part is the last that a client gets.
func TestNothingFollowsPartOfAnAnswer(t *testing.T) {
	conn := &waitingConn{began: make(chan struct{}), goOn: make(chan error)}
	conn.wake = make(chan struct{}, 1)
	s := &Session{srv: &Server{opts: Options{SendTimeout: time.Hour, ConnectionUnsentBytes: 100}}, conn: conn, taken: make(chan struct{}, 1), ctx: t.Context()}
	s.out.now = func() time.Duration { return 0 }
	s.out.complete(0, 1, answered{Layout: kafka.Layout{Small: bytes.Repeat([]byte("L"), copyBelow+1)}})
	done := make(chan struct{})
	go func() {
		s.deliver()
		close(done)
	}()
	<-conn.began
	conn.goOn <- errors.New("reset by peer")
	<-done
	if !conn.closed {
		t.Error("the connection is not closed")
	}
	if s.out.complete(1, 1, answered{Layout: kafka.Layout{Small: []byte("more")}}) {
		s.Wake()
	}
	s.flush(conn)
	if len(conn.stream) > 0 {
		t.Errorf("%q left behind half an answer", conn.stream)
	}
}

// waitingConn is a socket that takes all but large answers, for which it waits.
type waitingConn struct {
	stingyConn
	once   sync.Once
	began  chan struct{}
	goOn   chan error
	closed bool
}

func (c *waitingConn) SendAll(_ context.Context, bufs [][]byte, _ time.Duration, taken func(n int)) error {
	c.once.Do(func() { close(c.began) })
	if err := <-c.goOn; err != nil {
		return err
	}
	for _, p := range bufs {
		taken(len(p))
		c.stream = append(c.stream, p...)
	}
	return nil
}

func (c *waitingConn) SendNow(p []byte) int {
	c.stream = append(c.stream, p...)
	return len(p)
}

func (c *waitingConn) Send(bufs [][]byte) error {
	for _, b := range bufs {
		c.SendNow(b)
	}
	return nil
}

func (c *waitingConn) Close() { c.closed = true }

// stingyConn takes part of what it is given.
type stingyConn struct {
	mu        sync.Mutex
	random    *rand.Rand
	stream    []byte // what the socket took
	kept      []byte // what the transport keeps
	overtaken bool
	wake      chan struct{}
}

func (c *stingyConn) some(n int) int {
	if c.random.IntN(3) > 0 {
		return n
	}
	return c.random.IntN(n + 1)
}

func (c *stingyConn) SendNow(p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.overtaken = c.overtaken || len(c.kept) > 0
	n := c.some(len(p))
	c.stream = append(c.stream, p[:n]...)
	return n
}

func (c *stingyConn) SendAll(_ context.Context, bufs [][]byte, _ time.Duration, taken func(n int)) error {
	for len(bufs) > 0 {
		n := c.SendNow(bufs[0])
		taken(n)
		bufs = behind(bufs, n)
	}
	return nil
}

func (c *stingyConn) Send(bufs [][]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range bufs {
		n := 0
		if len(c.kept) == 0 {
			n = c.some(len(b))
			c.stream = append(c.stream, b[:n]...)
		}
		c.kept = append(c.kept, b[n:]...)
	}
	return nil
}

// take is what a transport does when the socket has room again.
func (c *stingyConn) take() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream, c.kept = append(c.stream, c.kept...), nil
}

func (c *stingyConn) Unsent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.kept)
}

func (c *stingyConn) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *stingyConn) Pause()               {}
func (c *stingyConn) Resume()              {}
func (c *stingyConn) Rest()                {}
func (c *stingyConn) Close()               {}
func (c *stingyConn) RemoteAddr() net.Addr { return nil }
