package server

import (
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/kafka"
)

// copyBelow is the size up to which a response is copied into the common buffer, so that many leave in one write.
const copyBelow = 16 << 10

// keptBuffer is the most that a connection keeps of its common buffer for use again.
const keptBuffer = 64 << 10

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

// wakes is true for the first who asks since the last flush.
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
	case len(a.piece.bytes) <= copyBelow:
		o.small = append(o.small, a.piece.bytes...)
		a.drop()
	default:
		a.piece.after = len(o.small)
		o.pieces = append(o.pieces, a.piece)
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
	if a.piece.release != nil {
		a.piece.release()
	}
}

// flush hands everything that can leave to the transport. It returns false when the connection is lost.
func (s *Session) flush(io ioConn) bool {
	o := &s.out
	o.mu.Lock()
	small, pieces, laid, since := o.small, o.pieces, o.laid, o.since
	o.small, o.pieces, o.laid = o.spare[:0], o.taken[:0], o.sent[:0]
	o.awake = false
	done := o.done
	o.done = 0
	if len(s.free) == 0 {
		s.free, o.free = o.free, s.free
	}
	o.mu.Unlock()
	s.refund(done)
	if len(small) == 0 && len(pieces) == 0 {
		o.spare, o.taken, o.sent = small, pieces, laid
		return true
	}
	bufs, from := o.bufs[:0], 0
	for _, p := range pieces {
		if p.after > from {
			bufs = append(bufs, small[from:p.after])
		}
		bufs = append(bufs, p.bytes)
		from = p.after
	}
	if from < len(small) {
		bufs = append(bufs, small[from:])
	}
	// The memory that answers are made in is given back when the client has taken them: what all of them together hold is bounded.
	for i := range pieces {
		if pieces[i].release != nil {
			s.held = append(s.held, pieces[i].release)
		}
	}
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	much := total > s.srv.opts.ConnectionUnsentBytes
	if much {
		s.unsent.Store(int64(total)) // for as long as Send blocks
	}
	err := io.Send(bufs)
	if len(laid) > 0 {
		if err == nil && io.Unsent() > 0 {
			s.keepLater(laid, since)
		} else {
			took := o.now() - since
			for _, l := range laid {
				s.srv.pipeline.Observe(l.level, l.labels, pipeline.SocketWrite, l.n, took)
			}
		}
	}
	if much || len(s.held) > 0 || len(s.later) > 0 {
		s.tooMuchUnsent(io)
	}
	clear(pieces)
	clear(bufs)
	clear(laid)
	o.bufs, o.taken, o.sent = bufs[:0], pieces[:0], laid[:0]
	if o.spare = small[:0]; cap(small) > keptBuffer {
		o.spare = nil
	}
	if err != nil {
		s.conn.Close()
		return false
	}
	return true
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

// Wake has the IO goroutine send what is ready.
func (s *Session) Wake() { s.conn.Wake() }

// unsent says whether a response waits for its Turn.
func (o *outbound) unsent() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.small) > 0 || len(o.pieces) > 0
}
