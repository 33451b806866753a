package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/kafka"
)

// copyBelow is the size up to which a response is copied into the common buffer, so that many leave in one write.
const copyBelow = kafka.LendAbove

// keptBuffer and keptPieces are the most that a connection keeps of its common buffer, and places for what goes in between, for use again.
const (
	keptBuffer = 64 << 10
	keptPieces = 64
)

// complete takes a ready response to a request of n bytes, lays out all that can leave now, and returns true if a Wake is due.
func (o *outbound) complete(slot uint64, n int, a answered) (wake bool) {
	a.full, a.charged = true, charge(n)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		a.drop()
		return false
	}
	if slot != o.head {
		o.park(slot, a)
		return false
	}
	o.lay(a)
	o.head++
	for len(o.ready) > 0 {
		next := &o.ready[o.head%uint64(len(o.ready))]
		if !next.full {
			break
		}
		o.lay(*next)
		*next = answered{}
		o.head++
	}
	return o.wakes()
}

// silent takes a request of n bytes that has no response.
func (o *outbound) silent(n int, c *kafka.Produce) (wake bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done += charge(n)
	o.reuse(c)
	return o.wakes()
}

// wakes is true for the first who asks since somebody began to send.
func (o *outbound) wakes() bool {
	if o.awake || o.closed {
		return false
	}
	o.awake = true
	o.since = o.now()
	return true
}

// keptProduces is how many answered requests a connection keeps for use again.
const keptProduces = 64

func (o *outbound) reuse(c *kafka.Produce) {
	if len(o.free) < keptProduces && !o.closed {
		c.Reset()
		o.free = append(o.free, c)
		return
	}
	c.Recycle()
}

// park keeps a response that is not yet its turn.
func (o *outbound) park(slot uint64, a answered) {
	if need := slot - o.head + 1; uint64(len(o.ready)) < need {
		grown := make([]answered, max(8, 2*need))
		for i := range uint64(len(o.ready)) {
			at := o.head + i
			grown[at%uint64(len(grown))] = o.ready[at%uint64(len(o.ready))]
		}
		o.ready = grown
	}
	o.ready[slot%uint64(len(o.ready))] = a
}

// lay puts a response behind what is to be sent.
func (o *outbound) lay(a answered) {
	o.done += a.charged
	if a.labels != nil {
		o.tally(pipeline.LevelFetch, a.labels)
	}
	switch {
	case a.produce != nil:
		o.small = a.produce.AppendResponse(o.small)
		if r := &a.produce.Request; r.Err == nil && r.Labels != nil {
			o.tally(r.Level, r.Labels)
		}
		o.reuse(a.produce)
	case len(a.Lent) > 0:
		for _, l := range a.Lent {
			o.pieces = append(o.pieces, piece{bytes: l.Bytes, after: len(o.small) + l.After})
		}
		o.pieces[len(o.pieces)-1].release = a.release
		o.small = append(o.small, a.Small...)
	case len(a.Small) > copyBelow:
		o.pieces = append(o.pieces, piece{bytes: a.Small, after: len(o.small), release: a.release})
	default:
		o.small = append(o.small, a.Small...)
		a.drop()
	}
}

// tally counts an answer that was laid out.
func (o *outbound) tally(level qos.Level, labels *pipeline.Labels) {
	if last := len(o.laid) - 1; last >= 0 && o.laid[last].labels == labels && o.laid[last].level == level {
		o.laid[last].n++
		return
	}
	o.laid = append(o.laid, laid{level: level, labels: labels, n: 1})
}

// drop lets go of a response that is not sent, or that was copied.
func (a *answered) drop() {
	if a.produce != nil {
		a.produce.Recycle()
	}
	if a.release != nil {
		a.release()
	}
}

// outgoing is what was laid out and leaves together.
type outgoing struct {
	small  []byte
	pieces []piece       // larger ones, in order with small's cuts
	laid   []laid        // what small holds, for the profile
	since  time.Duration // when the first of it was ready
}

