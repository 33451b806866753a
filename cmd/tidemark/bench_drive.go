package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"

	"tidemark/internal/kwire"
	"tidemark/server"
)

const (
	benchReadBytes = 64 << 10
	// benchDrain is how long answers may still come after the end; later ones are reported as unanswered.
	benchDrain = 10 * time.Second
)

// run drives all connections through warm-up and measurement. When ctx ends, or with the first error, it stops early, and what was measured stands.
func (l *load) run(ctx context.Context, warmup, duration time.Duration) error {
	defer l.close()
	l.begin = time.Now()
	l.from.Store(int64(warmup))
	l.end.Store(int64(warmup + duration))
	drive := l.closedLoop
	switch {
	case l.oneWay:
		drive = l.pour
	case l.rate > 0:
		drive = l.openLoop
	}
	over, failed := make(chan struct{}), make(chan error, len(l.conns)+1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		drive(over, failed)
	}()
	timer := time.NewTimer(warmup + duration)
	defer timer.Stop()
	var err error
	select {
	case <-timer.C:
	case <-ctx.Done():
		l.endNow()
	case err = <-failed:
		l.endNow()
	}
	close(over)
	<-done
	if err == nil {
		select {
		case err = <-failed:
		default:
		}
	}
	return err
}

func (l *load) endNow() {
	l.end.Store(l.now())
	l.from.Store(min(l.from.Load(), l.end.Load()))
}

// now is ns since the load began.
func (l *load) now() int64 { return int64(time.Since(l.begin)) }

func (l *load) measured(now int64) bool { return now >= l.from.Load() && now < l.end.Load() }

// closedLoop drives the connections with gnet's event loops: each answer is followed by the next request. It returns when over is closed and what is outstanding was answered, or benchDrain after that.
func (l *load) closedLoop(over <-chan struct{}, failed chan<- error) {
	h, client, err := l.startLoops(failed)
	if err != nil {
		failed <- err
		<-over
		return
	}
	defer func() { _ = client.Stop() }() // the load has ended, and its figures stand
	<-over
	late := time.NewTimer(benchDrain)
	defer late.Stop()
	for range l.conns {
		select {
		case <-h.ended:
		case <-late.C:
			return // what is not answered by now is counted as such
		}
	}
}

// startLoops makes the event loops and gives the connections to them.
func (l *load) startLoops(failed chan<- error) (*loadHandler, *gnet.Client, error) {
	h := &loadHandler{load: l, failed: failed, ended: make(chan struct{}, len(l.conns))}
	client, err := gnet.NewClient(h, gnet.WithNumEventLoop(runtime.NumCPU()), gnet.WithReadBufferCap(benchReadBytes), gnet.WithLogger(server.GnetQuiet{}))
	if err == nil {
		err = client.Start()
	}
	if err != nil {
		return nil, nil, err
	}
	for _, lc := range l.conns {
		var err error
		if l.rate == 0 {
			// The first window goes out before the loop has the connection: from then on the loop alone touches it.
			err = lc.send(lc.window, l.now(), lc.nc.Write)
		}
		if err == nil {
			_, err = client.EnrollContext(lc.nc, lc)
		}
		if err != nil {
			return nil, nil, errors.Join(lc.broken("write", err), client.Stop())
		}
	}
	return h, client, nil
}

// loadHandler is gnet's side of a load.
type loadHandler struct {
	gnet.BuiltinEventEngine
	load   *load
	failed chan<- error
	ended  chan struct{} // a token from each connection that has nothing outstanding after the end
}

// OnTraffic takes the answers that came and sends as many requests.
func (h *loadHandler) OnTraffic(c gnet.Conn) gnet.Action {
	lc := c.Context().(*loadConn)
	n := c.InboundBuffered()
	if n == 0 || lc.ended {
		return gnet.None
	}
	p, err := c.Peek(n)
	if err != nil {
		return h.fail(lc, lc.broken("read", err))
	}
	now := h.load.now()
	used, answers, err := lc.parse(p, now)
	if used > 0 {
		c.Discard(used)
	}
	if err != nil {
		return h.fail(lc, err)
	}
	switch {
	case h.load.rate > 0: // the pacer sends
	case now < h.load.end.Load():
		if answers > 0 {
			if err := lc.send(answers, now, c.Write); err != nil {
				return h.fail(lc, lc.broken("write", err))
			}
		}
	case lc.outstanding() == 0:
		lc.end(h)
	}
	return gnet.None
}

// OnClose is told when the broker ends a connection.
func (h *loadHandler) OnClose(c gnet.Conn, err error) gnet.Action {
	lc, ok := c.Context().(*loadConn)
	if !ok || lc.ended {
		return gnet.None
	}
	if h.load.now() >= h.load.end.Load() {
		lc.end(h)
		return gnet.None
	}
	if err == nil {
		err = io.EOF
	}
	return h.fail(lc, lc.broken("read", err))
}

