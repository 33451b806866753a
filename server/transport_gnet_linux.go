package server

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// A pause changes the events that the loop's epoll set wants of the connection to none, or to writability when there is something left to send. gnet itself sets them again when its outbound buffer fills or
// empties; Session.Data pauses again then. This leans on gnet's default poller, which keeps the descriptor in an event's data; without a known epoll descriptor nothing is paused, and the
// bounds behind it (admission, request.max) hold alone. It fails only for a connection that is gone.

func (gc *gnetConn) Pause() { gc.events(0) }

func (gc *gnetConn) Resume() { gc.events(netpoll.ReadEvents) }

func (gc *gnetConn) events(want uint32) {
	if gc.closed || gc.loop.epoll < 0 {
		return
	}
	if gc.c.OutboundBuffered() > 0 {
		want |= netpoll.WriteEvents
	}
	_ = unix.EpollCtl(gc.loop.epoll, unix.EPOLL_CTL_MOD, gc.fd, &unix.EpollEvent{Fd: int32(gc.fd), Events: want})
}

// limitUnsent bounds what the kernel keeps of answers that could not be sent yet, beside what is on its way: otherwise it is up to tcp_wmem, 4 MiB, for each client that reads nothing.
func (gc *gnetConn) limitUnsent(n int) {
	_ = unix.SetsockoptInt(gc.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
}

// findEpoll looks through this process's epoll descriptors for the one that watches fd; −1 when there is none.
func findEpoll(fd int) int {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return -1
	}
	want := []byte(fmt.Sprintf("tfd:%9d ", fd))
	for _, e := range entries {
		if target, err := os.Readlink(dir + "/" + e.Name()); err != nil || target != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
			if bytes.HasPrefix(lines.Bytes(), want) {
				n, err := strconv.Atoi(e.Name())
				if err == nil {
					return n
				}
			}
		}
	}
	return -1
}
