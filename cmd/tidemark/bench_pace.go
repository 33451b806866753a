package main

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openLoop sends requests when they are due, one after the other over the connections, whatever the answers do: an event loop for each core reads those, and one goroutine
// sends. A connection that has its window full is passed over; while all have, the pacer waits and what is due is late, which its latency has in it. It returns when over is closed and all was answered, or benchDrain after that.
func (l *load) openLoop(over <-chan struct{}, failed chan<- error) {
	pipes, err := l.pipes()
	if err != nil {
		failed <- err
		<-over
		return
	}
	defer func() {
		for _, p := range pipes {
			unix.Close(int(p))
		}
	}()
	if os.Getenv("GOMAXPROCS") == "" {
		// A goroutine that sleeps in the kernel, as the pacer and the event loops do, keeps its P until the runtime's monitor takes it, up to 10 ms later.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2*runtime.NumCPU() + 2))
	}
	_, client, err := l.startLoops(failed)
	if err != nil {
		failed <- err
		<-over
		return
	}
	defer func() { _ = client.Stop() }() // the load has ended, and its figures stand
	reading := l.startReadBack(failed)
	if err := l.pace(over, pipes); err != nil {
		failed <- err
		<-over
	}
	for begin := time.Now(); l.unanswered() > 0 && time.Since(begin) < benchDrain; {
		time.Sleep(time.Millisecond)
	}
	reading.stop()
}

// pace is the sender.
func (l *load) pace(over <-chan struct{}, pipes []pipe) error {
	clock := startPaceClock()
	begin, turn := l.now(), 0
	for k := int64(0); ; k++ {
		due := begin + int64(float64(k)*1e9/l.rate)
		for {
			select {
			case <-over:
				return nil
			default:
			}
			now := l.now()
			if now >= due {
				break
			}
			clock.sleep(min(time.Duration(due-now), paceLook))
		}
		if due >= l.end.Load() {
			<-over
			return nil
		}
		at, ok := l.withRoom(&turn, over, clock)
		if !ok {
			return nil
		}
		lc := l.conns[at]
		if l.measured(due) {
			_ = l.late.RecordValue(max((l.now()-due)/1e3, 1)) // past ten minutes: the load itself is shorter
		}
		lc.stamp(due)
		if err := lc.send(1, due, pipes[at].Write); err != nil {
			return lc.broken("write", err)
		}
	}
}

const (
	// paceLook is how often the pacer looks whether the load is over.
	paceLook = 50 * time.Millisecond
	// paceFull is how long it waits while all windows are full.
	paceFull = 20 * time.Microsecond
)

// withRoom is the next connection in turn that may send.
func (l *load) withRoom(turn *int, over <-chan struct{}, clock *paceClock) (at int, ok bool) {
	for {
		for range l.conns {
			at := *turn
			if *turn++; *turn == len(l.conns) {
				*turn = 0
			}
			if lc := l.conns[at]; lc.outstanding() < lc.window {
				return at, true
			}
		}
		select {
		case <-over:
			return 0, false
		default:
		}
		clock.sleep(paceFull)
	}
}

// pipe is the pacer's own descriptor of a connection, which its event loop reads.
type pipe int

// pipes opens one for each connection, before the event loops have them. Who asked closes them.
func (l *load) pipes() ([]pipe, error) {
	var pipes []pipe
	for _, lc := range l.conns {
		raw, err := lc.nc.(syscall.Conn).SyscallConn()
		if err == nil {
			err = errors.Join(raw.Control(func(fd uintptr) {
				var own int
				if own, err = unix.Dup(int(fd)); err == nil {
					pipes = append(pipes, pipe(own))
				}
			}), err)
		}
		if err != nil {
			for _, p := range pipes {
				unix.Close(int(p))
			}
			return nil, lc.broken("dup", err)
		}
	}
	return pipes, nil
}

// Write waits while the connection takes nothing: what is due meanwhile is late.
func (p pipe) Write(b []byte) (int, error) {
	for written := 0; ; {
		n, err := unix.Write(int(p), b[written:])
		written += max(n, 0)
		switch {
		case written == len(b):
			return written, nil
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(p), Events: unix.POLLOUT}}, int(paceLook.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
				return written, err
			}
		default:
			return written, err
		}
	}
}
