package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// How lines keep their order, and are stored once, when requests are pipelined and some are refused:
//
// Every batch carries a producer id and a sequence (all levels but one-way), so when the broker refuses batch k of a partition it
// refuses those behind it too, with OUT_OF_ORDER_SEQUENCE_NUMBER. The partition then *rewinds*: nothing more is sent for it until all that was on
// the wire is answered, then everything goes out again from batch k, in order. The same after a broken connection, where batches may have been stored: the
// broker knows their sequences and answers without storing them twice. It remembers five batches of a producer, hence --in-flight is at most 5.
//
// A broker accepts any first sequence of a producer that it does not know, so pipelining starts only when one batch of the partition was
// acknowledged on this connection; before that a refused first batch could be overtaken by the second.
//
// REQUEST_TIMED_OUT is the one answer that leaves it open whether lines are stored: it is reported, and ends the run.
//
// One goroutine (run) owns everything here; one more a connection only reads responses and passes them on.

const (
	producedVersionMax = 9 // the last Produce version without surprises for raw clients: 13 wants topic ids
	initProducerIDMax  = 4

	backoffMin = 50 * time.Millisecond
	backoffMax = time.Second
	// answerGrace is how much longer than --timeout the broker may take to answer before the connection is given up.
	answerGrace = 5 * time.Second
)

// retriable refusals: nothing was stored, or the sequence makes another try harmless.
var retriable = map[int16]bool{
	kerr.UnknownTopicOrPartition.Code:      true, // stale metadata; looked up again, and fatal there
	kerr.LeaderNotAvailable.Code:           true,
	kerr.NotLeaderForPartition.Code:        true,
	kerr.BrokerNotAvailable.Code:           true,
	kerr.ReplicaNotAvailable.Code:          true,
	kerr.NetworkException.Code:             true,
	kerr.NotEnoughReplicas.Code:            true,
	kerr.NotEnoughReplicasAfterAppend.Code: true,
	kerr.KafkaStorageError.Code:            true,
	kerr.FencedLeaderEpoch.Code:            true,
	kerr.UnknownLeaderEpoch.Code:           true,
	kerr.ThrottlingQuotaExceeded.Code:      true,
}

// producer sends the batches of one topic.
type producer struct {
	// immutable
	flags    ClientFlags
	topic    string
	acks     int16
	inFlight int
	timeout  time.Duration
	batcher  *batcher
	parts    []*partition
	onAck    func(b *batch) // may be nil

	control   *kwire.Conn // for metadata; nil when it broke
	brokers   map[int32]string
	links     map[int32]*link
	events    chan linkEvent
	done      chan struct{} // closed when run ends: readers stop
	readers   sync.WaitGroup
	stale     bool      // look the leaders up again
	staleNext time.Time // not before this
	turn      int

	err      error // the first fatal error; then nothing more is sent
	stopping bool  // interrupted; then nothing more is sent either

	// what happened
	linesRead int64
	acked     int64
	ackedSize int64 // payload bytes
	uncertain int64 // possibly stored
	latency   *hdrhistogram.Histogram
}

func (p *producer) oneWay() bool { return p.acks == 0 }

// run sends what comes until the input ends, ctx ends, or something is fatal; then it waits for what is in flight.
func (p *producer) run(ctx context.Context, input <-chan lineChunk) error {
	defer p.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	inputDone := false
	for {
		now := time.Now()
		if p.err == nil && !p.stopping {
			p.fatal(p.batcher.closeDue(now))
			if inputDone {
				p.fatal(p.batcher.closeAll())
			}
			p.dispatch(now)
		}
		if p.finished(inputDone) {
			return p.finish()
		}
		chunks := input
		if inputDone || p.err != nil || p.stopping || p.backlogged() {
			chunks = nil
		}
		interrupt := ctx.Done()
		if p.stopping {
			interrupt = nil
		}
		timer.Reset(p.nextWake(now).Sub(now))
		select {
		case chunk := <-chunks:
			inputDone = chunk.err != nil
			p.take(chunk)
		case ev := <-p.events:
			p.handle(ev)
		case <-interrupt:
			p.stopping = true
		case <-timer.C:
			p.expire(time.Now())
		}
	}
}

