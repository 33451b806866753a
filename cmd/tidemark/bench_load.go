package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// What a request costs the client, so that the figures are the broker's: each connection has one goroutine and a *tape* of encoded requests, back
// to back. A turn is one read, which may bring several responses; a look at each (length, correlation id, error code, at known places); and one
// write of as many requests as were answered, straight from the tape, with nothing changed but their correlation ids. The clock is read once a turn.
// Nothing is allocated.

const (
	benchReadBytes = 64 << 10
	// benchDrain is how long answers may still come after the end; later ones are reported as unanswered.
	benchDrain = 10 * time.Second

	correlationAt = 8 // in a request frame: length 4, key 2, version 2
)

// load is a set of driven connections.
type load struct {
	conns  []*loadConn
	oneWay bool

	begin     time.Time // times below are ns since it
	from, end atomic.Int64
}

// loadConn is one connection and its tape.
type loadConn struct {
	// immutable once the load runs
	load    *load
	conn    *kwire.Conn
	nc      net.Conn
	tape    []byte
	frame   int // bytes of one request; all on the tape are alike
	slots   int // requests on the tape
	window  int
	layout  responseLayout
	request *kmsg.ProduceRequest // what the tape's requests are, for decoding the first answer in full

	// the driving goroutine's
	slot   int   // next one on the tape
	nextID int32 // of the next request
	await  int32 // of the next answer
	sentAt []int64
	in     []byte
	have   int
	seen   bool // the layout was checked against a full decode

	// the driving goroutine's, read by others after it ended
	latency    *hdrhistogram.Histogram // µs
	requests   int64                   // answered without error inside the measured window
	errors     map[int16]int64         // inside the measured window
	unanswered int

	total atomic.Int64 // all answers so far; for the progress line
}

// responseLayout is where the error code of the one partition stands in a response frame: its length, correlation id, (tags,) topic
// count, name and partition count have known sizes.
type responseLayout struct {
	errorAt int
}

func newResponseLayout(version int16, topic string) responseLayout {
	if version >= 9 {
		return responseLayout{4 + 4 + 1 + 1 + uvarintBytes(len(topic)+1) + len(topic) + 1 + 4}
	}
	return responseLayout{4 + 4 + 4 + 2 + len(topic) + 4 + 4}
}

func uvarintBytes(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) }

// newLoad opens the connections and encodes their tapes. Connections are spread over the targets' leaders; each writes to partitions of its own leader in turn.
func newLoad(ctx context.Context, c *BenchProduceCmd, acks int16, targets []benchTarget) (*load, error) {
	l := &load{oneWay: acks == 0}
	digits := 3
	if c.Connections > 256 {
		digits = 2 // a histogram of three digits takes 170 KB
	}
	random := rand.NewChaCha8([32]byte{'t', 'i', 'd', 'e'})
	for i := range c.Connections {
		lc := &loadConn{
			load: l, slots: c.slots(), window: c.InFlight,
			sentAt:  make([]int64, c.InFlight),
			in:      make([]byte, benchReadBytes),
			latency: hdrhistogram.New(1, (10 * time.Minute).Microseconds(), digits),
			errors:  make(map[int16]int64),
		}
		l.conns = append(l.conns, lc)
		if err := lc.prepare(ctx, c, acks, targets, i, random); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// prepare dials and encodes.
func (lc *loadConn) prepare(ctx context.Context, c *BenchProduceCmd, acks int16, targets []benchTarget, i int, random *rand.ChaCha8) error {
	first := targets[i%len(targets)]
	conn, err := dialOne(ctx, first.addr)
	if err != nil {
		return err
	}
	lc.conn, lc.nc = conn, conn.NetConn()
	var own []int32
	for j := range targets {
		if t := targets[(i+j)%len(targets)]; t.leader == first.leader {
			own = append(own, t.partition)
		}
	}
	for slot := range lc.slots {
		batch, err := randomBatch(c.RecordsPerBatch, c.RecordBytes, random)
		if err != nil {
			return err
		}
		req := kmsg.NewPtrProduceRequest()
		req.Acks = acks
		req.TimeoutMillis = int32(benchTimeout.Milliseconds())
		req.Topics = []kmsg.ProduceRequestTopic{{
			Topic:      c.Topic,
			Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: own[slot%len(own)], Records: batch}},
		}}
		if err := conn.Negotiate(req, producedVersionMax); err != nil {
			return err
		}
		before := len(lc.tape)
		lc.tape = conn.AppendRequest(lc.tape, req, 0)
		if lc.frame == 0 {
			lc.frame = len(lc.tape)
			lc.tape = append(make([]byte, 0, lc.slots*lc.frame), lc.tape...)
		}
		if len(lc.tape)-before != lc.frame {
			return fmt.Errorf("request of %d bytes on a tape of %d", len(lc.tape)-before, lc.frame)
		}
		lc.request = req
	}
	lc.layout = newResponseLayout(lc.request.Version, c.Topic)
	return nil
}

