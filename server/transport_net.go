package server

import (
	"context"
	"errors"
	"net"
	"runtime/pprof"
	"sync"
	"time"
)

// netTransport is plain net: two goroutines a connection, one that reads and one that sends. The lock of a connection stands for its IO goroutine.
type netTransport struct {
	l    net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[*netConn]struct{} // guarded by mu
	done bool                  // guarded by mu
}

func listenNet(addr string, srv sessions) (transport, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &netTransport{l: l, open: make(map[*netConn]struct{})}
	t.wg.Go(func() { t.accept(srv) })
	return t, nil
}

func (t *netTransport) accept(srv sessions) {
	for {
		nc, err := t.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			srv.Failed(err)
			return
		}
		c := &netConn{Conn: nc, wake: make(chan struct{}, 1), gone: make(chan struct{})}
		c.unpaused = sync.NewCond(&c.mu)
		t.mu.Lock()
		refuse := t.done
		if !refuse {
			t.open[c] = struct{}{}
		}
		t.mu.Unlock()
		if refuse {
			nc.Close()
			continue
		}
		if c.s = srv.Open(c, &c.a); c.s == nil {
			t.forget(c)
			nc.Close()
			continue
		}
		t.wg.Go(func() {
			c.read()
			t.forget(c)
		})
		t.wg.Go(c.send)
	}
}

func (t *netTransport) forget(c *netConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

func (t *netTransport) Addr() net.Addr { return t.l.Addr() }
func (t *netTransport) StopAccepting() { t.l.Close() }

func (t *netTransport) Close() error {
	t.l.Close()
	t.mu.Lock()
	t.done = true
	for c := range t.open {
		c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return nil
}

type netConn struct {
	net.Conn
	s    *Session
	wake chan struct{}
	gone chan struct{} // closed when reading has ended

	mu       sync.Mutex // held by whoever is the IO goroutine
	a        arena
	paused   bool
	closed   bool
	unpaused *sync.Cond
}

func (c *netConn) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *netConn) SendNow([]byte) int { return 0 }

func (c *netConn) SendAll(ctx context.Context, bufs [][]byte, timeout time.Duration, taken func(n int)) error {
	return sendAll(ctx, c.Conn, bufs, timeout, taken)
}

func (c *netConn) Close() {
	c.Conn.Close()
	// A paused reader is not in Read, so it has to be told. Another goroutine, since the caller may be the IO goroutine.
	go func() {
		c.mu.Lock()
		c.closed = true
		c.unpaused.Broadcast()
		c.mu.Unlock()
	}()
}

func (c *netConn) RemoteAddr() net.Addr { return c.Conn.RemoteAddr() }

// Send blocks until the kernel has all of it, or has taken nothing for SendTimeout. Large answers come to SendAll, so there is mostly one of bufs.
func (c *netConn) Send(bufs [][]byte) error {
	return c.SendAll(c.s.ctx, bufs, c.s.srv.opts.SendTimeout, func(int) {})
}

func (c *netConn) Unsent() int { return 0 }
func (c *netConn) Pause()      { c.paused = true }

// Rest changes nothing: each connection has goroutines of its own.
func (c *netConn) Rest() {}

func (c *netConn) Resume() {
	c.paused = false
	c.unpaused.Broadcast()
}

func (c *netConn) read() {
	pprof.SetGoroutineLabels(ioLabels)
	buf := make([]byte, chunkBytes)
	for {
		n, err := c.Conn.Read(buf)
		c.mu.Lock()
		if n > 0 {
			c.s.Data(c, buf[:n])
			c.a.drop() // an idle connection holds no chunk
		}
		for err == nil && c.paused && !c.closed {
			c.unpaused.Wait()
		}
		if err != nil || c.closed {
			c.closed = true
			c.s.Closed()
			c.mu.Unlock()
			close(c.gone)
			c.Conn.Close()
			return
		}
		c.mu.Unlock()
	}
}

func (c *netConn) send() {
	pprof.SetGoroutineLabels(ioLabels)
	for {
		select {
		case <-c.wake:
			c.mu.Lock()
			if !c.closed {
				c.s.Turn(c)
			}
			c.mu.Unlock()
		case <-c.gone:
			return
		}
	}
}
