package server

import (
	"context"
	"os"
	"runtime/pprof"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// restSet watches the connections that are at rest: their clients send a heartbeat now and then, and nothing else. Their loops do not read them meanwhile; what is no heartbeat is left in the socket, and the loop has the connection again (ADR 16).
//
// One goroutine answers them, and it waits in Go's own poller and makes raw system calls, none of which can block. So nobody else wakes: behind an ordinary system call Go's monitor thread looks every 20 µs for 10 ms, and a heartbeat costs about twice as much.
type restSet struct {
	file  *os.File // the epoll set, as Go's poller has it
	ended chan struct{}

	mu     sync.Mutex
	epoll  int                 // guarded by mu; −1 when the set is closed
	conns  map[int32]*gnetConn // by descriptor; guarded by mu
	answer []byte              // run's
}

// restRequestMax bounds a request that is answered at rest. A heartbeat is some 30 bytes and the names of its client, group and member.
const restRequestMax = 1 << 10

func newRestSet() (*restSet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or Go's poller does not take it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r := &restSet{file: os.NewFile(uintptr(fd), "connections at rest"), epoll: fd, ended: make(chan struct{}), conns: make(map[int32]*gnetConn)}
	conn, err := r.file.SyscallConn()
	if err != nil {
		r.file.Close()
		return nil, err
	}
	go r.run(conn)
	return r, nil
}

// close ends the set. Connections that are still in it are not read any more.
func (r *restSet) close() {
	r.mu.Lock()
	r.epoll = -1
	r.mu.Unlock()
	r.file.Close()
	<-r.ended
}

func (r *restSet) run(conn syscall.RawConn) {
	defer close(r.ended)
	pprof.SetGoroutineLabels(ioLabels)
	var events [64]unix.EpollEvent
	var buf [restRequestMax]byte
	_ = conn.Read(func(fd uintptr) bool { // returns when the file is closed
		for {
			n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 || n == 0 {
				return false
			}
			for _, e := range events[:n] {
				if gc := r.of(e.Fd); gc != nil && !r.beat(gc, buf[:]) {
					gc.el.Execute(context.Background(), stirred{gc})
				}
			}
		}
	})
}

func (r *restSet) of(fd int32) *gnetConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns[fd]
}

// beat answers the heartbeat that has come. It returns false if the loop is to have the connection again, which has not been touched then.
func (r *restSet) beat(gc *gnetConn, buf []byte) bool {
	gc.mu.Lock()
	defer gc.mu.Unlock()
	if !gc.resting.Load() { // it left meanwhile
		return true
	}
	fd := uintptr(gc.fd)
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return true
	case errno == 0 && n > 0:
		var ok bool
		if r.answer, ok = gc.s.beatAtRest(r.answer[:0], buf[:n]); !ok {
			break
		}
		// The answer first: what the socket has no room for is then as if it had not been looked at.
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&r.answer[0])), uintptr(len(r.answer)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != 0 {
			break
		}
		took, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&buf[0])), n, unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 || took != n || int(sent) != len(r.answer) { // half an answer, or one to what is still there
			gc.leaveRest()
			gc.c.Close()
		}
		return true
	}
	gc.leaveRest()
	return false
}

func (r *restSet) add(gc *gnetConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoll < 0 || unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, gc.fd, &unix.EpollEvent{Fd: int32(gc.fd), Events: unix.EPOLLIN | unix.EPOLLRDHUP}) != nil {
		return false
	}
	r.conns[int32(gc.fd)] = gc
	return true
}

func (r *restSet) remove(gc *gnetConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, int32(gc.fd))
	if r.epoll >= 0 {
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