// randomBatch is a batch of records with random values and no keys.
func randomBatch(records, valueBytes int, random *rand.ChaCha8) ([]byte, error) {
	var b kwire.BatchBuilder
	value := make([]byte, valueBytes)
	now := time.Now().UnixMilli()
	for range records {
		random.Read(value)
		b.Append(kwire.Record{Value: value, Timestamp: now})
	}
	return b.AppendTo(nil, kwire.NoProducer, nil)
}

// run drives all connections through warm-up and measurement. When ctx ends it stops early, and what was measured stands.
func (l *load) run(ctx context.Context, warmup, duration time.Duration) error {
	defer l.close()
	l.begin = time.Now()
	l.from.Store(int64(warmup))
	l.end.Store(int64(warmup + duration))
	failed := make(chan error, len(l.conns))
	var drivers sync.WaitGroup
	for _, lc := range l.conns {
		drivers.Go(func() {
			if err := lc.drive(); err != nil {
				failed <- err
			}
		})
	}
	var err error
	timer := time.NewTimer(warmup + duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		l.end.Store(l.now())
		l.from.Store(min(l.from.Load(), l.end.Load()))
	case err = <-failed:
		l.end.Store(0)
	}
	deadline := time.Now().Add(benchDrain)
	if err != nil || l.oneWay {
		deadline = time.Now()
	}
	for _, lc := range l.conns {
		lc.nc.SetDeadline(deadline)
	}
	drivers.Wait()
	if err == nil {
		select {
		case err = <-failed:
		default:
		}
	}
	return err
}

func (l *load) close() {
	for _, lc := range l.conns {
		if lc.conn != nil {
			lc.conn.Close()
		}
	}
}

// now is ns since the load began.
func (l *load) now() int64 { return int64(time.Since(l.begin)) }

func (l *load) measured(now int64) bool { return now >= l.from.Load() && now < l.end.Load() }

// answered is the number of answers so far; of one-way, of requests sent.
func (l *load) answered() (sum int64) {
	for _, lc := range l.conns {
		sum += lc.total.Load()
	}
	return sum
}

// anyError is a code that was answered, 0 if none was.
func (l *load) anyError() int16 {
	for _, lc := range l.conns {
		for code := range lc.errors {
			return code
		}
	}
	return 0
}

// drive is the loop of one connection.
func (lc *loadConn) drive() error {
	if lc.load.oneWay {
		return lc.pour()
	}
	now := lc.load.now()
	if err := lc.send(lc.window, now); err != nil {
		return lc.broken("write", err)
	}
	for lc.nextID != lc.await {
		n, err := lc.nc.Read(lc.in[lc.have:])
		now = lc.load.now()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && now >= lc.load.end.Load() {
				lc.unanswered = int(lc.nextID - lc.await)
				return nil
			}
			return lc.broken("read", err)
		}
		lc.have += n
		answers, err := lc.parse(now)
		if err != nil {
			return err
		}
		if answers == 0 || now >= lc.load.end.Load() {
			continue
		}
		if err := lc.send(answers, now); err != nil {
			return lc.broken("write", err)
		}
	}
	return nil
}

