package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/kafka"
)

// inbound cuts a byte stream into frames. IO goroutine only.
//
// A Produce that is there as a whole stays in the transport's buffer until the write stage has copied it into the stream, in the same turn, or, if that is held up, until submitAll copies it to memory that the request holds; other requests are copied
// at once. A frame that comes in pieces is gathered in a chunk of its own, which grows with what has come, so that
// announcing many bytes costs the server nothing.
type inbound struct {
	prefix  [4]byte
	prefixN int    // bytes of a length prefix that was cut off
	part    []byte // of a frame that was cut off: what has come
	chunk   *chunk // that holds part, once it is large
	whole   int    // its size; 0: there is none
	backlog []byte // read while paused
	behind  bool   // a frame waits: a Produce for the calls before it, or any for its client's debt or bytes in flight
}

var (
	errFrameSize    = errors.New("request frame's announced size is out of range")
	errOneWayFailed = errors.New("a request with acks=0 came to nothing; closing is the only answer it can have")
)

// feed takes bytes in. When the session has to pause it keeps the rest.
func (in *inbound) feed(s *Session, p []byte) {
	for (len(p) > 0 || in.gathered()) && !s.dead.Load() && !s.srv.draining.Load() {
		if s.overBudget() || s.limits.share.over() || s.throttled() {
			in.keep(p)
			in.behind = in.behind || in.gathered() // what stopped it may have passed when endData looks: a frame waits, so Turn has to come
			return
		}
		var ok bool
		if p, ok = in.step(s, p); in.behind {
			in.keep(p)
			return
		} else if !ok {
			return
		}
	}
}

// partial says that a part of a frame is there, or that bytes were put aside.
func (in *inbound) partial() bool { return in.whole > 0 || in.prefixN > 0 || in.held() }

// gathered says that a frame that came in pieces is there as a whole, and waits.
func (in *inbound) gathered() bool { return in.whole > 0 && len(in.part) == in.whole }

// waits says that a frame may not be dispatched yet: a Produce behind a call that is not answered, since Kafka serves a connection's requests one after the other, so that a client may rely on it; or a frame of a client that is in debt.
func (in *inbound) waits(s *Session, frame []byte) bool {
	in.behind = s.calls.waiting.Load() > 0 && len(frame) >= 2 && kmsg.Key(binary.BigEndian.Uint16(frame)) == kmsg.Produce || s.owes(frame)
	return in.behind
}

// step takes one frame, or a piece of one, off p. It returns false when the connection is to be closed.
func (in *inbound) step(s *Session, p []byte) ([]byte, bool) {
	if in.whole > 0 {
		n := min(in.whole-len(in.part), len(p))
		in.gather(p[:n])
		p = p[n:]
		if len(in.part) < in.whole {
			return p, true
		}
		if in.waits(s, in.part) {
			return p, true
		}
		frame, c := in.part, in.chunk
		in.part, in.chunk, in.whole = nil, nil, 0
		if c == nil {
			c = ownChunk(frame)
		}
		return p, s.dispatch(frame, c)
	}
	if in.prefixN > 0 || len(p) < 4 {
		n := copy(in.prefix[in.prefixN:], p)
		in.prefixN += n
		p = p[n:]
		if in.prefixN < 4 {
			return p, true
		}
		in.prefixN = 0
		return p, in.announce(s, in.prefix[:])
	}
	size := int(int32(binary.BigEndian.Uint32(p)))
	if size <= 0 || size > s.srv.opts.RequestMaxBytes || len(p) < 4+size {
		return p[4:], in.announce(s, p)
	}
	if in.waits(s, p[4:4+size]) {
		return p, true
	}
	return p[4+size:], s.dispatch(p[4:4+size:4+size], nil)
}

// announce begins a frame that is not there as a whole.
func (in *inbound) announce(s *Session, prefix []byte) bool {
	size := int(int32(binary.BigEndian.Uint32(prefix)))
	if size <= 0 || size > s.srv.opts.RequestMaxBytes {
		s.fail(fmt.Errorf("%w: %d bytes, request.max is %d", errFrameSize, size, s.srv.opts.RequestMaxBytes))
		return false
	}
	in.whole = size
	return true
}

// gatherSmall is the size up to which a frame that comes in pieces gets memory of just its size.
const gatherSmall = 16 << 10

