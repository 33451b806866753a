package pipeline

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// Wake-ups and shutdown of the running stages, on a clock that stands still while any of them has work. A wake-up that is lost shows as time that passes, and a goroutine that stays behind as a deadlock.

// still runs f in a bubble, with a pipeline over a memory file system whose journal files a gate can hold.
func still(t *testing.T, f func(t *testing.T, p *Pipeline, gate *vfs.Gate)) {
	synctest.Test(t, func(t *testing.T) {
		gate := vfs.NewGate(".journal")
		p := open(t, testOptions(vfs.NewFaulty(vfs.NewMem(), gate.Hook)))
		t.Cleanup(gate.Release)
		f(t, p, gate)
		gate.Release()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingWaitsForATimer(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	still(t, func(t *testing.T, p *Pipeline, gate *vfs.Gate) {
		rng := rand.New(rand.NewPCG(seed, 0))
		part := createTopic(t, p, "t", 1).Partitions[0]
		w := newWaiter()
		for range 300 {
			if rng.IntN(4) == 0 {
				gate.Hold()
			}
			start := time.Now()
			var reqs []*Request
			for range 1 + rng.IntN(12) {
				level := qos.Levels()[rng.IntN(len(qos.Levels()))]
				reqs = append(reqs, w.submit(t, p, produce(level, part, makeBatch(1, strings.Repeat("x", rng.IntN(4000)), -1, -1, -1))))
				if rng.IntN(3) == 0 {
					synctest.Wait()
				}
			}
			gate.Release()
			synctest.Wait()
			for _, r := range reqs {
				if !w.isAnswered(r) {
					t.Fatalf("a request at %s is not answered, and every stage sleeps", r.Level)
				}
			}
			if p.indexed.Load() != p.committed.Load() {
				t.Fatal("readers do not see what is committed, and every stage sleeps")
			}
			if passed := time.Since(start); passed != 0 {
				t.Fatalf("%v passed before all was answered and readable", passed)
			}
		}
		w.onceEach(t)
	})
}

func TestUndemandedFlushFollowsItsInterval(t *testing.T) {
	still(t, func(t *testing.T, p *Pipeline, _ *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		synctest.Wait()
		w := newWaiter()
		r := w.submit(t, p, produce(qos.Receive, part, makeBatch(1, "a", -1, -1, -1)))
		synctest.Wait()
		if !w.isAnswered(r) || p.flushed.Load() == p.written.Load() {
			t.Fatal("receive waited for a flush, or was flushed at once")
		}
		time.Sleep(p.opts.FlushInterval - 1)
		synctest.Wait()
		if p.flushed.Load() == p.written.Load() {
			t.Fatal("flushed before the interval was over")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if p.flushed.Load() != p.written.Load() {
			t.Fatal("not flushed when the interval was over")
		}
	})
}

// told counts wake-ups.
type told chan struct{}

func (w told) Wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}

func TestWaitingReaderHasAFlushOfItsOwnInterval(t *testing.T) {
	still(t, func(t *testing.T, p *Pipeline, _ *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		synctest.Wait()
		reader := make(told, 1)
		if !p.Wait(part, reader, 0) {
			t.Fatal("there is something to read")
		}
		defer p.Unwait(part, reader)
		w := newWaiter()
		w.submit(t, p, produce(qos.Receive, part, makeBatch(1, "a", -1, -1, -1)))
		start := time.Now()
		<-reader
		if waited := time.Since(start); waited > readerFlushInterval {
			t.Errorf("the reader waited %v, the interval is %v", waited, readerFlushInterval)
		}
		// A demanded flush is as fast as if the reader were not there.
		start = time.Now()
		r := w.submit(t, p, produce(qos.Persistence, part, makeBatch(1, "b", -1, -1, -1)))
		synctest.Wait()
		if !w.isAnswered(r) || time.Since(start) != 0 {
			t.Error("persistence waited beside receive")
		}
	})
}

func TestDeadlineIsKeptWhileTheDiskStalls(t *testing.T) {
	still(t, func(t *testing.T, p *Pipeline, gate *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		gate.Hold()
		w := newWaiter()
		start := time.Now()
		for _, deadline := range []time.Duration{time.Second, 40 * time.Millisecond, 3 * time.Second} {
			r := produce(qos.Persistence, part, makeBatch(1, "a", -1, -1, -1))
			r.Deadline = p.Now() + deadline
			w.submit(t, p, r)
			synctest.Wait()
			if deadline == 40*time.Millisecond { // the others have later ones: the timer that runs is not the one that is needed
				w.wait(t, r)
				if took := time.Since(start); took < deadline || took > deadline+deadlineTick || !errors.Is(r.Err, ErrTimedOut) {
					t.Errorf("answered after %v with %v, the deadline is %v", took, r.Err, deadline)
				}
			}
		}
		time.Sleep(3*time.Second + deadlineTick)
		synctest.Wait()
		w.onceEach(t)
	})
}

func TestMarkFollowsFlushed(t *testing.T) {
	still(t, func(t *testing.T, p *Pipeline, _ *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		w := newWaiter()
		start := p.flushed.Load()
		for begin := time.Now(); time.Since(begin) < markWithin; time.Sleep(markIdle / 2) { // it never rests
			r := w.submit(t, p, produce(qos.Persistence, part, makeBatch(1, "a", -1, -1, -1)))
			w.wait(t, r)
		}
		time.Sleep(markIdle)
		synctest.Wait()
		if p.marker.marked.Load() <= start {
			t.Errorf("flushed moved for %v, and no mark was written", markWithin)
		}
		time.Sleep(2 * markIdle)
		synctest.Wait()
		if p.marker.marked.Load() != p.flushed.Load() {
			t.Errorf("flushed rests at %d, and the mark says %d", p.flushed.Load(), p.marker.marked.Load())
		}
	})
}

func TestCloseAnswersWhatIsPending(t *testing.T) {
	still(t, func(t *testing.T, p *Pipeline, gate *vfs.Gate) {
		part := createTopic(t, p, "t", 1).Partitions[0]
		gate.Hold()
		w := newWaiter()
		var reqs []*Request
		for range 50 {
			for _, level := range qos.Levels() {
				reqs = append(reqs, w.submit(t, p, produce(level, part, makeBatch(1, "a", -1, -1, -1))))
			}
		}
		closed := make(chan error, 1)
		go func() { closed <- p.Close() }()
		synctest.Wait()
		if err := p.Submit([]*Request{{Owner: w}}); !errors.Is(err, ErrClosed) {
			t.Errorf("a request while closing: %v", err)
		}
		select {
		case err := <-closed:
			t.Fatalf("closed (%v) while the disk held what is pending", err)
		default:
		}
		gate.Release()
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		w.onceEach(t)
		for _, r := range reqs {
			if r.Err != nil {
				t.Errorf("%s: %v", r.Level, r.Err)
			}
		}
	})
}

func TestEveryStageEndsWithTheDisk(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpWriteSync, vfs.OpSync} {
		synctest.Test(t, func(t *testing.T) {
			faulty := vfs.NewFaulty(vfs.NewMem())
			p := open(t, testOptions(faulty))
			part := createTopic(t, p, "t", 1).Partitions[0]
			synctest.Wait()
			faulty.SetHooks(func(op vfs.Op) error {
				if op.Kind == kind {
					return syscall.EIO
				}
				return nil
			})
			w := newWaiter()
			for i := 0; !p.failed.Load(); i++ {
				if i == 4000 {
					t.Fatal("the disk fails, and the pipeline does not notice")
				}
				r := produce(qos.Levels()[i%len(qos.Levels())], part, makeBatch(1, strings.Repeat("x", 1000), -1, -1, -1))
				w.own(r)
				if p.Submit([]*Request{r}) != nil {
					delete(w.done, r)
				}
				synctest.Wait()
				time.Sleep(time.Millisecond)
			}
			var disk *journal.FatalError
			if err := p.Close(); !errors.As(err, &disk) {
				t.Errorf("close: %v", err)
			}
			w.onceEach(t)
		})
	}
}
