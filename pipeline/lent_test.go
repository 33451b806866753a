package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/qos"
)

// lend submits requests whose payloads are taken back as soon as that returns, and says how many of them the pipeline had to keep.
func (w *waiter) lend(t testing.TB, p *Pipeline, reqs ...*Request) (kept int) {
	t.Helper()
	var lent [][]byte
	for _, r := range reqs {
		lent = append(lent, r.Records[0].Payload)
	}
	w.own(reqs...)
	err := p.SubmitLent(context.Background(), slices.Clone(reqs), func(r *Request) {
		r.Records[0].Payload = slices.Clone(r.Records[0].Payload)
		kept++
	})
	if err != nil {
		t.Error(err)
	}
	for _, b := range lent {
		for i := range b {
			b[i] = 0xdd
		}
	}
	return kept
}

// stalled runs f with a topic of one partition and a disk that is held back.
func stalled(t *testing.T, f func(p *Pipeline, part *catalog.Partition, gate *vfs.Gate)) {
	still(t, func(t *testing.T, p *Pipeline, gate *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		synctest.Wait()
		gate.Hold()
		f(p, part, gate)
	})
}

func large(c string) string { return strings.Repeat(c, onSubmitBytes) }

func TestSubmitterWritesWhatItLends(t *testing.T) {
	stalled(t, func(p *Pipeline, part *catalog.Partition, gate *vfs.Gate) {
		w := newWaiter()
		before := p.written.Load()
		first := produce(qos.Persistence, part, makeBatch(1, large("a"), -1, -1, -1))
		if kept := w.lend(t, p, first, produce(qos.Persistence, part, makeBatch(1, "b", -1, -1, -1))); kept != 0 {
			t.Errorf("%d requests were kept, and nothing holds the write stage up", kept)
		}
		if p.written.Load() == before {
			t.Error("nothing was written when SubmitLent returned")
		}
		if kept := w.lend(t, p, produce(qos.Persistence, part, makeBatch(1, "c", -1, -1, -1))); kept != 1 {
			t.Errorf("%d requests of little were kept, want 1", kept)
		}
		synctest.Wait()
		if w.isAnswered(first) || part.HighWatermark() != 0 {
			t.Error("answered or readable with the disk held back")
		}
		gate.Release()
		synctest.Wait()
		w.onceEach(t)
		if got := bodies(t, p, part); !slices.Equal(got, []string{large("a"), "b", "c"}) {
			t.Errorf("read back: %.40q", got)
		}
	})
}

func TestLentIsKeptWhileTheWriteStageIsHeldUp(t *testing.T) {
	stalled(t, func(p *Pipeline, part *catalog.Partition, gate *vfs.Gate) {
		w := newWaiter()
		var want []string
		kept := 0
		for i := 0; kept < 4; i++ { // past dirty.bytes, or what the cache holds
			if i == 100 {
				t.Fatal("the write stage is never held up")
			}
			var reqs []*Request
			for range 2 {
				body := large(string(rune('a' + len(want)%26)))
				want = append(want, body)
				reqs = append(reqs, produce(qos.Persistence, part, makeBatch(1, body, -1, -1, -1)))
			}
			kept += w.lend(t, p, reqs...)
			if i%2 == 1 {
				synctest.Wait() // the write goroutine has seen it too: from now on it is held up itself
			}
		}
		gate.Release()
		synctest.Wait()
		w.onceEach(t)
		if got := bodies(t, p, part); !slices.Equal(got, want) {
			t.Errorf("%d bodies read back, %d were sent, or some differ", len(got), len(want))
		}
	})
}

// A submitter is not kept from its connections by what others have queued before it.
func TestSubmitterDoesNotWriteForOthersForEver(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	opts.SegmentBytes, opts.CacheBytes = 16<<20, 16<<20
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	const others = onSubmitTurns + 4
	p.write.running.Lock() // the write goroutine waits for it
	for range others {
		w.submit(t, p, produce(qos.Receive, part, makeBatch(1, strings.Repeat("x", p.opts.FrameTarget), -1, -1, -1)))
	}
	mine := produce(qos.Receive, part, makeBatch(1, large("a"), -1, -1, -1))
	w.own(mine)
	if err := p.admit.push([]*Request{mine}, true); err != nil {
		t.Fatal(err)
	}
	before := p.written.Load()
	p.write.submitterTurns()
	if turns := int(p.written.Load()-before) / p.opts.FrameTarget; p.admit.lent.Load() != 1 || turns != onSubmitTurns {
		t.Errorf("%d turns of others' requests were run, and %d lent requests wait", turns, p.admit.lent.Load())
	}
	kept := 0
	p.admit.keepLent([]*Request{mine}, func(*Request) { kept++ })
	p.write.running.Unlock()
	p.write.wake.set()
	w.wait(t, mine)
	w.onceEach(t)
	if kept != 1 || p.admit.lent.Load() != 0 {
		t.Errorf("kept %d times, %d are still lent", kept, p.admit.lent.Load())
	}
}

func TestLentAfterClose(t *testing.T) {
	p := open(t, testOptions(vfs.NewMem()))
	part := createTopic(t, p, "t", 1).Partitions[0]
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	r := produce(qos.Persistence, part, makeBatch(1, large("a"), -1, -1, -1))
	if err := p.SubmitLent(context.Background(), []*Request{r}, func(*Request) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("a request behind Close: %v", err)
	}
}

// TestManySubmittersLend has submitters that lend much, that lend little and that own what they submit: each partition reads back as it was sent.
func TestManySubmittersLend(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	opts := testOptions(vfs.NewMem())
	opts.SegmentBytes, opts.CacheBytes = 4<<20, 1<<20
	p := open(t, opts)
	topic := createTopic(t, p, "t", 4)
	var submitters sync.WaitGroup
	for k, part := range topic.Partitions {
		submitters.Go(func() { lendAtRandom(t, p, part, rand.New(rand.NewPCG(seed, uint64(k)))) })
	}
	submitters.Wait()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func lendAtRandom(t *testing.T, p *Pipeline, part *catalog.Partition, rng *rand.Rand) {
	w := newWaiter()
	var want []string
	for i := range 300 {
		var reqs []*Request
		for range 1 + rng.IntN(4) {
			body := fmt.Sprintf("%d-%d ", part.ID, i) + strings.Repeat("x", rng.IntN(3*onSubmitBytes/2))
			want = append(want, body)
			reqs = append(reqs, produce(qos.Levels()[1+rng.IntN(len(qos.Levels())-1)], part, makeBatch(1, body, -1, -1, -1)))
		}
		if rng.IntN(4) == 0 {
			for _, r := range reqs {
				w.submit(t, p, r)
			}
		} else {
			w.lend(t, p, reqs...)
		}
		if rng.IntN(8) == 0 {
			w.wait(t, reqs[len(reqs)-1])
		}
	}
	for r := range w.done {
		w.wait(t, r)
		if r.Err != nil || r.Records[0].Err != nil {
			t.Errorf("%v, %v", r.Err, r.Records[0].Err)
		}
	}
	r := w.submit(t, p, produce(qos.All, part, makeBatch(1, "last", -1, -1, -1)))
	w.wait(t, r)
	w.onceEach(t)
	if got := bodies(t, p, part); !slices.Equal(got, append(want, "last")) {
		t.Errorf("partition %d: %d bodies read back, %d were sent, or some differ", part.ID, len(got), len(want)+1)
	}
}