// bytes is how many leave.
func (out *outgoing) bytes() int {
	n := len(out.small)
	for i := range out.pieces {
		n += len(out.pieces[i].bytes)
	}
	return n
}

// buffers appends what leaves to bufs, in order.
func (out *outgoing) buffers(bufs [][]byte) [][]byte {
	from := 0
	for _, p := range out.pieces {
		if p.after > from {
			bufs = append(bufs, out.small[from:p.after])
		}
		bufs = append(bufs, p.bytes)
		from = p.after
	}
	if from < len(out.small) {
		bufs = append(bufs, out.small[from:])
	}
	return bufs
}

// take begins a sending: what it returns is the caller's until sent. o.mu is held.
func (o *outbound) take() outgoing {
	out := o.outgoing
	o.outgoing, o.spare = o.spare, outgoing{}
	o.sending, o.awake = true, false
	return out
}

// sent ends a sending and keeps its memory for use again. It returns true if the IO goroutine came meanwhile and has to come once more. o.mu is held.
func (o *outbound) sent(out outgoing, behind bool) (again bool) {
	clear(out.pieces)
	clear(out.laid)
	if cap(out.small) > keptBuffer {
		out.small = nil
	}
	if cap(out.pieces) > keptPieces {
		out.pieces = nil
	}
	o.spare = outgoing{small: out.small[:0], pieces: out.pieces[:0], laid: out.laid[:0]}
	again = o.again
	o.sending, o.behind, o.again = false, behind, false
	return again
}

// flush hands everything that can leave to the transport, or to a goroutine that sends large answers. It returns false when the connection is lost. IO goroutine.
func (s *Session) flush(io ioConn) bool {
	o := &s.out
	o.mu.Lock()
	done := o.done
	o.done = 0
	if len(s.free) == 0 {
		s.free, o.free = o.free, s.free
	}
	if o.sending || len(o.small) == 0 && len(o.pieces) == 0 {
		if o.sending {
			o.again = true
		} else {
			o.awake, o.behind = false, io.Unsent() > 0
		}
		o.mu.Unlock()
		s.refund(done)
		return true
	}
	large := len(o.pieces) > 0 && !o.behind
	out := o.take()
	o.mu.Unlock()
	s.refund(done)
	if large && s.goLarge(out) {
		return true
	}
	bufs := out.buffers(s.bufs[:0])
	// The memory that answers are made in is given back when the client has taken them: what all of them together hold is bounded.
	for i := range out.pieces {
		if out.pieces[i].release != nil {
			s.held = append(s.held, out.pieces[i].release)
		}
	}
	err := io.Send(bufs)
	behind := err == nil && io.Unsent() > 0
	if behind {
		s.keepLater(out.laid, out.since)
	} else {
		s.observeSent(&out)
	}
	if behind || len(s.held) > 0 || len(s.later) > 0 {
		s.tooMuchUnsent(io)
	}
	clear(bufs)
	if s.bufs = bufs[:0]; cap(bufs) > 2*keptPieces {
		s.bufs = nil
	}
	o.mu.Lock()
	o.sent(out, behind)
	o.mu.Unlock()
	if err != nil {
		s.conn.Close()
		return false
	}
	return true
}

// Wake has what is ready sent: by the caller, if nothing stands before it, which saves waking the IO goroutine (ADR 11), or else by the IO goroutine. Not for the IO goroutine itself.
func (s *Session) Wake() {
	if !s.sendNow() {
		s.conn.Wake()
	}
}

