package server

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/qos"
)

// In all of these the journal's writes are held back: what waits for a flush has to wait, and nothing else may. That a request has been serialized is seen by the base offset of a later RECEIVE (client.fence).

// asked is a Produce request that was sent on a connection of its own.
type asked struct {
	*client
	req *kmsg.ProduceRequest
	id  int32
}

func (n *node) asks(t *testing.T, acks int16, records []byte) asked {
	a := asked{n.dial(t), produceTo("t", 0, acks, records), 0}
	a.id = a.send(a.req)
	return a
}

// once takes the answer, and checks that no second one follows it.
func (a asked) once() kmsg.ProduceResponseTopicPartition {
	a.t.Helper()
	got := onlyPart(a.receive(a.req, a.id))
	ask[*kmsg.ApiVersionsResponse](a.client, &kmsg.ApiVersionsRequest{})
	return got
}

func clients(as []asked) (cs []*client) {
	for _, a := range as {
		cs = append(cs, a.client)
	}
	return cs
}

func TestLevelsWaitForTheirMarks(t *testing.T) {
	for _, tc := range []struct {
		name string
		acks qos.AcksMap
		pass []int16 // acks that are answered with the disk held back
		wait []int16
	}{
		{"default", qos.DefaultAcks, []int16{101, 103}, []int16{102, 1, 104, -1}},
		{"acks mapped to weaker levels", qos.AcksMap{One: qos.Receive, All: qos.Replication}, []int16{101, 103, 1, -1}, []int16{102, 104}},
		{"acks mapped to the same", qos.AcksMap{One: qos.All, All: qos.Persistence}, []int16{101, 103}, []int16{102, 1, 104, -1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			each(t, func(t *testing.T, n *node) {
				c := n.dial(t)
				c.create("t", 1)
				n.gate.Hold()
				oneWay := n.asks(t, 0, values("one-way"))
				records := int64(1)
				var waiting []asked
				for _, acks := range tc.wait {
					waiting = append(waiting, n.asks(t, acks, values(fmt.Sprint(acks))))
					records++
				}
				bases := map[int64]int16{}
				for _, acks := range tc.pass {
					got := n.asks(t, acks, values(fmt.Sprint(acks))).once()
					if old, twice := bases[got.BaseOffset]; twice || got.ErrorCode != 0 {
						t.Errorf("acks %d: error %d, base offset %d, which acks %d has: %v", acks, got.ErrorCode, got.BaseOffset, old, twice)
					}
					bases[got.BaseOffset] = acks
					records++
				}
				c.fence("t", 0, records)
				silent(t, fmt.Sprintf("acks %d with the disk held back", tc.wait), clients(waiting)...)
				if got := c.fetched(fetchFrom("t", 0, 0)); got.HighWatermark != 0 || len(got.RecordBatches) != 0 {
					t.Errorf("readers see %d bytes, high watermark %d, with the disk held back", len(got.RecordBatches), got.HighWatermark)
				}
				n.gate.Release()
				for _, w := range waiting {
					if got := w.once(); got.ErrorCode != 0 || bases[got.BaseOffset] != 0 {
						t.Errorf("acks %d: error %d, base offset %d", w.req.Acks, got.ErrorCode, got.BaseOffset)
					} else {
						bases[got.BaseOffset] = w.req.Acks
					}
				}
				oneWay.produce("t", 0, 104, values("end")) // whose response is the first on that connection
				all := c.read("t", 0)
				for base, acks := range bases {
					if all[base] != fmt.Sprint(acks) {
						t.Errorf("at offset %d: %q, answered to acks %d", base, all[base], acks)
					}
				}
			}, func(c *config) { c.server.Kafka.Acks = tc.acks })
		})
	}
}

func TestRetryIsNotAnsweredBeforeItsOriginal(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		n.gate.Hold()
		b := sequenced(kwire.Producer{ID: 5, Epoch: 0, Sequence: 0}, nil, "a", "b")
		if base := c.produce("t", 0, 101, bytes.Clone(b)); base != 0 {
			t.Fatalf("the original is at %d", base)
		}
		var retries []asked
		for _, acks := range []int16{102, 104, -1, 1} {
			r := n.asks(t, acks, bytes.Clone(b))
			r.send(produceTo("t", 0, 0, values("behind the retry"))) // when this is written, the retry has been looked at
			retries = append(retries, r)
		}
		c.fence("t", 0, 2+int64(len(retries)))
		for _, acks := range []int16{101, 103} {
			if base := c.produce("t", 0, acks, bytes.Clone(b)); base != 0 {
				t.Errorf("a retry at acks %d is at %d", acks, base)
			}
		}
		silent(t, "retries of what is not flushed", clients(retries)...)
		n.gate.Release()
		for _, r := range retries {
			if got := r.once(); got.ErrorCode != 0 || got.BaseOffset != 0 {
				t.Errorf("a retry at acks %d: error %d, base offset %d", r.req.Acks, got.ErrorCode, got.BaseOffset)
			}
		}
	})
}

// Past timeout_ms a request is answered with 7, which says that it may still become durable; here it does.
func TestTimeoutIsAnsweredWhileTheDiskHangs(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c, late := n.dial(t), n.dial(t)
		c.create("t", 1)
		n.gate.Hold()
		req := produceTo("t", 0, 102, values("late"))
		req.TimeoutMillis = 50
		if got := onlyPart(ask[*kmsg.ProduceResponse](late, req)); got.ErrorCode != kerr.RequestTimedOut.Code || got.BaseOffset != -1 {
			t.Errorf("error %d, base offset %d", got.ErrorCode, got.BaseOffset)
		}
		patient := n.asks(t, 102, values("patient"))
		c.fence("t", 0, 2)
		silent(t, "its own timeout is longer", patient.client)
		n.gate.Release()
		patient.once()
		if got := c.read("t", 0); got[0] != "late" || !slices.Contains(got, "patient") {
			t.Errorf("the partition holds %q", got)
		}
		late.produce("t", 0, -1, values("end")) // no second answer came
	})
}