// take batches the lines of a chunk. A line that is too long ends the run: the lines before it that share its batches are not sent.
func (p *producer) take(chunk lineChunk) {
	now := time.Now()
	oversize := int64(0)
	for i, line := range chunk.lines {
		number := chunk.first + int64(i)
		p.linesRead = number
		if err := p.batcher.add(number, line, now); errors.Is(err, errOversize) {
			oversize = number
			break
		} else if err != nil {
			p.fatal(err)
			return
		}
	}
	var long *longLineError
	switch {
	case oversize > 0:
	case errors.As(chunk.err, &long):
		oversize, p.linesRead = long.line, long.line
	case chunk.err != nil && !errors.Is(chunk.err, io.EOF):
		p.fatal(fmt.Errorf("reading line %d: %w", p.linesRead+1, chunk.err))
		return
	default:
		return
	}
	first, dropped := p.batcher.dropOpen()
	with := ""
	if dropped > 0 {
		with = fmt.Sprintf(", nor were %d lines before it that waited for their batches, from line %d on", dropped, first)
	}
	p.fatal(fmt.Errorf("line %d makes a record larger than the %d bytes that topic %q takes; it was not sent%s; raise the topic's max.message.bytes or shorten the line",
		oversize, p.batcher.bytesMax, p.topic, with))
}

// fatal keeps the first error and drops what is not on the wire.
func (p *producer) fatal(err error) {
	if err != nil && p.err == nil {
		p.err = err
	}
}

func (p *producer) finished(inputDone bool) bool {
	stopped := p.err != nil || p.stopping
	if !stopped && !inputDone {
		return false
	}
	for _, part := range p.parts {
		if part.flying > 0 || !stopped && (part.open != nil || len(part.queue) > 0) {
			return false
		}
	}
	return true
}

// finish makes sure, for one-way, that the broker has read everything: it answers in order, so an answered ApiVersions is behind all of it.
func (p *producer) finish() error {
	if !p.oneWay() || p.err != nil {
		return p.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	for _, l := range p.links {
		fence, err := l.conn.Send(ctx, kmsg.NewPtrApiVersionsRequest())
		if err != nil {
			return fmt.Errorf("one-way: some of the lines may not have been received: %w", err)
		}
		for answered := false; !answered; {
			select {
			case ev := <-p.events:
				if ev.err != nil {
					return fmt.Errorf("one-way: some of the lines may not have been received: %w", ev.err)
				}
				answered = ev.link == l && ev.resp.CorrelationID == fence
			case <-ctx.Done():
				return fmt.Errorf("one-way: %s did not confirm that it has read everything: %w", l.conn.Addr(), ctx.Err())
			}
		}
	}
	return nil
}

// backlogged says that enough batches wait; the input is left alone until some are gone.
func (p *producer) backlogged() bool {
	waiting := 0
	for _, part := range p.parts {
		waiting += part.unsent()
	}
	return waiting >= 2*p.inFlight+len(p.parts)
}

// nextWake is when something is due that no event announces.
func (p *producer) nextWake(now time.Time) time.Time {
	wake := now.Add(time.Minute)
	sooner := func(t time.Time) {
		if t.Before(wake) {
			wake = t
		}
	}
	for _, l := range p.links {
		if len(l.flying) > 0 {
			sooner(l.flying[0].b.sentAt.Add(p.timeout + answerGrace))
		}
	}
	if p.err != nil || p.stopping {
		return wake
	}
	for _, part := range p.parts {
		switch {
		case len(part.queue) > 0 && part.flying == 0 && part.notBefore.After(now):
			sooner(part.notBefore)
		case part.open != nil && part.unsent() == 0:
			sooner(part.open.openedAt.Add(p.batcher.linger))
		}
	}
	if p.stale {
		sooner(p.staleNext)
	}
	return wake
}

// expire gives up connections whose oldest request has gone without an answer for too long.
func (p *producer) expire(now time.Time) {
	for _, l := range p.links {
		if len(l.flying) > 0 && now.After(l.flying[0].b.sentAt.Add(p.timeout+answerGrace)) {
			p.fatal(fmt.Errorf("%s: no answer within %s; possibly stored", l.flying[0].b.lines(), p.timeout+answerGrace))
			p.lost(l, now, &kwire.ConnError{Addr: l.conn.Addr(), Op: "read", Err: context.DeadlineExceeded})
		}
	}
}

// dispatch sends whatever may go now, partitions in turn.
func (p *producer) dispatch(now time.Time) {
	if p.stale && !now.Before(p.staleNext) {
		p.lookUp(now)
	}
	for again := true; again && p.err == nil; {
		again = false
		p.turn++
		for i := range p.parts {
			part := p.parts[(p.turn+i)%len(p.parts)]
			b := part.ready(now, p.oneWay())
			if b == nil {
				continue
			}
			if b.firstSend.IsZero() {
				b.firstSend = now
			}
			if part.lastErr != nil && now.Sub(b.firstSend) > p.timeout {
				p.fatal(fmt.Errorf("topic %q partition %d: %s: gave up after %s: %w", p.topic, part.id, b.lines(), p.timeout, part.lastErr))
				return
			}
			l := p.linkTo(part, now)
			if l == nil || len(l.flying) >= p.inFlight {
				continue
			}
			p.send(l, b, now)
			again = true
		}
	}
}

// send writes one batch as one request.
func (p *producer) send(l *link, b *batch, now time.Time) {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = p.acks
	req.TimeoutMillis = int32(p.timeout.Milliseconds())
	req.Topics = []kmsg.ProduceRequestTopic{{
		Topic:      p.topic,
		Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: b.part.id, Records: b.wire}},
	}}
	if err := l.conn.Negotiate(req, producedVersionMax); err != nil {
		p.fatal(err)
		return
	}
	b.sentAt = now
	b.part.sent++
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	id, err := l.conn.Send(ctx, req)
	if p.oneWay() {
		if err != nil {
			p.fatal(fmt.Errorf("%s: %w; one-way has no answers, so some of the lines before may be lost too", b.lines(), err))
			return
		}
		b.part.queue, b.part.sent = b.part.queue[1:], b.part.sent-1
		p.count(b)
		return
	}
	b.part.flying++
	l.flying = append(l.flying, flight{id: id, req: req, b: b})
	if err != nil {
		p.lost(l, now, err)
	}
}

