// Package node builds, starts and ends a real server process for the scripts.
package node

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Node is a real server process on a data directory.
type Node struct {
	cmd   *exec.Cmd
	Addr  string        // where it listens
	Admin string        // where its admin listener is, if it has one
	done  chan struct{} // closed when it has ended
	last  atomic.Value  // string: its newest log line
	lines atomic.Int64  // of log
}

// running are the nodes that have not ended.
var running sync.Map // *Node to struct{}

// KillAll ends every node that this process started and that still runs: when it is interrupted.
func KillAll() {
	for n := range running.Range {
		n.(*Node).Kill()
	}
}

// Lines is how many lines it has logged.
func (n *Node) Lines() int64 { return n.lines.Load() }

// Ended is closed when the process has ended.
func (n *Node) Ended() <-chan struct{} { return n.done }

// Last is its newest log line.
func (n *Node) Last() string {
	s, _ := n.last.Load().(string)
	return s
}

// Build compiles the server into dir.
func Build(dir string) (string, error) {
	binary := filepath.Join(dir, "tidemark")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/tidemark")
	cmd.Stderr = os.Stderr
	return binary, cmd.Run()
}

// startTimeout bounds the time from start to the line that names the address.
const startTimeout = time.Minute

// Start runs the server and returns when it listens.
func Start(binary, dataDir string, settings ...string) (*Node, error) {
	return StartWith(Options{}, binary, dataDir, settings...)
}

// Options of a start.
type Options struct {
	Under []string // another program that runs the server, such as strace, and its arguments
	Admin bool     // with an admin listener
}

// StartWith is Start with options.
func StartWith(o Options, binary, dataDir string, settings ...string) (*Node, error) {
	admin := ""
	if o.Admin {
		admin = "127.0.0.1:0"
	}
	args := append(slices.Clone(o.Under), binary, "serve", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--admin-listen", admin)
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	n := &Node{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	logs, err := n.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	running.Store(n, struct{}{})
	listening := make(chan struct{}, 1)
	go func() {
		defer close(n.done)
		defer running.Delete(n)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			n.last.Store(lines.Text())
			n.lines.Add(1)
			var line struct {
				Message, Listen string
				Admin           string `json:"admin_listen"`
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "listening" {
				n.Addr, n.Admin = line.Listen, line.Admin
				listening <- struct{}{}
			}
		}
		n.cmd.Wait()
	}()
	select {
	case <-listening:
		return n, nil
	case <-n.done:
		return nil, fmt.Errorf("the server ended at start: %s", n.Last())
	case <-time.After(startTimeout):
		n.Kill()
		return nil, fmt.Errorf("the server did not listen within %v", startTimeout)
	}
}

// Kill ends the process at once and waits for it.
func (n *Node) Kill() {
	n.cmd.Process.Kill()
	<-n.done
}

// Stop asks the process to end and returns its exit code.
func (n *Node) Stop() int {
	n.cmd.Process.Signal(syscall.SIGTERM)
	<-n.done
	return n.cmd.ProcessState.ExitCode()
}

// PID is the process's id.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// CPU is the processor time that the process has used, from /proc.
func (n *Node) CPU() (time.Duration, error) { return CPUOf(n.cmd.Process.Pid) }

// CPUOf is the processor time that a process has used, from /proc.
func CPUOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, err
	}
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux
	return time.Duration(user+system) * time.Second / ticksPerSecond, nil
}

// Resident is the memory that the process holds, bytes; 0 when it has ended.
func (n *Node) Resident() int64 { return n.status("VmRSS:") }

// ResidentPeak is the most that it has held.
func (n *Node) ResidentPeak() int64 { return n.status("VmHWM:") }

// Descriptors is how many the process has open.
func (n *Node) Descriptors() (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
	return len(open), err
}

// status is one of the sizes in /proc/PID/status, bytes.
func (n *Node) status(name string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), name)
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}
