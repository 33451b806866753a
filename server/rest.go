package server

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/qos"
	"tidemark/server/kafka"
)

// restBeats is after how many heartbeats with nothing in between a connection is at rest.
const restBeats = 2

// atRest says whether heartbeats, and nothing else, have come for a while, nothing is in flight, and no policy says anything of the client: they can then be answered past the session. IO goroutine.
func (s *Session) atRest(io ioConn) bool {
	if s.beats < restBeats || s.paused.Load() || s.dead.Load() || s.calls.waiting.Load() > 0 || s.in.partial() || s.limits.says != nil || s.limits.share != nil || io.Unsent() > 0 {
		return false
	}
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.head == s.slot && !o.sending && len(o.small) == 0 && len(o.pieces) == 0
}

// beatAtRest appends the answer to what has come if that is one heartbeat and no more, and policies still hold. Anything else is the IO goroutine's. The goroutine that has the connection at rest calls it.
func (s *Session) beatAtRest(dst, p []byte, policies *qos.Policies) ([]byte, bool) {
	if len(p) < 4 || int64(binary.BigEndian.Uint32(p)) != int64(len(p)-4) || s.dead.Load() || s.srv.draining.Load() || policies != s.srv.broker.Policies() {
		return dst, false
	}
	var h kafka.Header
	if h.Parse(p[4:]) != nil || kmsg.Key(h.Key) != kmsg.Heartbeat || string(h.ClientID) != s.who.Load().ID {
		return dst, false
	}
	resp, ok := s.srv.broker.TryHeartbeat(h)
	if !ok {
		return dst, false
	}
	return kafka.AppendResponse(dst, h.CorrelationID, resp), true
}
