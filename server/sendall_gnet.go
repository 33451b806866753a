//go:build unix

package server

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// SendAll goes past gnet, which would write what the socket takes on its loop and keep a copy of the rest. What waits for the client is a second descriptor of the socket, in Go's own poller.
func (gc *gnetConn) SendAll(ctx context.Context, bufs [][]byte, timeout time.Duration, taken func(n int)) error {
	for len(bufs) > 0 {
		n := gc.sendNow(func(fd int) (int, error) { return unix.Writev(fd, bufs[:min(len(bufs), writevMax)]) })
		if n == 0 {
			break // the socket is full, or an error that the next write meets too
		}
		taken(n)
		bufs = behind(bufs, n)
	}
	if len(bufs) == 0 {
		return nil
	}
	if gc.t.waiting.Add(1) <= secondsMax {
		defer gc.t.waiting.Add(-1)
		if f, err := gc.dup(); err == nil {
			defer gc.forget(f)
			return sendAll(ctx, f, bufs, timeout, taken)
		}
	} else {
		gc.t.waiting.Add(-1)
	}
	return sendAll(ctx, &pollingWriter{gc: gc}, bufs, timeout, taken)
}

// behind is bufs without their first n bytes. It changes bufs.
func behind(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// secondsMax bounds the second descriptors of all connections: they come out of what is kept for segments and the like.
const secondsMax = 64

func (gc *gnetConn) dup() (*os.File, error) {
	gc.mu.Lock()
	defer gc.mu.Unlock()
	if gc.closed {
		return nil, net.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(gc.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "connection")
	if err := f.SetWriteDeadline(time.Time{}); err != nil { // Go's poller did not take it
		f.Close()
		return nil, err
	}
	gc.second = f
	return f, nil
}

func (gc *gnetConn) forget(f *os.File) {
	gc.mu.Lock()
	gc.second = nil
	gc.mu.Unlock()
	f.Close()
}

// pollingWriter looks again and again whether the socket takes something: for who has no second descriptor.
type pollingWriter struct {
	gc       *gnetConn
	deadline atomic.Int64 // nanoseconds of Unix time
}

const (
	pollPause    = 5 * time.Millisecond
	pollPauseMax = 80 * time.Millisecond // of a client that takes nothing
)

func (w *pollingWriter) SetWriteDeadline(t time.Time) error {
	w.deadline.Store(t.UnixNano())
	return nil
}

func (w *pollingWriter) Write(p []byte) (n int, err error) {
	for pause := pollPause; ; pause = min(2*pause, pollPauseMax) {
		if more := w.gc.SendNow(p[n:]); more > 0 {
			n += more
			pause = pollPause
		}
		switch {
		case n == len(p):
			return n, nil
		case w.gc.gone():
			return n, net.ErrClosed
		case time.Now().UnixNano() > w.deadline.Load():
			return n, os.ErrDeadlineExceeded
		}
		time.Sleep(pause)
	}
}

func (gc *gnetConn) gone() bool {
	gc.mu.Lock()
	defer gc.mu.Unlock()
	return gc.closed
}
