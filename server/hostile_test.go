package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

func TestFrameAByteAtATime(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		var stream []byte
		reqs := []kmsg.Request{produceTo("t", 0, -1, values("slow")), &kmsg.MetadataRequest{Version: 9}, produceTo("t", 0, -1, values("slower"))}
		var ids []int32
		for _, r := range reqs {
			ids = append(ids, c.NextCorrelationID())
			stream = c.AppendRequest(stream, r, ids[len(ids)-1])
		}
		for i := range stream {
			c.raw(stream[i : i+1])
		}
		for i, r := range reqs {
			c.receive(r, ids[i])
		}
		if got := fmt.Sprint(c.read("t", 0)); got != "[slow slower]" {
			t.Errorf("the partition holds %s", got)
		}
	})
}

func TestFrameSizes(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		for _, size := range []uint32{0, 1<<31 - 1, 1 << 31, 1<<32 - 1, testRequestMax + 1} {
			prefix := binary.BigEndian.AppendUint32(nil, size)
			for cut := range 4 { // the prefix comes in two pieces
				c := n.dial(t)
				if cut > 0 {
					c.raw(prefix[:cut])
					runtime.Gosched()
				}
				c.raw(prefix[cut:])
				c.ended(fmt.Sprintf("a frame of %d bytes", int32(size)))
				c.Close()
			}
		}
		// The largest that is taken; and one that is announced and never comes costs next to nothing.
		c := n.dial(t)
		c.create("t", 1)
		req := produceTo("t", 0, -1, nil)
		req.Topics[0].Partitions[0].Records = make([]byte, testRequestMax-(len(c.AppendRequest(nil, req, 1))-4)-2)
		if size := len(c.AppendRequest(nil, req, 1)) - 4; size != testRequestMax {
			t.Fatalf("a frame of %d bytes", size)
		}
		ask[*kmsg.ProduceResponse](c, req)

		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			n.dial(t).raw(append(binary.BigEndian.AppendUint32(nil, testRequestMax), 0))
		}
		c.create("u", 1)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 100*testRequestMax/2 {
			t.Errorf("100 announced frames of %d bytes cost %d bytes", testRequestMax, grown)
		}
	})
}

func TestRandomBytesClose(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		n.dial(t).create("t", 1)
		for seed := range uint64(60) {
			rng := rand.New(rand.NewPCG(seed, 1))
			b := make([]byte, 4+rng.IntN(3000))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			c := n.dial(t)
			switch seed % 3 {
			case 1: // a sound size
				binary.BigEndian.PutUint32(b, uint32(len(b)-4))
			case 2: // and a key and version that are served, but not ApiVersions, which any body will do for
				s := served[[]int{0, 1, 2, 3, 6, 7, 8, 10, 11, 12}[rng.IntN(10)]]
				binary.BigEndian.PutUint32(b, uint32(len(b)-4))
				b = append(b[:4], append([]byte{0, byte(s.key), 0, byte(s.max), 0, 0, 0, 1, 0xff, 0xff, 0}, b[min(len(b), 15):]...)...)
				binary.BigEndian.PutUint32(b, uint32(len(b)-4))
			}
			c.raw(b)
			c.NetConn().(*net.TCPConn).CloseWrite() // it may have announced more
			c.ended(fmt.Sprintf("seed %d: %x", seed, b[:min(len(b), 20)]))
			c.Close()
		}
		if base := n.dial(t).produce("t", 0, -1, values("x")); base != 0 {
			t.Errorf("%d records were written", base)
		}
	})
}

// A client that goes away inside a request leaves nothing behind: no record, no connection.
func TestRequestsCutOff(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		frames := map[string][]byte{
			"produce":  c.AppendRequest(nil, produceTo("t", 0, -1, values("x")), 1),
			"fetch":    c.AppendRequest(nil, fetchFrom("t", 0, 0), 1),
			"metadata": c.AppendRequest(nil, &kmsg.MetadataRequest{Version: 12, Topics: []kmsg.MetadataRequestTopic{{Topic: ptr("t")}}}, 1),
		}
		for name, frame := range frames {
			for cut := range frame {
				d := n.dial(t)
				d.raw(frame[:cut])
				if cut%2 == 0 {
					d.NetConn().(*net.TCPConn).SetLinger(0) // a reset, not an end
				}
				d.Close()
				// The same with a whole frame that is cut off inside: its size says so.
				if cut > 4 && cut%8 == 0 {
					short := bytes.Clone(frame[:cut])
					binary.BigEndian.PutUint32(short, uint32(cut-4))
					d := n.dial(t)
					d.raw(short)
					d.ended(fmt.Sprintf("%s cut off at %d", name, cut))
					d.Close()
				}
			}
		}
		eventually(t, "only one connection is left", func() bool { return n.srv.Connections() == 1 })
		if base := c.produce("t", 0, -1, values("y")); base != 0 {
			t.Errorf("%d records were written", base)
		}
	})
}