func (p *producer) count(b *batch) {
	p.acked += int64(b.records)
	p.ackedSize += int64(b.payload)
	if p.onAck != nil {
		p.onAck(b)
	}
}

// handle takes what a reader passed on.
func (p *producer) handle(ev linkEvent) {
	l := ev.link
	if p.links[l.node] != l {
		return // given up already
	}
	if ev.err != nil {
		if p.oneWay() {
			p.fatal(fmt.Errorf("one-way has no answers, so some of the lines may be lost: %w", ev.err))
		}
		p.lost(l, ev.at, ev.err)
		return
	}
	if len(l.flying) == 0 || l.flying[0].id != ev.resp.CorrelationID {
		p.fatal(fmt.Errorf("%s: %w: correlation id %d answers nothing that waits for an answer", l.conn.Addr(), kwire.ErrFrame, ev.resp.CorrelationID))
		p.lost(l, ev.at, p.err)
		return
	}
	f := l.flying[0]
	l.flying = l.flying[1:]
	f.b.part.flying--
	answer, err := producedPartition(f, ev.resp.Body)
	if err != nil {
		p.fatal(fmt.Errorf("%s: %w", l.conn.Addr(), err))
		return
	}
	p.settle(f.b, answer, ev.at)
}

// producedPartition decodes the answer for the one partition of a request.
func producedPartition(f flight, body []byte) (*kmsg.ProduceResponseTopicPartition, error) {
	kresp, err := kwire.Decode(f.req, body)
	if err != nil {
		return nil, err
	}
	resp := kresp.(*kmsg.ProduceResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != f.b.part.id {
		return nil, fmt.Errorf("%w: the answer is not for partition %d", kwire.ErrFrame, f.b.part.id)
	}
	return &resp.Topics[0].Partitions[0], nil
}

// settle acts on the answer to a batch.
func (p *producer) settle(b *batch, answer *kmsg.ProduceResponseTopicPartition, now time.Time) {
	part, code := b.part, answer.ErrorCode
	oldest := len(part.queue) > 0 && part.queue[0] == b
	message := ""
	if answer.ErrorMessage != nil {
		message = *answer.ErrorMessage
	}
	refused := func(note string) error {
		return fmt.Errorf("topic %q partition %d: %s%s: %w", p.topic, part.id, b.lines(), note, withMessage(kerr.ErrorForCode(code), message))
	}
	switch {
	case code == 0 || code == kerr.DuplicateSequenceNumber.Code:
		at := slices.Index(part.queue, b)
		for _, earlier := range part.queue[:at] { // answers come in order, so these were refused
			if !earlier.maybeStored {
				p.fatal(fmt.Errorf("topic %q partition %d: %s: stored, although %s before were refused: the order is broken", p.topic, part.id, b.lines(), earlier.lines()))
			}
		}
		part.queue = slices.Delete(part.queue, at, at+1)
		part.sent--
		part.proven, part.backoff, part.lastErr = true, 0, nil
		p.count(b)
		p.latency.RecordValue(max(now.Sub(b.firstSend).Microseconds(), 1))
	case code == kerr.RequestTimedOut.Code:
		p.uncertain += int64(b.records)
		p.fatal(refused(" possibly stored, not sent again"))
	case code == kerr.OutOfOrderSequenceNumber.Code && !oldest:
		part.rewind = true // it follows the refusal of an earlier one, which has set the pause
	case retriable[code]:
		p.stale = true
		b.maybeStored = b.maybeStored || code == kerr.NotEnoughReplicasAfterAppend.Code
		part.refuse(now, refused(""))
	default:
		p.fatal(refused(""))
	}
}
