package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// node is a real server process on a data directory.
type node struct {
	cmd  *exec.Cmd
	addr string
	done chan struct{} // closed when it has ended
}

// build compiles the server into dir.
func build(dir string) (string, error) {
	binary := filepath.Join(dir, "tidemark")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/tidemark")
	cmd.Stderr = os.Stderr
	return binary, cmd.Run()
}

// startTimeout bounds the time from start to the line that names the address.
const startTimeout = time.Minute

// start runs the server and returns when it listens.
func start(binary, dataDir string, settings ...string) (*node, error) {
	args := []string{"serve", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--admin-listen", ""}
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	n := &node{cmd: exec.Command(binary, args...), done: make(chan struct{})}
	logs, err := n.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	listening := make(chan string, 1)
	var last string
	go func() {
		defer close(n.done)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			last = lines.Text()
			var line struct{ Message, Listen string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "listening" {
				listening <- line.Listen
			}
		}
		n.cmd.Wait()
	}()
	select {
	case n.addr = <-listening:
		return n, nil
	case <-n.done:
		return nil, fmt.Errorf("the server ended at start: %s", last)
	case <-time.After(startTimeout):
		n.kill()
		return nil, fmt.Errorf("the server did not listen within %v", startTimeout)
	}
}

// kill ends the process at once and waits for it.
func (n *node) kill() {
	n.cmd.Process.Kill()
	<-n.done
}

// stop asks the process to end and returns its exit code.
func (n *node) stop() int {
	n.cmd.Process.Signal(syscall.SIGTERM)
	<-n.done
	return n.cmd.ProcessState.ExitCode()
}