// A client over its budget is not read until it is answered; then all goes on, in order and once. Other connections do not wait.
func TestOverBudgetIsNotRead(t *testing.T) {
	const budget, requests, size = 64 << 10, 3000, 8000 // 24 MB: more than the sockets hold, so the client notices too
	each(t, func(t *testing.T, n *node) {
		fence := n.dial(t)
		fence.create("t", 1)
		for round := range 2 {
			c := n.dial(t)
			body := strings.Repeat("x", size)
			frame := len(c.AppendRequest(nil, produceTo("t", 0, 102, values(body)), 1))
			n.gate.Hold()
			first := fence.produce("t", 0, 101, values("fence"))
			done := make(chan error, 2)
			var sent atomic.Int64
			go func() {
				for i := range requests {
					sent.Store(int64(i))
					if _, err := c.Send(t.Context(), produceTo("t", 0, 102, values(fmt.Sprintf("%d/%d/%s", round, i, body)))); err != nil {
						done <- fmt.Errorf("send %d: %w", i, err)
						return
					}
				}
				done <- nil
			}()
			// What the server has taken shows in the fences' base offsets: up to the budget and no further, however often one looks.
			taken, fences := int64(0), int64(0)
			look := func() int64 {
				fences++
				taken = fence.produce("t", 0, 101, values("fence")) - first - fences
				return taken
			}
			eventually(t, "the budget is used up", func() bool { return int(look())*frame > budget-frame })
			for before := int64(-1); before != sent.Load(); { // until the client is held up
				before = sent.Load()
				for range 50 {
					look()
				}
				silent(t, "with the disk held back", c)
			}
			if n := sent.Load(); n == requests-1 {
				t.Errorf("all %d requests were read", requests)
			}
			if look(); int(taken)*frame > budget+frame {
				t.Errorf("%d bytes were taken with a budget of %d", int(taken)*frame, budget)
			}
			n.gate.Release()
			go func() { done <- c.produced(requests) }()
			for range 2 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			next := 0
			for _, v := range fence.read("t", 0) {
				if strings.HasPrefix(v, fmt.Sprintf("%d/", round)) {
					if v != fmt.Sprintf("%d/%d/%s", round, next, body) {
						t.Fatalf("%.20s where %d/%d should be", v, round, next)
					}
					next++
				}
			}
			if next != requests {
				t.Errorf("%d records, want %d", next, requests)
			}
			c.Close()
		}
	}, inFlight(budget))
}

// A client that asks for much and reads slowly gets all of it, as it is; what it asks meanwhile comes behind. Other connections do not wait.
func TestSlowReader(t *testing.T) { each(t, slowReader) }

// The same when there are no descriptors left to wait for the client with.
func TestSlowReaderIsPolled(t *testing.T) {
	n := start(t, TransportGnet)
	n.srv.t.(*gnetTransport).waiting.Store(secondsMax)
	slowReader(t, n)
}

func slowReader(t *testing.T, n *node) {
	const batches, size, fetches = 80, 100_000, 3 // 8 MB an answer: twice the cache, many times the sockets' buffers
	other := n.dial(t)
	other.create("t", 1)
	other.create("u", 1)
	rng := rand.New(rand.NewPCG(1, 2))
	var want []string
	for range batches {
		b := make([]byte, size/4)
		for i := range b {
			b[i] = 'a' + byte(rng.IntN(26))
		}
		want = append(want, strings.Repeat(string(b), 4))
		other.produce("t", 0, -1, values(want[len(want)-1]))
	}
	c := n.dial(t)
	c.NetConn().(*net.TCPConn).SetReadBuffer(256 << 10)
	fetch := fetchFrom("t", 0, 0)
	var ids []int32
	for range fetches {
		ids = append(ids, c.send(fetch))
	}
	for range 500 { // more than its unsent limit allows to be read, in small requests
		ids = append(ids, c.send(&kmsg.ApiVersionsRequest{}))
	}
	for range 50 {
		other.produce("u", 0, -1, values("meanwhile"))
	}
	slow := &slowly{r: c.NetConn()}
	for i, id := range ids {
		var prefix [8]byte
		slow.read(t, prefix[:])
		body := make([]byte, binary.BigEndian.Uint32(prefix[:])-4)
		slow.read(t, body)
		if got := int32(binary.BigEndian.Uint32(prefix[4:])); got != id {
			t.Fatalf("response %d has correlation id %d, want %d", i, got, id)
		}
		if i >= fetches {
			continue
		}
		resp, err := kwire.Decode(fetch, body)
		if err != nil {
			t.Fatal(err)
		}
		got := parse(t, onlyFetched(resp).RecordBatches)
		if len(got) != batches {
			t.Fatalf("fetch %d: %d batches, want %d", i, len(got), batches)
		}
		for k, b := range got {
			if b.FirstOffset != int64(k) || string(b.Unpacked[0].Value) != want[k] {
				t.Fatalf("fetch %d: batch %d at %d is another one", i, k, b.FirstOffset)
			}
		}
	}
	c.produce("u", 0, -1, values("the connection is good"))
}