// pour drives one-way: it writes as fast as TCP takes it.
func (lc *loadConn) pour() error {
	for {
		before := lc.load.now()
		if before >= lc.load.end.Load() {
			return nil
		}
		err := lc.send(lc.window, before)
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

// send writes the next n requests of the tape, n at most window, at once.
func (lc *loadConn) send(n int, now int64) error {
	first := lc.slot
	for range n {
		binary.BigEndian.PutUint32(lc.tape[lc.slot*lc.frame+correlationAt:], uint32(lc.nextID))
		lc.sentAt[int(uint32(lc.nextID)%uint32(lc.window))] = now
		lc.nextID++
		if lc.slot++; lc.slot == lc.slots {
			lc.slot = 0
		}
	}
	if end := first + n; end <= lc.slots {
		_, err := lc.nc.Write(lc.tape[first*lc.frame : end*lc.frame])
		return err
	}
	around := net.Buffers{lc.tape[first*lc.frame:], lc.tape[:lc.slot*lc.frame]}
	_, err := around.WriteTo(lc.nc)
	return err
}

// parse takes the whole responses in the buffer and returns their number. Answers to requests of one write have one latency and are recorded together.
func (lc *loadConn) parse(now int64) (answers int, err error) {
	var (
		at       int
		run      int64 // successes with the latency of sent
		sent     int64
		measured = lc.load.measured(now)
		flush    = func() {
			if run > 0 {
				lc.latency.RecordValues(max((now-sent)/1e3, 1), run)
				lc.requests += run
				run = 0
			}
		}
	)
	for lc.have-at >= 8 {
		frame := 4 + int(binary.BigEndian.Uint32(lc.in[at:]))
		if frame < lc.layout.errorAt+2 || frame > 1<<20 {
			return 0, fmt.Errorf("%s: %w: %d bytes for a produce response", lc.conn.Addr(), kwire.ErrFrame, frame)
		}
		if lc.have-at < frame {
			if frame > len(lc.in) {
				lc.in = append(lc.in, make([]byte, frame-len(lc.in))...)
			}
			break
		}
		b := lc.in[at : at+frame]
		if id := int32(binary.BigEndian.Uint32(b[4:])); id != lc.await {
			return 0, fmt.Errorf("%s: %w: correlation id %d, wanted %d", lc.conn.Addr(), kwire.ErrFrame, id, lc.await)
		}
		code := int16(binary.BigEndian.Uint16(b[lc.layout.errorAt:]))
		if !lc.seen {
			if err := lc.check(b, code); err != nil {
				return 0, err
			}
		}
		if measured {
			if t := lc.sentAt[int(uint32(lc.await)%uint32(lc.window))]; t != sent {
				flush()
				sent = t
			}
			if code == 0 {
				run++
			} else {
				lc.errors[code]++
			}
		}
		lc.await++
		at += frame
		answers++
	}
	flush()
	lc.have = copy(lc.in, lc.in[at:lc.have])
	lc.total.Add(int64(answers))
	return answers, nil
}

// check decodes the first response in full, to be sure that the layout is as assumed.
func (lc *loadConn) check(frame []byte, code int16) error {
	kresp, err := kwire.Decode(lc.request, frame[8:])
	if err != nil {
		return fmt.Errorf("%s: %w", lc.conn.Addr(), err)
	}
	topics := kresp.(*kmsg.ProduceResponse).Topics
	if len(topics) != 1 || len(topics[0].Partitions) != 1 || topics[0].Partitions[0].ErrorCode != code {
		return fmt.Errorf("%s: %w: a produce response that is not for one partition", lc.conn.Addr(), kwire.ErrFrame)
	}
	lc.seen = true
	return nil
}

// codeName is a Kafka error's name.
func codeName(code int16) string { return kerr.TypedErrorForCode(code).Message }
