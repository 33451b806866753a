package server

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/server/kafka"
)

// restBeats is after how many heartbeats with nothing in between a connection is at rest. Clients have 3 s between two of them by default, and commit offsets every 5 s while they consume: those never are.
const restBeats = 3

// atRest says whether heartbeats, and nothing else, have come for a while, nothing is in flight, and no policy limits the client's requests: heartbeats can then be answered past the session. IO goroutine.
func (s *Session) atRest(io ioConn) bool {
	if s.beats < restBeats || s.paused.Load() || s.dead.Load() || s.calls.waiting.Load() > 0 || s.in.partial() || s.limits.share != nil || io.Unsent() > 0 {
		return false
	}
	if e := s.limits.says; e != nil && e.Requests.Rate > 0 {
		return false
	}
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.head == s.slot && !o.sending && len(o.small) == 0 && len(o.pieces) == 0
}

// beatAtRest appends the answer to what has come if that is one heartbeat and no more, and the policies are those that atRest saw. Anything else is the IO goroutine's. The goroutine that has the connection at rest calls it, while the IO goroutine does not touch the session.
func (s *Session) beatAtRest(dst, p []byte) ([]byte, bool) {
	if len(p) < 4 || int64(binary.BigEndian.Uint32(p)) != int64(len(p)-4) || s.dead.Load() || s.srv.draining.Load() || s.limits.set != s.srv.broker.Policies() {
		return dst, false
	}
	var h kafka.Header
	if h.Parse(p[4:]) != nil || kmsg.Key(h.Key) != kmsg.Heartbeat || string(h.ClientID) != s.who.Load().ID {
		return dst, false
	}
	resp, ok := s.srv.broker.TryHeartbeat(h)
	if !ok || resp.ErrorCode != 0 { // behind an error comes something else than heartbeats
		return dst, false
	}
	return kafka.AppendResponse(dst, h.CorrelationID, resp), true
}
