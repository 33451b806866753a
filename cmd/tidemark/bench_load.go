package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// What a request costs the client, so that the figures are the broker's: each connection has a *tape* of encoded requests, back to back, and an event
// loop for each core drives them all (bench_drive.go). A turn is one read, which may bring several responses; a look at each (length, correlation id,
// error code, at known places); and one write of as many requests as were answered, straight from the tape, with nothing changed but their correlation
// ids and partitions. The clock is read once a turn. Nothing is allocated.

const correlationAt = 8 // in a request frame: length 4, key 2, version 2

// load is a set of driven connections.
type load struct {
	conns  []*loadConn
	oneWay bool
	rate   float64 // requests a second, due at fixed times; 0: as fast as answers come
	back   []*readBack
	late   *hdrhistogram.Histogram // of an open loop: µs between when a request was due and when it was sent

	begin     time.Time // times below are ns since it
	from, end atomic.Int64
}

// loadConn is one connection and its tape.
type loadConn struct {
	// immutable once the load runs
	load                           *load
	conn                           *kwire.Conn
	nc                             net.Conn
	tape                           []byte
	partitionAt, batchAt, batchEnd int // in each request
	stampAt                        int // in each request; 0: it is not stamped; see bench_readback.go
	frame                          int // bytes of one request; all on the tape are alike
	slots                          int // requests on the tape
	window                         int
	layout                         responseLayout
	partitions                     []int32              // that it writes to in turn
	request                        *kmsg.ProduceRequest // what the tape's requests are, for decoding the first answer in full

	// its sender's: the loop's, or the pacer's
	slot   int          // next one on the tape
	turn   int          // the next request's, in partitions
	nextID atomic.Int32 // of the next request; stored after its sentAt, and read by the loop
	sentAt []int64      // ns since the load's begin, by id modulo the window: when it was sent or due

	// its loop's
	await atomic.Int32 // of the next answer; the pacer reads it
	seen  bool         // the layout was checked against a full decode
	ended bool         // all that was sent is answered and nothing more is sent, or it failed

	// its loop's, read by others after the load ended
	latency  *hdrhistogram.Histogram // µs
	requests int64                   // answered without error inside the measured window
	errors   map[int16]int64         // inside the measured window

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
func newLoad(ctx context.Context, c *BenchLoad, acks int16, targets []benchTarget) (*load, error) {
	l := &load{oneWay: acks == 0, rate: c.rate}
	if c.rate > 0 {
		l.late = newLatencyHistogram(3)
	}
	digits := 3
	if c.Connections > 256 {
		digits = 2 // a histogram of three digits takes 170 KB
	}
	random := rand.NewChaCha8([32]byte{'t', 'i', 'd', 'e'})
	for i := range c.Connections {
		lc := &loadConn{
			load: l, slots: c.slots(), window: c.inFlight,
			sentAt:  make([]int64, c.inFlight),
			latency: newLatencyHistogram(digits),
			errors:  make(map[int16]int64),
		}
		l.conns = append(l.conns, lc)
		if err := lc.prepare(ctx, c, acks, targets, i, random); err != nil {
			l.close()
			return nil, err
		}
	}
	if c.readBack {
		if err := l.readBack(ctx, c, targets); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// newLatencyHistogram counts µs up to ten minutes.
func newLatencyHistogram(digits int) *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), digits)
}

// prepare dials and encodes.
func (lc *loadConn) prepare(ctx context.Context, c *BenchLoad, acks int16, targets []benchTarget, i int, random *rand.ChaCha8) error {
	first := targets[i%len(targets)]
	conn, err := c.dialOne(ctx, first.addr)
	if err != nil {
		return err
	}
	lc.conn, lc.nc = conn, conn.NetConn()
	for j := range targets {
		if t := targets[(i+j)%len(targets)]; t.leader == first.leader {
			lc.partitions = append(lc.partitions, t.partition)
		}
	}
	lc.turn = i * len(lc.partitions) / c.Connections // so that few connections do not all begin with the same ones
	for range lc.slots {
		batch, err := randomBatch(c.RecordsPerBatch, c.RecordBytes, random)
		if err != nil {
			return err
		}
		req := kmsg.NewPtrProduceRequest()
		req.Acks = acks
		req.TimeoutMillis = int32(benchTimeout.Milliseconds())
		req.Topics = []kmsg.ProduceRequestTopic{{
			Topic:      c.Topic,
			Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: lc.partitions[0], Records: batch}},
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
	if err := lc.findFields(c.readBack); err != nil {
		return err
	}
	lc.layout = newResponseLayout(lc.request.Version, c.Topic)
	return nil
}

// findFields finds what send and stamp change in the tape's requests.
func (lc *loadConn) findFields(stamped bool) error {
	batch := lc.request.Topics[0].Partitions[0].Records
	frame := lc.tape[len(lc.tape)-lc.frame:]
	lc.batchAt = bytes.LastIndex(frame, batch)
	lc.batchEnd = lc.batchAt + len(batch)
	lc.partitionAt = lc.batchAt - 4 - 4 // the batch's length is between them
	if lc.request.Version >= 9 {
		lc.partitionAt = lc.batchAt - uvarintBytes(len(batch)+1) - 4
	}
	if lc.batchAt < 0 || int32(binary.BigEndian.Uint32(frame[lc.partitionAt:])) != lc.partitions[0] {
		return errors.New("the prepared request does not hold its batch and partition where it should")
	}
	if !stamped {
		return nil
	}
	parsed, err := kwire.ParseBatches(batch)
	if err != nil {
		return err
	}
	lc.stampAt = lc.batchAt + bytes.LastIndex(batch, parsed[0].Unpacked[0].Value)
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

// answered is the number of answers so far; of one-way, of requests sent.
func (l *load) answered() (sum int64) {
	for _, lc := range l.conns {
		sum += lc.total.Load()
	}
	return sum
}

// unanswered is the number of requests without an answer when the load had ended.
func (l *load) unanswered() (sum int) {
	for _, lc := range l.conns {
		sum += lc.outstanding()
	}
	return sum
}

// recordLate adds what was due in the measured time and is not answered. The load has ended.
func (lc *loadConn) recordLate(h *hdrhistogram.Histogram, now int64) {
	for id := lc.await.Load(); id != lc.nextID.Load(); id++ {
		if due := lc.sentAt[int(uint32(id)%uint32(lc.window))]; lc.load.measured(due) {
			_ = h.RecordValue(max((now-due)/1e3, 1)) // past ten minutes: the load itself is shorter
		}
	}
}

// outstanding is the number of requests without an answer.
func (lc *loadConn) outstanding() int { return int(lc.nextID.Load() - lc.await.Load()) }

// anyError is a code that was answered, 0 if none was.
func (l *load) anyError() int16 {
	for _, lc := range l.conns {
		for code := range lc.errors {
			return code
		}
	}
	return 0
}

func (l *load) close() {
	for _, lc := range l.conns {
		if lc.conn != nil {
			lc.conn.Close()
		}
	}
	for _, r := range l.back {
		r.conn.Close()
	}
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