// slowly reads small pieces, and stops now and then.
type slowly struct {
	r     net.Conn
	reads int
}

func (s *slowly) read(t *testing.T, p []byte) {
	t.Helper()
	s.r.SetReadDeadline(time.Now().Add(patience))
	for len(p) > 0 {
		n, err := s.r.Read(p[:min(len(p), 32<<10)])
		if err != nil && !(err == io.EOF && n == len(p)) {
			t.Fatalf("%d bytes are missing: %v", len(p)-n, err)
		}
		p = p[n:]
		if s.reads++; s.reads%50 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// A client that never reads is held up by its own requests, and goes away like any other.
func TestClientThatNeverReads(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		other := n.dial(t)
		other.fill(40, 100_000)
		c := n.dial(t)
		c.NetConn().(*net.TCPConn).SetReadBuffer(256 << 10)
		fetch := c.AppendRequest(nil, fetchFrom("t", 0, 0), 1)
		c.NetConn().SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for range 2000 {
			if _, err := c.NetConn().Write(fetch); err != nil {
				break
			}
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if m.HeapInuse > 512<<20 {
			t.Errorf("%d MiB are in use for a client that does not read", m.HeapInuse>>20)
		}
		other.produce("t", 0, -1, values("y"))
		c.Close()
		eventually(t, "the connection is gone", func() bool { return n.srv.Connections() == 1 })
		eventually(t, "its requests are gone", func() bool { return !n.waiting() })
		if got := len(other.read("t", 0)); got != 41 { // the memory of its answers was given back
			t.Errorf("%d records", got)
		}
	})
}

// A client that reads nothing keeps no server from ending.
func TestDrainPastAClientThatNeverReads(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.fill(100, 100_000)
		c.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
		c.send(fetchFrom("t", 0, 0))
		var session *Session
		n.srv.mu.Lock()
		for s := range n.srv.open {
			session = s
		}
		n.srv.mu.Unlock()
		eventually(t, "the answer is stuck", func() bool { return session.delivering.Load() > 0 })
		begin := time.Now()
		n.srv.Drain()
		if took := time.Since(begin); took > drainTimeout/2 {
			t.Errorf("it took %v", took)
		}
	}, func(c *config) { c.server.SendTimeout = time.Hour })
}

// Clients that take nothing hold the memory that all fetches share. They are closed after SendTimeout, and then it is there for the others.
func TestClientsThatTakeNothingAreClosed(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		good := n.dial(t)
		good.fill(24, testMessageMax/2)
		for range 12 {
			c := n.dial(t)
			c.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
			for range 64 {
				c.send(fetchFrom("t", 0, 0))
			}
		}
		eventually(t, "clients that take nothing are closed", func() bool { return n.srv.counters.misbehaved.Load() > 0 || n.srv.Connections() < 13 })
		req := fetchFrom("t", 0, 0)
		resp := good.receive(req, good.send(req))
		if got := parse(t, onlyFetched(resp).RecordBatches); len(got) == 0 {
			t.Error("the good client is given nothing")
		}
	}, func(c *config) {
		c.server.SendTimeout, c.server.Kafka.FetchMemoryBytes = 300*time.Millisecond, 8<<20
	})
}

// Clients that take nothing leave memory for the answers of those that do.
func TestClientsThatTakeNothingLeaveMemory(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		good := n.dial(t)
		good.fill(400, 20_000)
		const idle = 40
		for range idle {
			c := n.dial(t)
			c.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
			for range 200 { // more than the system keeps for it
				c.send(fetchFrom("t", 0, 0))
			}
		}
		stuck := func() (k int) {
			n.srv.mu.Lock()
			defer n.srv.mu.Unlock()
			for s := range n.srv.open {
				if s.delivering.Load() > 0 {
					k++
				}
			}
			return k
		}
		eventually(t, "answers to all of them are stuck", func() bool { return stuck() == idle })
		if m := n.srv.broker.FetchMemory(); m.Bytes >= m.Limit || m.Waiting > 0 {
			t.Errorf("%+v", m)
		}
		if got := len(good.read("t", 0)); got != 400 {
			t.Errorf("%d records", got)
		}
		if got := stuck(); got != idle {
			t.Errorf("%d of %d answers are still stuck", got, idle)
		}
	}, func(c *config) {
		c.server.SendTimeout, c.server.Kafka.FetchMemoryBytes = time.Hour, 8<<20
	})
}
