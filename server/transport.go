package server

import (
	"context"
	"net"
	"runtime/pprof"
	"time"
)

// ioLabels are the pprof labels of IO goroutines.
var ioLabels = pprof.WithLabels(context.Background(), pprof.Labels("stage", "io"))

// transportConn is what a Session needs of its connection. Its methods may be called from any goroutine; only SendAll blocks.
type transportConn interface {
	// Wake has the connection's IO goroutine call Session.Turn soon.
	Wake()
	// SendNow writes what the socket takes of p without waiting, and returns how much that is. It is for who knows that the transport keeps no bytes of the connection and that nobody else sends on it; one that cannot send from any goroutine takes nothing.
	SendNow(p []byte) int
	// SendAll writes bufs, in order, and waits for the client to take them, until it takes nothing for timeout, or an eighth more: os.ErrDeadlineExceeded. When ctx ends the client has lastSend for the rest. taken is told now and then how much the socket has taken since. It is for who may call SendNow.
	SendAll(ctx context.Context, bufs [][]byte, timeout time.Duration, taken func(n int)) error
	// Close ends the connection; Session.Closed follows on the IO goroutine.
	Close()
	RemoteAddr() net.Addr
}

// ioConn is what Session.Turn may do, on the IO goroutine alone.
type ioConn interface {
	// Send writes bufs, in order. What the socket does not take is kept by the transport, which says how much that is.
	Send(bufs [][]byte) error
	Unsent() int
	// Pause stops reading, Resume goes on.
	Pause()
	Resume()
	// Rest says that nothing is in flight and heartbeats are all that is to come: until the next Turn or Data another goroutine may answer them with Session.beatAtRest, and Data has all else.
	Rest()
}

// transport is a listener with its connections.
type transport interface {
	// Addr is where it listens.
	Addr() net.Addr
	// StopAccepting closes the listener and leaves the connections.
	StopAccepting()
	// Close ends every connection and waits for the IO goroutines.
	Close() error
}

// sessions makes and counts sessions for a transport.
type sessions interface {
	// Open returns nil when there are too many connections. a is the connection's IO goroutine's.
	Open(c transportConn, a *arena) *Session
	// Failed is told when a transport ended by itself.
	Failed(err error)
}
