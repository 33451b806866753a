package server

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// lastSend is how long a client has for the rest of its answers when the server ends.
const lastSend = 500 * time.Millisecond

// waitingWriter waits in Write until it can go on, or until its deadline.
type waitingWriter interface {
	io.Writer
	SetWriteDeadline(t time.Time) error
}

// sendAll is transportConn.SendAll over w.
func sendAll(ctx context.Context, w waitingWriter, bufs net.Buffers, timeout time.Duration, taken func(n int)) error {
	progress := time.Now()
	defer context.AfterFunc(ctx, func() { _ = w.SetWriteDeadline(time.Now().Add(lastSend)) })()
	for len(bufs) > 0 {
		_ = w.SetWriteDeadline(time.Now().Add(timeout / 8)) // it fails only on a closed connection, as the write does
		if ctx.Err() != nil {                               // looked at behind the deadline, which may have undone that of AfterFunc
			_ = w.SetWriteDeadline(time.Now().Add(lastSend))
		}
		n, err := bufs.WriteTo(w) // one system call for all over a net.Conn, one for each over others
		if n > 0 {
			taken(int(n))
			progress = time.Now()
		}
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil || time.Since(progress) >= timeout) {
			return err
		}
	}
	return nil
}