func (h *loadHandler) fail(lc *loadConn, err error) gnet.Action {
	h.failed <- err
	lc.end(h)
	return gnet.None
}

func (lc *loadConn) end(h *loadHandler) {
	if !lc.ended {
		lc.ended = true
		h.ended <- struct{}{}
	}
}

// pour drives one-way: a goroutine for each connection writes as fast as TCP takes it.
func (l *load) pour(over <-chan struct{}, failed chan<- error) {
	var drivers sync.WaitGroup
	for _, lc := range l.conns {
		drivers.Go(func() {
			if err := lc.pour(); err != nil {
				failed <- err
			}
		})
	}
	<-over
	for _, lc := range l.conns {
		lc.nc.SetDeadline(time.Now())
	}
	drivers.Wait()
}

func (lc *loadConn) pour() error {
	for {
		before := lc.load.now()
		if before >= lc.load.end.Load() {
			return nil
		}
		err := lc.send(lc.window, before, lc.nc.Write)
		now := lc.load.now()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && now >= lc.load.end.Load() {
				return nil
			}
			return lc.broken("write", err)
		}
		lc.total.Add(int64(lc.window))
		if lc.load.measured(now) {
			lc.requests += int64(lc.window)
		}
	}
}

func (lc *loadConn) broken(op string, err error) error {
	return &kwire.ConnError{Addr: lc.conn.Addr(), Op: op, Err: err}
}

// send writes the next n requests of the tape, n at most window, which were due at a time.
func (lc *loadConn) send(n int, due int64, write func([]byte) (int, error)) error {
	first, id := lc.slot, lc.nextID.Load()
	for range n {
		frame := lc.tape[lc.slot*lc.frame:]
		binary.BigEndian.PutUint32(frame[correlationAt:], uint32(id))
		binary.BigEndian.PutUint32(frame[lc.partitionAt:], uint32(lc.partitions[lc.turn]))
		if lc.turn++; lc.turn == len(lc.partitions) {
			lc.turn = 0
		}
		lc.sentAt[int(uint32(id)%uint32(lc.window))] = due
		id++
		if lc.slot++; lc.slot == lc.slots {
			lc.slot = 0
		}
	}
	lc.nextID.Store(id)
	if end := first + n; end > lc.slots {
		if _, err := write(lc.tape[first*lc.frame:]); err != nil {
			return err
		}
		first = 0
	}
	_, err := write(lc.tape[first*lc.frame : lc.tapeEnd()])
	return err
}

// tapeEnd is where the requests end that send numbered last.
func (lc *loadConn) tapeEnd() int {
	if lc.slot == 0 {
		return len(lc.tape)
	}
	return lc.slot * lc.frame
}

// parse takes the whole responses in p and returns how many bytes and responses they are. Answers to requests of one write have one latency and are recorded together.
func (lc *loadConn) parse(p []byte, now int64) (used, answers int, err error) {
	var (
		run      int64 // successes with the latency of sent
		sent     int64
		await    = lc.await.Load()
		next     = lc.nextID.Load()
		paced    = lc.load.rate > 0 // then what was due in the measured time counts, else what was answered in it
		measured = !paced && lc.load.measured(now)
		flush    = func() {
			if run > 0 {
				lc.latency.RecordValues(max((now-sent)/1e3, 1), run)
				lc.requests += run
				run = 0
			}
		}
	)
	for len(p)-used >= 8 {
		frame := 4 + int(binary.BigEndian.Uint32(p[used:]))
		if frame < lc.layout.errorAt+2 || frame > 1<<20 {
			return used, answers, fmt.Errorf("%s: %w: %d bytes for a produce response", lc.conn.Addr(), kwire.ErrFrame, frame)
		}
		if len(p)-used < frame {
			break
		}
		b := p[used : used+frame]
		if id := int32(binary.BigEndian.Uint32(b[4:])); id != await || id == next {
			return used, answers, fmt.Errorf("%s: %w: correlation id %d, wanted %d", lc.conn.Addr(), kwire.ErrFrame, id, await)
		}
		code := int16(binary.BigEndian.Uint16(b[lc.layout.errorAt:]))
		if !lc.seen {
			if err := lc.check(b, code); err != nil {
				return used, answers, err
			}
		}
		t := lc.sentAt[int(uint32(await)%uint32(lc.window))]
		if measured || paced && lc.load.measured(t) {
			if t != sent {
				flush()
				sent = t
			}
			if code == 0 {
				run++
			} else {
				lc.errors[code]++
			}
		}
		await++
		used += frame
		answers++
	}
	flush()
	lc.await.Store(await)
	lc.total.Add(int64(answers))
	return used, answers, nil
}
