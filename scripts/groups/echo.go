package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"tidemark/scripts/node"
)

// echoServer answers every read with the same bytes, until it is killed: the least that a server in Go can do.
func echoServer() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 256)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		}()
	}
}

// echoCost is the processor time over d of a server that echoes as many messages, over as many connections, as groups of one member send heartbeats.
func echoCost(groups int, d time.Duration) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, "echo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, err
	}
	conns := make([]net.Conn, groups)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", strings.TrimSpace(addr)); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	before, err := node.CPUOf(cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	b := make([]byte, 64) // about a heartbeat
	begin := time.Now()
	for i := 0; time.Since(begin) < d; i++ {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * heartbeatEvery / time.Duration(groups))))
		c := conns[i%groups]
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := c.Read(b); err != nil {
			return 0, err
		}
	}
	after, err := node.CPUOf(cmd.Process.Pid)
	return after - before, err
}
