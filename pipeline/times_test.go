package pipeline

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"tidemark/internal/vfs"
	"tidemark/qos"
)

// On a clock that stands still while a stage works, every part of a request's way has an exact length.
func TestTimesAddUp(t *testing.T) {
	const ms = time.Millisecond
	still(t, func(t *testing.T, p *Pipeline, gate *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		synctest.Wait()
		done, taken := make(chan struct{}), make(chan *Profile, 1)
		go func() {
			profile, err := p.TakeProfile(done, "")
			if err != nil {
				t.Error(err)
			}
			taken <- profile
		}()
		synctest.Wait()
		if _, err := p.TakeProfile(done, ""); !errors.Is(err, ErrProfiling) {
			t.Errorf("a second profile: %v", err)
		}
		w := newWaiter()
		submit := func(level qos.Level, client string) {
			r := produce(level, part, makeBatch(1, "x", -1, -1, -1))
			r.Times.Read, r.Labels = p.Now()-2*ms, &Labels{ClientID: client, Topic: "t"}
			w.submit(t, p, r)
		}
		gate.Hold()
		submit(qos.Persistence, "first")
		time.Sleep(10 * ms)
		submit(qos.Persistence, "second") // while the first is in the disk's hands
		submit(qos.Receive, "third")
		time.Sleep(20 * ms)
		gate.Release()
		synctest.Wait()
		p.Observe(qos.Receive, &Labels{ClientID: "third", Topic: "t"}, SocketWrite, 1, 5*ms)
		close(done)
		got := map[string]time.Duration{}
		for _, s := range (<-taken).Samples {
			if s.Requests != 1 || s.Topic != "t" {
				t.Errorf("%+v: one request to t was sent by each", s)
			}
			got[s.ClientID+" "+s.Stage.String()] = s.Time
		}
		want := map[string]time.Duration{
			"first decode": 2 * ms, "first admission": 0, "first serialize": 0, "first cache wait": 0, "first flush": 30 * ms, "first respond": 0,
			"second decode": 2 * ms, "second admission": 0, "second serialize": 0, "second cache wait": 20 * ms, "second flush": 0, "second respond": 0,
			"third decode": 2 * ms, "third admission": 0, "third serialize": 0, "third respond": 0, "third socket write": 5 * ms,
		}
		for k, d := range want {
			if have, ok := got[k]; !ok || have != d {
				t.Errorf("%s took %v (%v), want %v", k, have, ok, d)
			}
			delete(got, k)
		}
		for k, d := range got {
			t.Errorf("%s took %v: it was not on the way", k, d)
		}
	})
}

func TestProfileOfOneClient(t *testing.T) {
	taking := &profile{client: "a", samples: map[ProfileSample]*ProfileSample{}}
	taking.add(qos.All, Flush, &Labels{ClientID: "a"}, time.Second, 3)
	taking.add(qos.All, Flush, &Labels{ClientID: "b"}, time.Second, 3)
	taking.add(qos.All, Flush, nil, time.Second, 3)
	if len(taking.samples) != 1 {
		t.Errorf("%d samples, want those of client a", len(taking.samples))
	}
	for _, s := range taking.samples {
		if s.Requests != 3 || s.Time != 3*time.Second {
			t.Errorf("%+v", *s)
		}
	}
}

func TestLatencyBuckets(t *testing.T) {
	for took, want := range map[time.Duration]int{0: 0, latencyLeast - 1: 0, latencyLeast: 1, 2*latencyLeast - 1: 1, 2 * latencyLeast: 2, -time.Second: 0, time.Hour: latencyBuckets - 1} {
		var l latency
		l.add(took, 7)
		if l.buckets[want].Load() != 7 || l.nanos.Load() != int64(max(took, 0))*7 {
			t.Errorf("%v is not in bucket %d", took, want)
		}
	}
}

// Clients have histograms of their own, up to a number; those that were silent make room.
func TestClientLatencies(t *testing.T) {
	var c clientLatencies
	labels := func(id string) *Labels { return &Labels{ClientID: id} }
	a := labels("a")
	c.add(a, time.Millisecond, time.Second, 3)
	for i := range maxClientLatencies - 1 {
		c.add(labels(fmt.Sprint(i)), time.Millisecond, time.Second, 1)
	}
	late, other := labels("late"), labels(ClientsRest)
	c.add(late, time.Millisecond, time.Second, 5)
	c.add(other, time.Millisecond, time.Second, 1)
	c.add(nil, time.Millisecond, time.Second, 1)
	count := func(client string) (n int64) {
		c.each(func(name string, l *latency) {
			if name == client {
				n = l.status().Count
			}
		})
		return n
	}
	if count("a") != 3 || count("late") != 0 || count(ClientsRest) != 6 {
		t.Errorf("a %d, late %d, other %d", count("a"), count("late"), count(ClientsRest))
	}
	now := time.Second + 2*clientSilence
	c.add(late, time.Millisecond, now, 1)
	c.add(a, time.Millisecond, now, 1) // it made room, and comes back
	if count("a") != 1 || count("late") != 1 || len(c.m) != 2 {
		t.Errorf("a %d, late %d, %d clients", count("a"), count("late"), len(c.m))
	}
	bad, worse := labels("\xff"), labels("\xfe")
	c.add(bad, time.Millisecond, now, 1)
	c.add(worse, time.Millisecond, now, 1)
	if count("?") != 2 {
		t.Errorf("names that are no text: %d", count("?"))
	}
}
