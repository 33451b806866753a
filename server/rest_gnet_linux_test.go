package server

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/qos"
)

// beating is a connection whose client is the one member of a group, and sends heartbeats.
type beating struct {
	*wire
	beat *kmsg.HeartbeatRequest
}

func startBeating(t *testing.T) beating {
	n := start(t, TransportGnet)
	w := &wire{client: n.dial(t), n: n, topic: "g"}
	member := w.joined(1)
	return beating{w, &kmsg.HeartbeatRequest{Version: 4, Group: "g", Generation: 1, MemberID: member}}
}

func (b beating) beats(want *kerr.Error) {
	b.t.Helper()
	b.code("heartbeat", ask[*kmsg.HeartbeatResponse](b.client, b.beat).ErrorCode, want)
}

// rests sends heartbeats until the connection is at rest.
func (b beating) rests() {
	b.t.Helper()
	for range restBeats {
		b.beats(nil)
	}
	eventually(b.t, "the connection is at rest", func() bool { return b.resting() == 1 })
}

func (b beating) resting() int {
	r := b.n.srv.t.(*gnetTransport).rest
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

func (b beating) stirs(why string) {
	b.t.Helper()
	eventually(b.t, why, func() bool { return b.resting() == 0 })
}

// What is answered at rest, and what comes behind that in any way, is answered once and in order.
func TestHeartbeatsAtRest(t *testing.T) {
	b := startBeating(t)
	for range 3 {
		b.rests()
		for range 10 {
			b.beats(nil)
		}
		if b.resting() != 1 {
			t.Error("heartbeats alone end the rest")
		}

		// Another request.
		ask[*kmsg.MetadataResponse](b.client, &kmsg.MetadataRequest{Version: 12})
		b.stirs("another request ends the rest")

		// Heartbeats and another request at once.
		b.rests()
		meta := &kmsg.MetadataRequest{Version: 12}
		first, second, third := b.NextCorrelationID(), b.NextCorrelationID(), b.NextCorrelationID()
		b.raw(b.AppendRequest(b.AppendRequest(b.AppendRequest(nil, b.beat, first), meta, second), b.beat, third))
		b.receive(b.beat, first)
		b.receive(meta, second)
		b.receive(b.beat, third)

		// A heartbeat in pieces.
		b.rests()
		id := b.NextCorrelationID()
		frame := b.AppendRequest(nil, b.beat, id)
		b.raw(frame[:5])
		b.stirs("a piece of a request ends the rest")
		b.raw(frame[5:])
		b.receive(b.beat, id)

		// A wake-up for another reason.
		b.rests()
		b.n.srv.mu.Lock()
		for s := range b.n.srv.open {
			s.conn.Wake()
		}
		b.n.srv.mu.Unlock()
		b.stirs("the loop's turn ends the rest")
	}
	b.rests()
	other := *b.beat
	other.MemberID = "nobody"
	b.code("another member", ask[*kmsg.HeartbeatResponse](b.client, &other).ErrorCode, kerr.UnknownMemberID)
	b.stirs("a heartbeat whose answer is an error ends the rest")
	d := &wire{client: b.n.dial(t), n: b.n, topic: "g"}
	d.send(&kmsg.JoinGroupRequest{Version: 3, Group: "g", SessionTimeoutMillis: 30_000, RebalanceTimeoutMillis: 30_000, ProtocolType: "consumer",
		Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}})
	eventually(t, "a heartbeat at rest is told of the rebalance", func() bool {
		return ask[*kmsg.HeartbeatResponse](b.client, b.beat).ErrorCode == kerr.RebalanceInProgress.Code
	})
	b.raw([]byte{0xff, 0xff, 0xff, 0xff})
	b.ended("a frame of negative size")
}

// Two heartbeats behind a while of nothing are answered at once, the third at the next look.
func TestLooksAreModerated(t *testing.T) {
	b := startBeating(t)
	b.rests()
	soonest := time.Hour
	for range 10 {
		time.Sleep(3 * restTick) // the client's own pause
		begin := time.Now()
		b.beats(nil)
		second := time.Now()
		b.beats(nil)
		both := time.Since(begin)
		soonest = min(soonest, both)
		b.beats(nil)
		if took := time.Since(second); both < restTick/2 && took < restTick {
			t.Errorf("the third heartbeat was answered %v behind the second: two looks within %v", took, restTick)
		}
	}
	if soonest > restTick*4/5 {
		t.Errorf("two heartbeats took %v at least", soonest)
	}
	if b.resting() != 1 {
		t.Error("heartbeats alone end the rest")
	}
}

// A policy that comes while a connection is at rest holds for its next heartbeat.
func TestPolicyEndsRest(t *testing.T) {
	b := startBeating(t)
	b.rests()
	b.n.set(t, qos.Policy{Name: "others", Client: "others", RequestRate: 20})
	b.beats(nil) // which its loop has again, and may rest behind
	b.rests()
	b.n.set(t, qos.Policy{Name: "slow", Client: "test", RequestRate: 20})
	begin := time.Now()
	for range 40 { // 20 at once
		b.beats(nil)
	}
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("40 requests at 20 a second took %v", took)
	}
	if b.resting() != 0 {
		t.Error("a connection with a rate is at rest")
	}
}

// A client that goes while it is at rest is noticed.
func TestRestEndsWithTheConnection(t *testing.T) {
	b := startBeating(t)
	b.rests()
	b.Close()
	b.stirs("the end of the connection ends the rest")
	eventually(t, "its session is over", func() bool { return b.n.srv.Connections() == 0 })
}

// A client that reads none of its answers has the connection back with its loop, which bounds what is kept for it, when the socket is full.
func TestHeartbeatsThatNobodyReads(t *testing.T) {
	b := startBeating(t)
	b.rests()
	one := b.AppendRequest(nil, b.beat, b.NextCorrelationID())
	b.NetConn().SetWriteDeadline(time.Now().Add(2 * time.Second))
	for sent := 0; sent < 64<<20; {
		n, err := b.NetConn().Write(one)
		if sent += n; err != nil {
			b.stirs("a full socket ends the rest")
			return
		}
	}
	t.Error("64 MiB of heartbeats were taken, and no answer of them was read")
}