// gather appends to a frame that comes in pieces. It takes at most about eight times what has come, half of that because chunks come in powers of two, and a chunk: more would let a client hold memory by announcing, less would have large frames copied again and again.
func (in *inbound) gather(p []byte) {
	if need := len(in.part) + len(p); need > cap(in.part) {
		want := min(in.whole, max(need, 4*(cap(in.part)-chunkSlack), 4<<10))
		var c *chunk
		var grown []byte
		if want <= gatherSmall {
			grown = make([]byte, 0, want)
		} else {
			c = newChunk(want)
			grown = c.buf[:0:min(len(c.buf), in.whole)]
		}
		grown = append(grown, in.part...)
		if in.chunk != nil {
			in.chunk.Release()
		}
		in.part, in.chunk = grown, c
	}
	in.part = append(in.part, p...)
}

// keep puts bytes aside while the session is paused.
func (in *inbound) keep(p []byte) { in.backlog = append(in.backlog, p...) }

// held says whether bytes were put aside.
func (in *inbound) held() bool { return len(in.backlog) > 0 || in.behind }

// resume goes on with what was put aside.
func (in *inbound) resume(s *Session) {
	p := in.backlog
	in.backlog, in.behind = nil, false
	in.feed(s, p)
}

func (in *inbound) drop() {
	if in.chunk != nil {
		in.chunk.Release()
	}
	in.part, in.chunk, in.backlog, in.whole = nil, nil, nil, 0
}

// dispatch takes one frame. c holds its bytes; without it they are the transport's, and what is to outlive this turn is copied. It returns false when the connection is to be closed.
func (s *Session) dispatch(frame []byte, c *chunk) bool {
	var h kafka.Header
	err := h.Parse(frame)
	if err == nil && kmsg.Key(h.Key) == kmsg.Produce {
		if ok, _ := kafka.Served(h.Key, h.Version); !ok {
			err = kafka.ErrVersion
		}
	}
	if err != nil {
		s.fail(fmt.Errorf("%w (API key %d, version %d, frame of %d bytes)", err, h.Key, h.Version, len(frame)))
		return false
	}
	s.named(&h)
	if s.beats++; kmsg.Key(h.Key) != kmsg.Heartbeat {
		s.beats = 0
	}
	wait := time.Duration(0)
	if s.limits.says != nil { // which owes has looked up for this frame
		wait = s.srv.broker.TakeRequest(s.limits.says, s.who.Load(), s.now)
		s.throttle(wait)
	}
	if kmsg.Key(h.Key) == kmsg.Produce {
		return s.produce(&h, frame, c, wait)
	}
	if c == nil {
		var own []byte
		own, c = s.arena.copy(frame)
		h.Body = own[len(own)-len(h.Body):]
	}
	s.call(h, c, len(frame), wait)
	return true
}

// named notes the client id of a request.
func (s *Session) named(h *kafka.Header) {
	if !s.turn {
		s.turn, s.client.Turn = true, string(h.ClientID)
	}
	if string(h.ClientID) != s.who.Load().ID {
		who := s.client
		who.ID = string(h.ClientID)
		s.who.Store(&who)
	}
}

// produce decodes and queues a Produce request, whose client has to wait after it.
func (s *Session) produce(h *kafka.Header, frame []byte, c *chunk, wait time.Duration) bool {
	p := s.takeProduce()
	if err := s.srv.broker.DecodeProduce(h, p, s.who.Load(), s.now); err != nil {
		p.Recycle()
		s.fail(fmt.Errorf("%w (Produce version %d, frame of %d bytes)", err, h.Version, len(frame)))
		return false
	}
	p.Sink, p.FrameBytes = s, len(frame)
	p.Throttle = max(p.Throttle, wait)
	s.throttle(p.Throttle)
	s.spend(charge(len(frame)))
	if p.Acks != 0 {
		p.Slot = s.slot
		s.slot++
	}
	if !p.Submits() || s.srv.opts.Null {
		p.Answer(&p.Request)
		return true
	}
	if c == nil {
		p.Body, p.Request.Bytes = h.Body, max(len(frame), copyRoom(len(h.Body)))
	} else {
		p.Buffer, p.Request.Bytes = c, len(c.buf)
	}
	p.Request.Labels = s.labels.of(s.who.Load(), p.Topic(), s.limits.weight())
	s.submit = append(s.submit, &p.Request)
	return true
}

func (s *Session) takeProduce() *kafka.Produce {
	last := len(s.free) - 1
	if last < 0 {
		return kafka.NewProduce()
	}
	p := s.free[last]
	s.free = s.free[:last]
	return p
}
