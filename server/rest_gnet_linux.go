package server

import (
	"context"
	"os"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// restSet watches the connections that are at rest: their clients send a heartbeat now and then, and nothing else. Their loops do not read them meanwhile; what is no heartbeat is left in the socket, and the loop has the connection again (ADR 16).
//
// One goroutine answers them. It looks when something comes, unless that is the second time within restTick: then, and until there was nothing to be found, it looks once in a restTick, so that many heartbeats wake it once, as a network card moderates its interrupts. It waits in Go's own poller and makes raw system calls, none of which can block: behind an ordinary one Go's monitor thread wakes, and looks every 20 µs for 10 ms.
type restSet struct {
	epoll int      // of the connections
	timer int      // of the next look; one of Go's would wake more than who waits for it
	file  *os.File // an epoll set of these two, as Go's poller has it
	ended chan struct{}

	mu     sync.Mutex
	closed bool
	conns  map[int32]*gnetConn // by descriptor

	// Of run alone.
	looked    time.Time // when it found something last
	moderated bool      // the timer says when to look
	events    [64]unix.EpollEvent
	buf       [restRequestMax]byte
	answer    []byte
}

// restTick is the time between two looks while there is something to be found.
const restTick = 25 * time.Millisecond

// restRequestMax bounds a request that is answered at rest. A heartbeat is some 30 bytes and the names of its client, group and member.
const restRequestMax = 1 << 10

func newRestSet() (*restSet, error) {
	r := &restSet{epoll: -1, timer: -1, ended: make(chan struct{}), conns: make(map[int32]*gnetConn)}
	conn, err := r.open()
	if err != nil {
		r.file.Close() // what was not opened cannot be closed, which is no matter
		unix.Close(r.epoll)
		unix.Close(r.timer)
		return nil, err
	}
	go r.run(conn)
	return r, nil
}

func (r *restSet) open() (conn syscall.RawConn, err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if r.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	both, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(both, true); err != nil { // or Go's poller does not take it
		unix.Close(both)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r.file = os.NewFile(uintptr(both), "connections at rest")
	if errno := r.wait(both, unix.EPOLL_CTL_ADD); errno != 0 {
		return nil, os.NewSyscallError("epoll_ctl", errno)
	}
	if err := unix.EpollCtl(both, unix.EPOLL_CTL_ADD, r.timer, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return r.file.SyscallConn()
}

// close ends the set. Connections that are still in it are not read any more.
func (r *restSet) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.file.Close()
	<-r.ended
	unix.Close(r.epoll)
	unix.Close(r.timer)
}

func (r *restSet) run(conn syscall.RawConn) {
	defer close(r.ended)
	pprof.SetGoroutineLabels(ioLabels)
	_ = conn.Read(r.turn) // returns when the file is closed
}

// turn looks at the connections, and says when it is to be called next: when something comes, or a tick later. It returns false, which means that there may always be more.
func (r *restSet) turn(both uintptr) bool {
	var events [2]unix.EpollEvent
	for {
		n, errno := waitNow(int(both), events[:])
		if n == 0 || errno != 0 {
			return false
		}
		found, now := r.look(), time.Now()
		r.moderated = found && (r.moderated || now.Sub(r.looked) < restTick)
		if found {
			r.looked = now
		}
		if r.moderated {
			r.wake(restTick)
			continue
		}
		r.wake(0)
		r.wait(int(both), unix.EPOLL_CTL_MOD)
	}
}

// wait has both say once that something has come.
func (r *restSet) wait(both int, op uintptr) unix.Errno {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(both), op, uintptr(r.epoll), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// wake has the timer fire in d; 0: not at all.
func (r *restSet) wake(d time.Duration) {
	in := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(r.timer), 0, uintptr(unsafe.Pointer(&in)), 0, 0, 0)
}

// waitNow is epoll_wait that does not wait.
func waitNow(epoll int, events []unix.EpollEvent) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// look answers the heartbeats that have come, and gives the connections back on which something else has. It returns whether there was anything.
func (r *restSet) look() (found bool) {
	for {
		n, errno := waitNow(r.epoll, r.events[:])
		if errno != 0 {
			return found
		}
		for _, e := range r.events[:n] {
			r.mu.Lock()
			gc := r.conns[e.Fd]
			r.mu.Unlock()
			if gc != nil && !r.beat(gc) {
				gc.el.Execute(context.Background(), stirred{gc})
			}
			found = true
		}
		if n < len(r.events) { // otherwise there may be more, of other connections
			return found
		}
	}
}

// beat answers the heartbeat that has come. It returns false if the loop is to have the connection again, which has not been touched then.
func (r *restSet) beat(gc *gnetConn) bool {
	gc.mu.Lock()
	defer gc.mu.Unlock()
	if !gc.resting.Load() { // it left meanwhile
		return true
	}
	n, errno := recvNow(gc.fd, r.buf[:], unix.MSG_PEEK)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return true
	case errno == 0 && n > 0:
		var ok bool
		if r.answer, ok = gc.s.beatAtRest(r.answer[:0], r.buf[:n]); !ok {
			break
		}
		// The answer first: what the socket has no room for is then as if it had not been looked at.
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(gc.fd), uintptr(unsafe.Pointer(&r.answer[0])), uintptr(len(r.answer)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != 0 {
			break
		}
		if took, errno := recvNow(gc.fd, r.buf[:n], 0); errno != 0 || took != n || int(sent) != len(r.answer) { // half an answer, or one to what is still there
			gc.leaveRest()
			gc.c.Close()
		}
		return true
	}
	gc.leaveRest()
	return false
}

// recvNow is recv that does not wait.
func recvNow(fd int, p []byte, flags uintptr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags|unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func (r *restSet) add(gc *gnetConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, gc.fd, &unix.EpollEvent{Fd: int32(gc.fd), Events: unix.EPOLLIN | unix.EPOLLRDHUP}) != nil {
		return false
	}
	r.conns[int32(gc.fd)] = gc
	return true
}

func (r *restSet) remove(gc *gnetConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, int32(gc.fd))
	if !r.closed {
		_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, gc.fd, nil)
	}
}

// stirred has its loop read a connection again.
type stirred struct{ gc *gnetConn }

// Run is gnet's Runnable.
func (s stirred) Run(context.Context) error {
	if !s.gc.resting.Load() { // else it was read meanwhile, and rests again
		s.gc.Resume()
	}
	return nil
}

// Rest has the set answer the connection's heartbeats, until something else comes, or the loop has something to do with it. The connection is in the set while it is resting, and both change under mu.
func (gc *gnetConn) Rest() {
	r := gc.t.rest
	if r == nil || gc.closed || gc.loop.epoll < 0 {
		return
	}
	gc.events(0) // first: one of the two reads
	gc.mu.Lock()
	ok := r.add(gc)
	if ok {
		gc.resting.Store(true)
	}
	gc.mu.Unlock()
	if !ok {
		gc.Resume()
	}
}

// stir takes the connection out of the set; it returns false if it was not there. Its loop, which calls it, does not read it yet.
func (gc *gnetConn) stir() bool {
	if !gc.resting.Load() { // as with nearly all that is read: mu may be held for as long as a write takes
		return false
	}
	gc.mu.Lock()
	defer gc.mu.Unlock()
	return gc.leaveRest()
}

// leaveRest is stir for who holds mu.
func (gc *gnetConn) leaveRest() bool {
	if !gc.resting.Load() {
		return false
	}
	gc.resting.Store(false)
	gc.t.rest.remove(gc)
	return true
}
