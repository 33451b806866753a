package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What one connection may take from the server and from the others.

// heapMiB is what the heap holds.
func heapMiB() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 20)
}

// kmsg takes the number of tags at its word: without a look at the body's shape, a frame of 18 bytes keeps a core busy for 40 s, whatever connection it comes from.
func TestTagCountBurnsNoCPU(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		frame := []byte{0, 0, 0, 0, 0, 3, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0x7f} // Metadata v12, no topics, 2^28 tags: a sixteenth of what it could say
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		c := n.dial(t)
		begin := time.Now()
		c.raw(frame)
		c.ended("a body that is cut off")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("a frame of %d bytes took %s", len(frame), took)
		}
	})
}

// A response that is ready and waits for one before it counts in its connection's budget, or a client behind a request that waits would be read without end.
func TestWaitingResponsesAreInTheBudget(t *testing.T) {
	wait := fetchFrom("t", 0, 0)
	wait.MaxWaitMillis, wait.MinBytes = 60_000, 1
	each(t, func(t *testing.T, n *node) {
		n.dial(t).create("t", 1)
		n.gate.Hold()
		for name, first := range map[string]kmsg.Request{"a fetch that waits": wait, "an ALL whose flush is held back": produceTo("t", 0, 104, values("x"))} {
			c := n.dial(t)
			c.send(first)
			before := heapMiB()
			frames := bytes.Repeat(c.AppendRequest(nil, &kmsg.ProduceRequest{Version: 3, Acks: 1}, 1), 1000) // of no topics: answered at once
			c.NetConn().SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			sent := 0
			for err := error(nil); err == nil && sent < 64<<20; {
				var n int
				n, err = c.NetConn().Write(frames)
				sent += n
			}
			if grown := heapMiB() - before; sent >= 64<<20 || grown > 64 {
				t.Errorf("behind %s: %d MiB were taken with a budget of 1 MiB, and the heap grew by %d MiB", name, sent>>20, grown)
			}
			c.Close()
		}
	}, inFlight(1<<20))
}

// Clients that ask for 16 MiB time and again and read none of it: what is made for them is bounded, and those that read are served.
func TestUnreadAnswers(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		other := n.dial(t)
		other.fill(160, 100_000)
		const clients = 6
		const fetches = 16
		before := heapMiB()
		for range clients {
			c := n.dial(t)
			for range fetches {
				c.send(fetchFrom("t", 0, 0))
			}
		}
		for range 3 {
			if !n.dial(t).deadline(patience, fetchFrom("t", 0, 0)) {
				t.Fatal("a client that reads has no answer")
			}
		}
		time.Sleep(200 * time.Millisecond)
		if grown := heapMiB() - before; grown > 3*(clients+3)*16 { // one that is sent and one that is made for each, and what is in between
			t.Errorf("%d clients that do not read: the heap grew by %d MiB", clients, grown)
		}
	}, func(c *config) { c.server.SendTimeout = time.Second }) // who reads waits for those who do not to be closed
}

// A client changes its id with each request and is refused meanwhile, from another goroutine that names it in the log. For the race detector.
func TestClientIDChanges(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		n.dial(t).create("t", 1)
		for range 5 {
			var stream []byte
			for i := range 1500 {
				f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(fmt.Sprint("id", i)))
				frame := f.AppendRequest(nil, produceTo("t", 0, 1, values("x")), int32(i))
				if i%2 == 0 { // cut off: refused by the request's goroutine
					frame = f.AppendRequest(nil, &kmsg.MetadataRequest{Version: 1, Topics: []kmsg.MetadataRequestTopic{{Topic: ptr("t")}}}, int32(i))
					frame = frame[:len(frame)-1]
					binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
				}
				stream = append(stream, frame...)
			}
			c := n.dial(t)
			c.NetConn().Write(stream)
			c.Close()
		}
	})
}

// Requests come while the server stops. For the race detector.
func TestRequestsDuringDrain(t *testing.T) {
	for range 3 {
		each(t, func(t *testing.T, n *node) {
			for range 4 {
				c := n.dial(t)
				go func() {
					for {
						if _, err := c.Send(t.Context(), &kmsg.ApiVersionsRequest{}); err != nil {
							return
						}
					}
				}()
			}
			n.dial(t).create("t", 1)
		})
	}
}

// However many Turns a connection has that is paused for what its client did not read, one timer at a time looks after it.
func TestTimersOfAPausedConnection(t *testing.T) {
	s := &Session{srv: &Server{opts: Options{SendTimeout: time.Hour}}}
	conn := &countingConn{}
	s.conn = conn
	const turns = 200
	for range turns {
		s.tooMuchUnsent(conn)
	}
	time.Sleep(5 * unsentLook)
	if n := conn.wakes.Load(); n > 5 {
		t.Errorf("%d looks had %d timers wake the connection", turns, n)
	}
}

// countingConn is a connection that has much unsent.
type countingConn struct {
	netConn
	wakes atomic.Int32
}

func (c *countingConn) Wake()       { c.wakes.Add(1) }
func (c *countingConn) Unsent() int { return 1 << 30 }