// sendNow returns false if the IO goroutine has to come: for what was not sent, or for what it alone may do.
func (s *Session) sendNow() bool {
	o := &s.out
	o.mu.Lock()
	if o.sending || o.behind || o.shared || len(o.pieces) > 0 || s.paused.Load() {
		o.mu.Unlock()
		return false
	}
	if len(o.small) == 0 {
		o.awake = false
		o.mu.Unlock()
		return true
	}
	out := o.take()
	o.mu.Unlock()
	n := s.conn.SendNow(out.small)
	whole := n == len(out.small)
	if whole {
		s.observeSent(&out)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !whole && !o.closed {
		o.putBack(&out, n)
	}
	again := o.sent(out, false)
	return whole && !again
}

// deliver is Wake for who may wait: it sends large answers too, and returns when the client has taken them.
func (s *Session) deliver() {
	o := &s.out
	o.mu.Lock()
	if o.sending || o.behind || len(o.pieces) == 0 {
		o.mu.Unlock()
		s.Wake()
		return
	}
	out := o.take()
	o.mu.Unlock()
	s.delivering.Store(int64(out.bytes()))
	s.sendLarge(out)
}

// goLarge has a goroutine of its own send what was taken; false: the server ends.
func (s *Session) goLarge(out outgoing) bool {
	s.delivering.Store(int64(out.bytes()))
	if s.srv.goCall(func() { s.sendLarge(out) }) {
		return true
	}
	s.delivering.Store(0)
	return false
}

// sendLarge sends what was taken and waits for the client, so that a large answer keeps no IO goroutine from its other connections (ADR 14).
func (s *Session) sendLarge(out outgoing) {
	o := &s.out
	o.mu.Lock()
	shared := o.shared
	o.mu.Unlock()
	if shared || s.paused.Load() { // an answer may be what it waits for, or another connection of its client
		s.conn.Wake()
	}
	err := s.conn.SendAll(s.ctx, out.buffers(nil), s.srv.opts.SendTimeout, func(n int) { s.delivering.Add(-int64(n)) })
	for i := range out.pieces {
		if release := out.pieces[i].release; release != nil {
			release()
		}
	}
	if err != nil { // an answer may have left in part, so nothing may follow: sending stays set
		if errors.Is(err, os.ErrDeadlineExceeded) && s.ctx.Err() == nil {
			s.fail(fmt.Errorf("%w: %d bytes for %v", errNotReading, s.delivering.Load(), s.srv.opts.SendTimeout))
		} else {
			s.conn.Close()
		}
		return
	}
	s.observeSent(&out)
	s.unsent.Store(0)
	o.mu.Lock()
	again := o.sent(out, false) || o.shared
	o.mu.Unlock()
	s.hasTaken()
	if again || s.paused.Load() {
		s.conn.Wake()
	}
}

// backlog is what sendLarge has not sent yet, and what was laid out behind it: bytes.
func (s *Session) backlog() int {
	n := int(s.delivering.Load())
	if n == 0 {
		return 0
	}
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	return n + o.bytes()
}

// putBack lays all but the first n bytes of what was to be sent before what was laid out since. o.mu is held.
func (o *outbound) putBack(out *outgoing, n int) {
	rest := out.small[n:]
	for i := range o.pieces {
		o.pieces[i].after += len(rest)
	}
	o.small, o.laid = append(rest, o.small...), append(out.laid, o.laid...)
	o.since, o.awake = out.since, true
	out.small, out.laid = nil, nil
}

// observeSent adds the time of answers up that the socket has taken.
func (s *Session) observeSent(out *outgoing) {
	if len(out.laid) == 0 {
		return
	}
	took := s.out.now() - out.since
	for _, l := range out.laid {
		s.srv.pipeline.Observe(l.level, l.labels, pipeline.SocketWrite, l.n, took)
	}
}

// close drops what was not sent.
func (o *outbound) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for i := range o.ready {
		o.ready[i].drop()
	}
	for _, p := range o.pieces {
		if p.release != nil {
			p.release()
		}
	}
	o.ready, o.small, o.pieces, o.free = nil, nil, nil, nil
}

// Complete takes an answered Produce from the respond stage.
func (s *Session) Complete(c *kafka.Produce) (wake bool) {
	if c.Acks != 0 {
		return s.out.complete(c.Slot, c.FrameBytes, answered{produce: c})
	}
	if c.Failed() {
		s.fail(errOneWayFailed)
	}
	return s.out.silent(c.FrameBytes, c)
}

// unsent says whether a response waits for its Turn.
func (o *outbound) unsent() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sending || len(o.small) > 0 || len(o.pieces) > 0
}
