//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// gnetTransport runs gnet's event loops. What gnet does not do, and what is done here about it:
//
//   - it never stops reading: Pause takes the connection's descriptor out of the loop's epoll set (transport_gnet_linux.go);
//   - Run returns nil when the engine stopped by itself, as it does without descriptors: a return that nobody asked for is a failure;
//   - its listener cannot be closed alone: while draining, new connections are closed at once.
type gnetTransport struct {
	gnet.BuiltinEventEngine
	srv     sessions
	eng     gnet.Engine
	booted  chan struct{}
	ended   chan error
	closing atomic.Bool
	addr    net.Addr

	mu    sync.Mutex
	loops map[gnet.EventLoop]*gnetLoop // guarded by mu

	waiting atomic.Int32 // connections with a second descriptor
	rest    *restSet     // connections that send heartbeats alone; nil: there is none on this system
}

// gnetLoop is what the connections of one event loop share.
type gnetLoop struct {
	arena arena
	epoll int // the loop's epoll descriptor, −1 when it is not known
}

func listenGnet(addr string, loops int, srv sessions) (transport, error) {
	// gnet's error for an address in use names another cause; a listener of our own, closed at once, says what is wrong.
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l.Close()
	t := &gnetTransport{srv: srv, booted: make(chan struct{}), ended: make(chan error, 1), loops: make(map[gnet.EventLoop]*gnetLoop)}
	if t.rest, err = newRestSet(); err != nil {
		return nil, err
	}
	go func() {
		err := gnet.Run(t, "tcp://"+addr,
			gnet.WithNumEventLoop(loops), gnet.WithReuseAddr(true), gnet.WithTCPKeepAlive(time.Minute),
			gnet.WithReadBufferCap(4*chunkBytes), gnet.WithLogger(GnetQuiet{}))
		if err == nil && !t.closing.Load() {
			err = errors.New("gnet's engine stopped by itself: out of file descriptors?")
		}
		select {
		case <-t.booted:
			if !t.closing.Load() {
				srv.Failed(err)
			}
		default:
		}
		t.ended <- err
	}()
	select {
	case <-t.booted:
	case err := <-t.ended:
		t.rest.close()
		return nil, fmt.Errorf("listen %s: %w", addr, err)
	}
	return t, nil
}

func (t *gnetTransport) OnBoot(eng gnet.Engine) gnet.Action {
	t.eng = eng
	t.addr = boundAddr(eng)
	close(t.booted)
	return gnet.None
}

// boundAddr asks the listener's socket for its address: the port may have been chosen by the system.
func boundAddr(eng gnet.Engine) net.Addr {
	fd, err := eng.Dup()
	if err != nil {
		return &net.TCPAddr{}
	}
	defer unix.Close(fd)
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return &net.TCPAddr{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	}
	return &net.TCPAddr{}
}

func (t *gnetTransport) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	gc := &gnetConn{t: t, c: c, el: c.EventLoop(), remote: c.RemoteAddr(), fd: c.Fd()}
	gc.loop = t.loop(gc)
	if gc.s = t.srv.Open(gc, &gc.loop.arena); gc.s == nil {
		return nil, gnet.Close
	}
	gc.limitUnsent(gc.s.srv.opts.ConnectionUnsentBytes)
	c.SetContext(gc)
	return nil, gnet.None
}

func (t *gnetTransport) loop(gc *gnetConn) *gnetLoop {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.loops[gc.el]
	if l == nil {
		pprof.SetGoroutineLabels(ioLabels) // its first connection: this is the loop's goroutine
		l = &gnetLoop{epoll: findEpoll(gc.fd)}
		t.loops[gc.el] = l
	}
	return l
}

func (t *gnetTransport) OnTraffic(c gnet.Conn) gnet.Action {
	gc, ok := c.Context().(*gnetConn)
	n := c.InboundBuffered()
	if !ok || n == 0 {
		return gnet.None
	}
	p, err := c.Peek(n)
	if err != nil {
		return gnet.Close
	}
	gc.stir() // it is not read at rest, unless gnet had bytes left
	gc.s.Data(gc, p)
	c.Discard(n)
	return gnet.None
}

func (t *gnetTransport) OnClose(c gnet.Conn, _ error) gnet.Action {
	if gc, ok := c.Context().(*gnetConn); ok {
		gc.stir()
		gc.mu.Lock()
		gc.closed = true
		second := gc.second
		gc.mu.Unlock()
		if second != nil {
			second.Close() // who waits in Write returns
		}
		gc.s.Closed()
	}
	return gnet.None
}

func (t *gnetTransport) Addr() net.Addr { return t.addr }
func (t *gnetTransport) StopAccepting() {} // Server.Open refuses from now on

func (t *gnetTransport) Close() error {
	t.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stopped := make(chan struct{})
	go func() { // Stop asks the engine to end at once, and then looks every half second whether it has
		_ = t.eng.Stop(ctx)
		close(stopped)
	}()
	var err error
	select {
	case err = <-t.ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	cancel()
	<-stopped
	t.rest.close()
	return err
}

// gnetConn is a connection. The ioConn methods belong to its loop.
type gnetConn struct {
	t      *gnetTransport
	c      gnet.Conn
	el     gnet.EventLoop
	s      *Session
	loop   *gnetLoop
	remote net.Addr
	fd     int

	resting atomic.Bool // in t.rest; its loop alone sets it, and changes are made under mu

	mu     sync.Mutex
	closed bool     // its loop alone writes, under mu; gnet closes the descriptor behind OnClose
	second *os.File // the same socket, to wait for the client with; guarded by mu
}

// Wake runs Run on the connection's loop.
func (gc *gnetConn) Wake() { gc.el.Execute(context.Background(), gc) }

// Run is gnet's Runnable.
func (gc *gnetConn) Run(context.Context) error {
	if !gc.closed {
		if gc.stir() {
			gc.Resume()
		}
		gc.s.Turn(gc)
	}
	return nil
}

// SendNow goes past gnet, which sends on its loop alone. An error is the loop's to find: nothing was taken.
func (gc *gnetConn) SendNow(p []byte) int {
	return gc.sendNow(func(fd int) (int, error) { return unix.Write(fd, p) })
}

func (gc *gnetConn) sendNow(write func(fd int) (int, error)) int {
	gc.mu.Lock()
	defer gc.mu.Unlock()
	if gc.closed {
		return 0
	}
	n, err := write(gc.fd)
	if err != nil {
		return 0
	}
	return n
}

func (gc *gnetConn) Close()               { gc.c.Close() }
func (gc *gnetConn) RemoteAddr() net.Addr { return gc.remote }
func (gc *gnetConn) Unsent() int          { return gc.c.OutboundBuffered() }

// writevMax is what one writev takes; gnet closes the connection over more.
const writevMax = 1024

func (gc *gnetConn) Send(bufs [][]byte) error {
	if gc.closed {
		return net.ErrClosed
	}
	for len(bufs) > 0 {
		n := min(len(bufs), writevMax)
		var err error
		if n == 1 {
			_, err = gc.c.Write(bufs[0])
		} else {
			_, err = gc.c.Writev(bufs[:n])
		}
		if err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	return nil
}