// A connection's requests take effect one after the other, as Kafka's do: what comes behind CreateTopics finds the topic.
func TestRequestsTakeEffectInOrder(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "t", 1, 1
		create := &kmsg.CreateTopicsRequest{Version: 7, TimeoutMillis: 10_000, Topics: []kmsg.CreateTopicsRequestTopic{rt}}
		meta, produce := &kmsg.MetadataRequest{Version: 9, Topics: []kmsg.MetadataRequestTopic{{Topic: ptr("t")}}}, produceTo("t", 0, -1, values("x"))
		a, b, d := c.send(create), c.send(meta), c.send(produce)
		c.receive(create, a)
		m, p := c.receive(meta, b).(*kmsg.MetadataResponse).Topics[0].ErrorCode, onlyPart(c.receive(produce, d)).ErrorCode
		if m != 0 || p != 0 {
			t.Errorf("behind CreateTopics: metadata %d, produce %d", m, p)
		}

		// A Produce behind a fetch that waits goes on when that is answered.
		wait := fetchFrom("t", 0, 1)
		wait.MaxWaitMillis, wait.MinBytes = 30_000, 1
		a, b = c.send(wait), c.send(produce)
		eventually(t, "the fetch runs", n.waiting)
		n.dial(t).produce("t", 0, -1, values("y"))
		c.receive(wait, a)
		if got := onlyPart(c.receive(produce, b)); got.BaseOffset != 2 || got.ErrorCode != 0 {
			t.Errorf("behind a fetch that waited: error %d, base offset %d", got.ErrorCode, got.BaseOffset)
		}
	})
}

// A batch whose records are rubbish is taken, as they are not unpacked; a look-up by time in it answers CORRUPT_MESSAGE.
func TestListOffsetsOfRubbish(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		w := &wire{client: n.dial(t), n: n, topic: "t"}
		w.create("t", 5)
		for codec := range int32(5) {
			b := edited(func(b []byte) {
				b[22] |= byte(codec)
				for i := 61; i < len(b); i++ {
					b[i] = 0xff
				}
			})
			w.client.produce("t", codec, -1, b)
			if got := w.list(7, codec, 500, -1); got.ErrorCode != 2 {
				t.Errorf("codec %d: error %d", codec, got.ErrorCode)
			}
		}
	})
}

// fillQueue holds the disk back and sends t more than may be written and not flushed, so that the admission queue is not empty.
func (n *node) fillQueue(t *testing.T) {
	t.Helper()
	n.gate.Hold()
	for range 3 {
		flood := n.dial(t)
		for range 30 {
			flood.send(produceTo("t", 0, 102, values(strings.Repeat("x", 100<<10))))
		}
	}
}

// A connection's requests take effect in the order in which they came, whatever others have queued: a delete behind a produce does not overtake it.
func TestDeleteDoesNotOvertakeProduce(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		n.fillQueue(t)
		produce := produceTo("t", 0, 102, values("y"))
		id := c.send(produce)
		remove := &kmsg.DeleteTopicsRequest{Version: 5, TopicNames: []string{"t"}, TimeoutMillis: 10_000}
		rid := c.send(remove)
		n.gate.Release()
		if got := onlyPart(c.receive(produce, id)); got.ErrorCode != 0 {
			t.Errorf("the produce before the delete: error %d", got.ErrorCode)
		}
		if got := c.receive(remove, rid).(*kmsg.DeleteTopicsResponse).Topics[0]; got.ErrorCode != 0 {
			t.Errorf("the delete: error %d", got.ErrorCode)
		}
	})
}

// A connection whose client id changes keeps its order: its requests take turns at admission under one name.
func TestAnotherClientIDDoesNotOvertake(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		n.fillQueue(t)
		req := produceTo("t", 0, 102, values("y"))
		first := c.send(req)
		second := c.NextCorrelationID()
		c.raw(bytes.Replace(c.AppendRequest(nil, req, second), []byte("test"), []byte("else"), 1))
		n.gate.Release()
		a, b := onlyPart(c.receive(req, first)), onlyPart(c.receive(req, second))
		if a.ErrorCode != 0 || b.ErrorCode != 0 || a.BaseOffset >= b.BaseOffset {
			t.Errorf("the first is at %d, the second at %d (errors %d, %d)", a.BaseOffset, b.BaseOffset, a.ErrorCode, b.ErrorCode)
		}
	})
}

// What the write stage is held up with is still whole when it goes on, although the transport has read on into the same buffer: large and small requests, of one partition and of two.
func TestRequestsThatAreHeldUpStayWhole(t *testing.T) {
	const connections, requests = 3, 40
	each(t, func(t *testing.T, n *node) {
		n.dial(t).create("t", 2)
		n.gate.Hold()
		sent := make(chan error, connections)
		var clients []*client
		value := func(k, i int) string {
			return fmt.Sprintf("%d/%d/", k, i) + strings.Repeat(string(rune('a'+(i+7*k)%26)), []int{10, 3_000, 20_000, 100_000}[(i+k)%4])
		}
		for k := range connections {
			c := n.dial(t)
			clients = append(clients, c)
			go func() {
				for i := range requests {
					req := produceTo("t", 0, 102, values(value(k, i)))
					if i%3 == 0 {
						parts := &req.Topics[0].Partitions
						*parts = append(*parts, kmsg.ProduceRequestTopicPartition{Partition: 1, Records: values("also " + value(k, i))})
					}
					if _, err := c.Send(t.Context(), req); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
		}
		eventually(t, "the write stage is held up", func() bool { return n.srv.pipeline.Status().Admission.Bytes > 0 })
		n.gate.Release()
		for _, c := range clients {
			if err := c.produced(requests); err != nil {
				t.Error(err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
		for partition, prefix := range []string{"", "also "} {
			next, step := make([]int, connections), 1+2*partition
			for _, got := range n.dial(t).read("t", int32(partition)) {
				var k, i int
				if _, err := fmt.Sscanf(strings.TrimPrefix(got, prefix), "%d/%d/", &k, &i); err != nil || got != prefix+value(k, i) || i != next[k] {
					t.Fatalf("partition %d: %.40q is not what comes next", partition, got)
				}
				next[k] += step
			}
			for k, i := range next {
				if i < requests {
					t.Errorf("partition %d: connection %d's request %d is missing", partition, k, i)
				}
			}
		}
	})
}
