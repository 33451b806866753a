package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/rs/zerolog"

	"tidemark/pipeline"
	"tidemark/server"
)

// BenchNullCmd is the child process of --null. It ends when its standard input does, so that it does not outlive who started it.
type BenchNullCmd struct {
	Connections int `help:"Connections to take."`
}

// Run serves until stdin ends.
func (c *BenchNullCmd) Run(e *env) error {
	dir, err := os.MkdirTemp("", "tidemark-null-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := loadSettings("", nil, map[string]string{
		"data.dir": filepath.Join(dir, "data"), "server.listen": "127.0.0.1:0", "admin.listen": "",
		"journal.segment.bytes": "4MiB", "journal.cache.bytes": "8MiB", "server.connections.max": strconv.Itoa(c.Connections + nullConnectionsSpare),
	})
	if err != nil {
		return err
	}
	if err := s.adoptDirectory(); err != nil {
		return err
	}
	tuneRuntime(s)
	log := zerolog.New(e.stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	failed := make(chan error, 2)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	p, err := pipeline.Open(pipelineOptions(s, log, nil, fail))
	if err != nil {
		return err
	}
	opts := serverOptions(s, log, runtime.NumCPU(), fail)
	opts.Null = true
	srv, err := server.Start(opts, p)
	if err != nil {
		return errors.Join(err, p.Close())
	}
	fmt.Fprintln(e.stdout, srv.Addr())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, e.stdin) // its end is the news
	}()
	select {
	case <-ended:
	case <-e.ctx.Done():
	case err = <-failed:
	}
	srv.Drain()
	err = errors.Join(err, p.Close())
	srv.Close()
	return err
}

// nullConnectionsSpare is for the bench's administrative connections.
const nullConnectionsSpare = 16

// null is a running child.
type null struct {
	cmd  *exec.Cmd
	end  io.Closer // its standard input
	addr string
}

func startNull(e *env, connections int) (*null, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &null{cmd: exec.Command(self, "bench", "null", "--connections", strconv.Itoa(connections))}
	n.cmd.Stderr = e.stderr
	in, err := n.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	n.end = in
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		n.stop()
		return nil, fmt.Errorf("--null: its process ended at the start: %w", err)
	}
	n.addr = line[:len(line)-1]
	return n, nil
}

func (n *null) stop() {
	n.end.Close()
	_ = n.cmd.Wait() // nothing of it is wanted any more
}
