package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	answerBytes = 64      // of an answer, about what a Produce response has
	frameMax    = 4 << 20 // of a frame

	streamBytes = 1 << 30 // the stream begins anew in its file and its memory behind that
	block       = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// serve prints its address and serves until its standard input ends.
func serve(o options, path string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	handle := drop
	failed := make(chan error, 1)
	if o.mode == "direct" {
		s, err := openStream(path)
		if err != nil {
			return err
		}
		go func() { failed <- s.flush() }()
		handle = s.take
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the news
	}()
	select {
	case <-ended:
		return l.Close()
	case err := <-failed:
		return err
	}
}

// drop reads frames and answers all that one read brought with one write.
func drop(c net.Conn) {
	defer c.Close()
	in, out := bufio.NewReaderSize(c, 256<<10), bufio.NewWriterSize(c, 64<<10)
	answer := make([]byte, answerBytes)
	for {
		n, err := in.Peek(4)
		if err != nil {
			return
		}
		if _, err := in.Discard(4 + int(binary.BigEndian.Uint32(n))); err != nil {
			return
		}
		_, _ = out.Write(answer) // Flush says it too
		if in.Buffered() < 4 && out.Flush() != nil {
			return
		}
	}
}

// stream is one byte stream in memory, and its file.
type stream struct {
	fd  int
	mem []byte
	due chan struct{} // something was appended

	mu   sync.Mutex
	end  int64       // guarded by mu
	owed []*answerer // guarded by mu; whose frames are not flushed
}

// openStream makes the file with all its blocks written.
func openStream(path string) (*stream, error) {
	mem, err := unix.Mmap(-1, 0, streamBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	fd, err := zeroed(path, streamBytes, mem[:1<<20])
	return &stream{fd: fd, mem: mem, due: make(chan struct{}, 1)}, err
}

// zeroed is a file of this size, written once and synced, opened for direct writes.
func zeroed(path string, size int64, zeros []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_DIRECT, 0o600)
	if err != nil {
		return 0, err
	}
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := unix.Pwrite(fd, zeros, at); err != nil {
			return 0, err
		}
	}
	return fd, unix.Fsync(fd)
}

// answerer writes a connection's answers: all that are due with one write.
type answerer struct {
	c   net.Conn
	due chan struct{}

	mu sync.Mutex
	n  int // guarded by mu; answers that are due
}

func (a *answerer) owe() {
	a.mu.Lock()
	a.n++
	a.mu.Unlock()
	signal(a.due)
}

func (a *answerer) run() {
	const most = 4096
	answers := make([]byte, most*answerBytes)
	for range a.due {
		a.mu.Lock()
		n := min(a.n, most)
		if a.n -= n; a.n > 0 {
			signal(a.due)
		}
		a.mu.Unlock()
		if _, err := a.c.Write(answers[:n*answerBytes]); err != nil {
			return
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take reads a connection's frames into the stream.
func (s *stream) take(c net.Conn) {
	defer c.Close()
	a := &answerer{c: c, due: make(chan struct{}, 1)}
	go a.run()
	in, frame := bufio.NewReaderSize(c, 256<<10), make([]byte, frameMax)
	for {
		if _, err := io.ReadFull(in, frame[:4]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(frame)
		if n > frameMax {
			return
		}
		if _, err := io.ReadFull(in, frame[:n]); err != nil {
			return
		}
		s.append(a, frame[:n])
	}
}

func (s *stream) append(a *answerer, frame []byte) {
	_ = crc32.Checksum(frame, castagnoli) // a server would look at it
	s.mu.Lock()
	if at := s.end % streamBytes; at+int64(len(frame))+block > streamBytes {
		s.end += streamBytes - at
	}
	copy(s.mem[s.end%streamBytes:], frame)
	s.end += int64(len(frame))
	s.owed = append(s.owed, a)
	s.mu.Unlock()
	signal(s.due)
}

// flush writes what was appended since the last time, and then answers.
func (s *stream) flush() error {
	var flushed int64
	for range s.due {
		s.mu.Lock()
		end, owed := s.end, s.owed
		s.owed = nil
		s.mu.Unlock()
		if lap := (flushed/streamBytes + 1) * streamBytes; end > lap { // what is left of this lap is written with its padding
			if err := s.write(flushed, lap); err != nil {
				return err
			}
			flushed = lap
		}
		if err := s.write(flushed, end); err != nil {
			return err
		}
		flushed = end
		for _, a := range owed {
			a.owe()
		}
	}
	return nil
}

// write syncs the blocks that hold [from, to), which lie in one lap.
func (s *stream) write(from, to int64) error {
	if to <= from {
		return nil
	}
	at := from % streamBytes &^ (block - 1)
	n := (to - from + from%streamBytes - at + block - 1) &^ (block - 1)
	written, err := unix.Pwritev2(s.fd, [][]byte{s.mem[at : at+n]}, at, unix.RWF_DSYNC)
	if err == nil && int64(written) != n {
		err = errors.New("short write")
	}
	return err
}
