package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"tidemark/scripts/figures"
)

// rates is what drop and direct print.
type rates struct {
	FramesPerS float64 `json:"frames_per_s"`
	MBPerS     float64 `json:"mb_per_s"`
	P50Ms      float64 `json:"p50_ms"`
	P99Ms      float64 `json:"p99_ms"`
	Frames     int64   `json:"frames"`
	MeasuredS  float64 `json:"measured_s"`
}

func newLatencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Microseconds(), 3)
}

func quantile(h *hdrhistogram.Histogram, q float64) float64 {
	return float64(h.ValueAtQuantile(q)) / 1e3
}

// process is a running server of this program. It ends with its standard input.
type process struct {
	cmd  *exec.Cmd
	end  io.Closer
	addr string
}

func startServer(args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, args...)}
	p.cmd.Stderr = os.Stderr
	if p.end, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("the server process ended at the start: %w", err)
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

func (p *process) stop() {
	p.end.Close()
	_ = p.cmd.Wait() // nothing of it is wanted any more
}

// load drives a server process of its own: each connection writes as many frames as may be in flight, and again when all of them were answered.
func load(o options) (*rates, error) {
	server, err := startServer("--serve", "--mode", o.mode, "--dir", o.dir)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	conns := make([]net.Conn, o.connections)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", server.addr); err != nil {
			return nil, err
		}
		defer conns[i].Close()
	}
	var (
		mu     sync.Mutex
		all    = newLatencies()
		failed error
		driven sync.WaitGroup
		begin  = time.Now()
	)
	for _, c := range conns {
		driven.Go(func() {
			mine, err := drive(c, o, begin)
			mu.Lock()
			defer mu.Unlock()
			all.Merge(mine)
			if err != nil {
				failed = err
			}
		})
	}
	driven.Wait()
	if failed != nil {
		return nil, failed
	}
	s := time.Since(begin).Seconds()
	r := &rates{Frames: all.TotalCount(), MeasuredS: s, P50Ms: quantile(all, 50), P99Ms: quantile(all, 99)}
	r.FramesPerS = float64(r.Frames) / s
	r.MBPerS = r.FramesPerS * float64(o.bytes) / 1e6
	return r, nil
}

func drive(c net.Conn, o options, begin time.Time) (*hdrhistogram.Histogram, error) {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+o.bytes), uint32(o.bytes))
	window := bytes.Repeat(frame[:4+o.bytes], o.inFlight)
	in, latency := bufio.NewReaderSize(c, 64<<10), newLatencies()
	for time.Since(begin) < o.duration {
		sent := time.Now()
		if _, err := c.Write(window); err != nil {
			return latency, err
		}
		if _, err := in.Discard(o.inFlight * answerBytes); err != nil {
			return latency, err
		}
		_ = latency.RecordValues(max(time.Since(sent).Microseconds(), 1), int64(o.inFlight)) // past a minute: it would have ended
	}
	return latency, nil
}

// probed is what probe prints.
type probed struct {
	WritesPerS float64 `json:"writes_per_s"`
	MBPerS     float64 `json:"mb_per_s"`
	P50Ms      float64 `json:"p50_ms"`
	P99Ms      float64 `json:"p99_ms"`
}

// probe writes blocks one after the other into a file whose blocks were written before, each synced.
func probe(path string, o options) (*probed, error) {
	const size = 64 << 20
	n := (o.bytes + block - 1) &^ (block - 1)
	mem, err := unix.Mmap(-1, 0, max(1<<20, n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	fd, err := zeroed(path, size, mem[:1<<20])
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	latency, begin := newLatencies(), time.Now()
	for at := int64(0); time.Since(begin) < o.duration; at += int64(n) {
		if at+int64(n) > size {
			at = 0
		}
		t := time.Now()
		if written, err := unix.Pwritev2(fd, [][]byte{mem[:n]}, at, unix.RWF_DSYNC); err != nil || written != n {
			return nil, fmt.Errorf("%d of %d bytes written: %w", written, n, err)
		}
		_ = latency.RecordValue(max(time.Since(t).Microseconds(), 1)) // past a minute: it would have ended
	}
	rate := float64(latency.TotalCount()) / time.Since(begin).Seconds()
	return &probed{WritesPerS: rate, MBPerS: rate * float64(n) / 1e6, P50Ms: quantile(latency, 50), P99Ms: quantile(latency, 99)}, nil
}

// sent is what cold prints.
type sent struct {
	MBPerS    float64 `json:"mb_per_s"`
	Bytes     int64   `json:"bytes"`
	MeasuredS float64 `json:"measured_s"`
}

// cold drops the files from the page cache, has a process of its own send them through a loopback connection, and reads them there.
func cold(files []string) (*sent, error) {
	if len(files) == 0 {
		return nil, fmt.Errorf("--mode cold needs files")
	}
	for _, f := range files {
		if err := figures.DropCached(f); err != nil {
			return nil, err
		}
	}
	server, err := startServer(append([]string{"--serve", "--mode", "cold"}, files...)...)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	c, err := net.Dial("tcp", server.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	begin := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<20))
	s := time.Since(begin).Seconds()
	return &sent{MBPerS: float64(n) / s / 1e6, Bytes: n, MeasuredS: s}, err
}

// sendFiles sends them to the first connection, with plain reads and writes of a MiB.
func sendFiles(files []string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1<<20)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{f}, buf)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
