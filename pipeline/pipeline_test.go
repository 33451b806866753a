package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testOptions(fsys vfs.FS) Options {
	return Options{FS: fsys, DataDir: "data", SegmentBytes: 256 << 10, CacheBytes: 256 << 10, Spares: 1}
}

func open(t testing.TB, opts Options) *Pipeline {
	t.Helper()
	p, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// waiter owns requests and hands each answer to its channel.
type waiter struct {
	mu         sync.Mutex
	serialized map[*Request]int
	answered   map[*Request]int
	done       map[*Request]chan struct{}
}

func newWaiter() *waiter {
	return &waiter{serialized: map[*Request]int{}, answered: map[*Request]int{}, done: map[*Request]chan struct{}{}}
}

func (w *waiter) Serialized(r *Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serialized[r]++
	for i := range r.Records { // the buffer is ours again: whoever still reads it reads rubbish
		for k := range r.Records[i].Payload {
			r.Records[i].Payload[k] = 0xee
		}
	}
}

func (w *waiter) Answer(r *Request) Waker {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered[r]++
	if w.answered[r] == 1 {
		close(w.done[r])
	}
	return nil
}

// own makes the waiter the owner of requests that are to be submitted.
func (w *waiter) own(reqs ...*Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range reqs {
		r.Owner = w
		w.done[r] = make(chan struct{})
	}
}

func (w *waiter) submit(t testing.TB, p *Pipeline, r *Request) *Request {
	t.Helper()
	w.own(r)
	if err := p.Submit([]*Request{r}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *waiter) wait(t testing.TB, r *Request) {
	t.Helper()
	w.mu.Lock()
	done := w.done[r]
	w.mu.Unlock()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("no answer within 20 s")
	}
}

func (w *waiter) isAnswered(r *Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered[r] > 0
}

// onceEach fails unless every request was answered exactly once.
func (w *waiter) onceEach(t testing.TB) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.done {
		if w.answered[r] != 1 {
			t.Errorf("a request at %s was answered %d times", r.Level, w.answered[r])
		}
	}
}

func command(cmd catalog.Command) *Request {
	return &Request{Marks: qos.All.Marks() | qos.Applied, Level: qos.All, Records: []Record{{Kind: journal.RecordCommand, Payload: cmd.Encode()}}}
}

func createTopic(t testing.TB, p *Pipeline, name string, partitions int32) *catalog.Topic {
	t.Helper()
	w := newWaiter()
	id := catalog.TopicID{byte(len(name))}
	copy(id[1:], name)
	r := w.submit(t, p, command(catalog.Command{CreateTopic: &catalog.CreateTopic{Name: name, ID: id, Partitions: partitions}}))
	w.wait(t, r)
	if r.Err != nil || r.Records[0].Result.Err != nil {
		t.Fatalf("create topic: %v, %v", r.Err, r.Records[0].Result.Err)
	}
	return r.Records[0].Result.Topic
}

func deleteTopic(t testing.TB, p *Pipeline, w *waiter, id catalog.TopicID) {
	t.Helper()
	r := w.submit(t, p, command(catalog.Command{DeleteTopic: &catalog.DeleteTopic{ID: id}}))
	w.wait(t, r)
	if r.Err != nil || r.Records[0].Result.Err != nil {
		t.Fatalf("delete topic: %v, %v", r.Err, r.Records[0].Result.Err)
	}
}

// makeBatch builds a batch of count records whose bytes are body.
func makeBatch(count int, body string, pid int64, epoch int16, seq int32) []byte {
	b := make([]byte, batch.HeaderBytes+len(body))
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	be.PutUint32(b[23:], uint32(count-1))
	be.PutUint64(b[35:], 1000)
	be.PutUint64(b[43:], uint64(pid))
	be.PutUint16(b[51:], uint16(epoch))
	be.PutUint32(b[53:], uint32(seq))
	be.PutUint32(b[57:], uint32(count))
	copy(b[batch.HeaderBytes:], body)
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func produce(level qos.Level, part *catalog.Partition, b []byte) *Request {
	var info batch.Info
	if err := info.Accept(b); err != nil {
		panic(err)
	}
	return &Request{Marks: level.Marks(), Level: level, Bytes: len(b), Records: []Record{{Kind: journal.RecordBatch, Partition: part, Payload: b, Info: info}}}
}

// bodies reads a whole partition back.
func bodies(t testing.TB, p *Pipeline, part *catalog.Partition) []string {
	t.Helper()
	p.CatchUp()
	var out []string
	for from := part.LogStart(); from < part.HighWatermark(); {
		b, err := p.Read(part, from, part.HighWatermark(), 0, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !batch.SoundCRC(b) {
			t.Fatalf("batch at %d is spoilt", from)
		}
		i := batch.Head(b)
		if i.Base != int64(from) {
			t.Fatalf("batch at %d says %d", from, i.Base)
		}
		out = append(out, string(b[batch.HeaderBytes:]))
		from += journal.LogicalOffset(i.Count)
	}
	return out
}

func TestEachLevelIsAnsweredWhenItsMarksSay(t *testing.T) {
	gate := vfs.NewGate(".journal")
	fsys := vfs.NewFaulty(vfs.NewMem(), gate.Hook)
	p := open(t, testOptions(fsys))
	part := createTopic(t, p, "t", 1).Partitions[0]
	gate.Hold()
	t.Cleanup(gate.Release)
	w := newWaiter()
	reqs := map[qos.Level]*Request{}
	for i, l := range qos.Levels() {
		reqs[l] = w.submit(t, p, produce(l, part, makeBatch(1, l.String(), -1, -1, -1)))
		if i < 2 {
			w.wait(t, reqs[l]) // one-way and receive wait for no disk
		}
	}
	w.wait(t, reqs[qos.Replication]) // on one node a majority is one
	// A second RECEIVE behind them passes: by its answer the stages have had their turn.
	late := w.submit(t, p, produce(qos.Receive, part, makeBatch(1, "late", -1, -1, -1)))
	w.wait(t, late)
	for _, l := range []qos.Level{qos.Persistence, qos.All} {
		if w.isAnswered(reqs[l]) {
			t.Errorf("%s was answered with the disk held back", l)
		}
	}
	if part.HighWatermark() != 0 {
		t.Errorf("high watermark %d with the disk held back", part.HighWatermark())
	}
	gate.Release()
	w.wait(t, reqs[qos.Persistence])
	w.wait(t, reqs[qos.All])
	w.onceEach(t)
	for l, r := range reqs {
		if r.Err != nil {
			t.Errorf("%s: %v", l, r.Err)
		}
	}
}

func TestRetryWaitsForItsOriginal(t *testing.T) {
	gate := vfs.NewGate(".journal")
	p := open(t, testOptions(vfs.NewFaulty(vfs.NewMem(), gate.Hook)))
	part := createTopic(t, p, "t", 1).Partitions[0]
	gate.Hold()
	t.Cleanup(gate.Release)
	w := newWaiter()
	first := w.submit(t, p, produce(qos.Receive, part, makeBatch(3, "a", 7, 0, 0)))
	w.wait(t, first)
	retry := w.submit(t, p, produce(qos.Persistence, part, makeBatch(3, "a", 7, 0, 0)))
	same := w.submit(t, p, produce(qos.Receive, part, makeBatch(3, "a", 7, 0, 0)))
	w.wait(t, same)
	if w.isAnswered(retry) {
		t.Fatal("the retry was acknowledged as durable before its original was")
	}
	gate.Release()
	w.wait(t, retry)
	for _, r := range []*Request{first, retry, same} {
		if r.Err != nil || r.Records[0].Err != nil || r.Records[0].Base != 0 {
			t.Errorf("%v, %v, base %d", r.Err, r.Records[0].Err, r.Records[0].Base)
		}
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"gap", makeBatch(1, "x", 7, 0, 9), catalog.ErrOutOfOrder},
		{"next", makeBatch(2, "b", 7, 0, 3), nil},
		{"new epoch not at 0", makeBatch(1, "x", 7, 1, 5), catalog.ErrOutOfOrder},
		{"new epoch", makeBatch(1, "c", 7, 1, 0), nil},
		{"old epoch", makeBatch(1, "x", 7, 0, 5), catalog.ErrFenced},
		{"unknown producer in the middle", makeBatch(1, "d", 8, 0, 44), nil},
	} {
		r := w.submit(t, p, produce(qos.All, part, c.b))
		w.wait(t, r)
		if !errors.Is(r.Records[0].Err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, r.Records[0].Err, c.want)
		}
	}
	if got := fmt.Sprint(bodies(t, p, part)); got != "[a b c d]" {
		t.Errorf("the partition holds %s", got)
	}
	w.onceEach(t)
}

func TestOneRequestIsOneFrame(t *testing.T) {
	p := open(t, testOptions(vfs.NewMem()))
	parts := createTopic(t, p, "t", 3).Partitions
	w := newWaiter()
	r := &Request{Marks: qos.All.Marks(), Level: qos.All}
	for _, part := range parts {
		b := makeBatch(1, "x", -1, -1, -1)
		info := batch.Head(b)
		r.Records = append(r.Records, Record{Kind: journal.RecordBatch, Partition: part, Payload: b, Info: info})
	}
	before := p.stats.frames.Load()
	w.wait(t, w.submit(t, p, r))
	if n := p.stats.frames.Load() - before; n != 1 {
		t.Errorf("%d frames for one request", n)
	}
	huge := produce(qos.All, parts[0], makeBatch(1, string(make([]byte, p.FrameMax())), -1, -1, -1))
	w.wait(t, w.submit(t, p, huge))
	if !errors.Is(huge.Err, ErrTooLarge) {
		t.Errorf("a request larger than a frame: %v", huge.Err)
	}
}

// A command that cannot be read back is not written: it would end this process and every later one.
func TestCommandThatCannotBeReadBack(t *testing.T) {
	p, err := Open(Options{FS: vfs.NewMem(), DataDir: "data", SegmentBytes: 64 << 10, CacheBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	written := p.written.Load()
	for _, cmd := range []catalog.Command{{}, {UnsetPolicy: &catalog.UnsetPolicy{Name: "\xff"}}} {
		if r := p.Command(t.Context(), cmd, nil, 0); !errors.Is(r.Err, ErrCommand) {
			t.Errorf("%v: %v", cmd, r.Err)
		}
	}
	if p.written.Load() != written || p.Err() != nil {
		t.Errorf("written moved from %d to %d, %v", written, p.written.Load(), p.Err())
	}
}

func TestDeadlines(t *testing.T) {
	gate := vfs.NewGate(".journal")
	p := open(t, testOptions(vfs.NewFaulty(vfs.NewMem(), gate.Hook)))
	part := createTopic(t, p, "t", 1).Partitions[0]
	gate.Hold()
	t.Cleanup(gate.Release)
	w := newWaiter()
	r := produce(qos.Persistence, part, makeBatch(1, "x", -1, -1, -1))
	r.Deadline = p.Now() + 30*time.Millisecond
	w.wait(t, w.submit(t, p, r))
	if !errors.Is(r.Err, ErrTimedOut) {
		t.Errorf("%v, want %v", r.Err, ErrTimedOut)
	}
	// Fill the dirty limit, so that the write stage is held up: what waits in admission expires too.
	var all []*Request
	for range 200 {
		r := produce(qos.Persistence, part, makeBatch(1, string(make([]byte, 4000)), -1, -1, -1))
		r.Deadline = p.Now() + 50*time.Millisecond
		all = append(all, w.submit(t, p, r))
	}
	expired := 0
	for _, r := range all {
		w.wait(t, r)
		switch {
		case errors.Is(r.Err, ErrExpired):
			expired++
		case !errors.Is(r.Err, ErrTimedOut):
			t.Fatalf("%v", r.Err)
		}
	}
	if expired == 0 {
		t.Error("no request expired before it was written; the write stage was to be held up")
	}
	gate.Release()
	w.onceEach(t)
}

func TestAfterAFailedSyncNothingIsAcknowledged(t *testing.T) {
	eio := errors.New("input/output error")
	faulty := vfs.NewFaulty(vfs.NewMem())
	fatal := make(chan error, 1)
	opts := testOptions(faulty)
	opts.OnFatal = func(err error) { fatal <- err }
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	gate := vfs.NewGate(".journal")
	gate.Hold()
	t.Cleanup(gate.Release)
	faulty.SetHooks(gate.Hook, vfs.FailNth(vfs.OpWriteSync, 1, eio))
	w := newWaiter()
	var reqs []*Request
	for range 10 {
		reqs = append(reqs, w.submit(t, p, produce(qos.Persistence, part, makeBatch(1, "x", -1, -1, -1))))
	}
	gate.Release()
	for _, r := range reqs {
		w.wait(t, r)
		if !errors.Is(r.Err, ErrFailed) {
			t.Errorf("%v, want %v", r.Err, ErrFailed)
		}
	}
	if err := <-fatal; !errors.Is(err, eio) {
		t.Errorf("fatal: %v", err)
	}
	if err := p.Submit([]*Request{produce(qos.Receive, part, makeBatch(1, "x", -1, -1, -1))}); !errors.Is(err, ErrFailed) {
		t.Errorf("a request after the failure: %v", err)
	}
	if err := p.Close(); !errors.Is(err, eio) {
		t.Errorf("close: %v", err)
	}
	w.onceEach(t)
}

// TestLife runs a node through crashes: what was acknowledged is there, once and in order, and ids are never handed out again.
func TestLife(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 99))
			mem := vfs.NewMem()
			acked := map[int32][]string{} // by partition, in order
			var lastID int64
			var lastEpoch int32 = -1
			seq := map[int32]int32{}
			next := 0
			for round := range 5 {
				opts := testOptions(mem)
				opts.RetentionBytes = 1 << 40
				p, err := Open(opts)
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if e := p.LeaderEpoch(); e <= lastEpoch {
					t.Fatalf("leader epoch %d after %d", e, lastEpoch)
				} else {
					lastEpoch = e
				}
				var parts []*catalog.Partition
				if topic := p.View().Topics["t"]; topic != nil {
					parts = topic.Partitions
				} else {
					parts = createTopic(t, p, "t", 3).Partitions
				}
				for _, part := range parts {
					got := bodies(t, p, part)
					want := acked[part.Index]
					i := 0
					for _, g := range got {
						if i < len(want) && g == want[i] {
							i++
						}
					}
					if i < len(want) {
						t.Fatalf("round %d: partition %d lost %.8q and what follows: it holds %d, %d were acknowledged", round, part.Index, want[i], len(got), len(want))
					}
					seen := map[string]bool{}
					for _, g := range got {
						if seen[g] {
							t.Fatalf("round %d: %.8q is there twice", round, g)
						}
						seen[g] = true
					}
				}
				w := newWaiter()
				r := w.submit(t, p, command(catalog.Command{AllotProducerIDs: &catalog.AllotProducerIDs{Count: 10}}))
				w.wait(t, r)
				if id := r.Records[0].Result.FirstProducerID; id < lastID+10 && lastID > 0 {
					t.Fatalf("producer ids from %d were handed out again after %d", id, lastID)
				} else {
					lastID = id
				}
				type sent struct {
					r    *Request
					part int32
					body string
				}
				var out []sent
				for range 40 + rng.IntN(120) {
					part := parts[rng.IntN(len(parts))]
					body := fmt.Sprintf("%d|%s", next, string(make([]byte, rng.IntN(6000))))
					next++
					pid := int64(1000) + int64(round) // a producer of its own each round, so that a lost tail leaves no gap
					key := int32(round)*100 + part.Index
					b := makeBatch(1, body, pid, 0, seq[key])
					seq[key]++
					level := []qos.Level{qos.Receive, qos.Persistence, qos.All}[rng.IntN(3)]
					out = append(out, sent{w.submit(t, p, produce(level, part, b)), part.Index, body})
				}
				for _, s := range out[:len(out)-rng.IntN(len(out)/2)] {
					w.wait(t, s.r)
				}
				// What was answered by now counts; then the plug is pulled: what is on disk at that moment is what the next round finds.
				w.mu.Lock()
				for _, s := range out {
					if w.answered[s.r] > 0 && s.r.Level != qos.Receive && s.r.Err == nil && s.r.Records[0].Err == nil {
						acked[s.part] = append(acked[s.part], s.body)
					}
				}
				w.mu.Unlock()
				crashed := mem.Crash(rng)
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				w.onceEach(t)
				mem = crashed
			}
		})
	}
}

// TestRemainderIsNotTheNextFrame: when flushed has passed a segment's remainder that is too small for a header, the frame behind it is not taken for committed.
func TestRemainderIsNotTheNextFrame(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewMem())
	opts := testOptions(faulty)
	opts.FlushInterval = time.Millisecond
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	segEnd := journal.Offset(opts.SegmentBytes)
	const left = 40 // bytes of the segment that no frame can use
	put := func(level qos.Level, frame int) *Request {
		body := frame - journal.FrameHeaderBytes - journal.RecordHeaderBytes - batch.HeaderBytes
		return w.submit(t, p, produce(level, part, makeBatch(1, string(make([]byte, body)), -1, -1, -1)))
	}
	for rest := segEnd - p.Written() - left; rest > 0; rest = segEnd - p.Written() - left {
		frame := int(rest)
		if frame > 20_000 {
			frame = 10_000
		}
		w.wait(t, put(qos.Persistence, frame))
	}
	if p.Written() != segEnd-left {
		t.Fatalf("written is %d, wanted %d", p.Written(), segEnd-left)
	}
	p.CatchUp()
	seen := part.HighWatermark()
	gate := vfs.NewGate(".journal")
	gate.Hold()
	t.Cleanup(gate.Release)
	faulty.SetHooks(gate.Hook)
	last := put(qos.Persistence, 1000)
	eventually(t, "flushed passes the remainder", func() bool { return p.flushed.Load() == segEnd && p.indexed.Load() >= segEnd })
	if hw := part.HighWatermark(); hw != seen || p.indexed.Load() != segEnd {
		t.Errorf("readers see up to %d, and indexed is %d, while the frame at %d is not flushed: wanted %d", hw, p.indexed.Load(), segEnd, seen)
	}
	gate.Release()
	w.wait(t, last)
}

// TestQueuedRequestsFailWithTheDisk: what waits for admission when the disk fails is answered then, not at Close.
func TestQueuedRequestsFailWithTheDisk(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewMem())
	opts := testOptions(faulty)
	opts.DirtyBytes = 1 // the write stage waits for each flush
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	gate := vfs.NewGate(".journal")
	gate.Hold()
	t.Cleanup(gate.Release)
	faulty.SetHooks(gate.Hook, vfs.FailNth(vfs.OpWriteSync, 1, errors.New("input/output error")))
	w := newWaiter()
	first := w.submit(t, p, produce(qos.Persistence, part, makeBatch(1, "x", -1, -1, -1)))
	eventually(t, "the first is written", func() bool { return p.Written() > p.flushed.Load() })
	queued := []*Request{first}
	for range 5 {
		queued = append(queued, w.submit(t, p, produce(qos.Persistence, part, makeBatch(1, "x", -1, -1, -1))))
	}
	gate.Release()
	for _, r := range queued {
		w.wait(t, r)
		if !errors.Is(r.Err, ErrFailed) {
			t.Errorf("%v, want %v", r.Err, ErrFailed)
		}
	}
	w.onceEach(t)
}

// failsMeanwhile is a request's owner, and has the disk fail while the write goroutine is at the request, and the respond goroutine act on it.
type failsMeanwhile struct {
	p        *Pipeline
	answered []error
}

func (f *failsMeanwhile) Serialized(*Request) {
	f.p.fatal(errors.New("input/output error"))
	<-f.p.respond.wake
	f.p.respond.step()
}

func (f *failsMeanwhile) Answer(r *Request) Waker {
	f.answered = append(f.answered, r.Err)
	return nil
}

// TestRequestBeingWrittenFailsWithTheDisk: what the write goroutine holds while the disk fails is behind the last flush, and is answered all the same.
func TestRequestBeingWrittenFailsWithTheDisk(t *testing.T) {
	p, err := openStill(testOptions(vfs.NewMem()))
	if err != nil {
		t.Fatal(err)
	}
	owner := &failsMeanwhile{p: p}
	r := command(catalog.Command{CreateTopic: &catalog.CreateTopic{Name: "t", ID: catalog.TopicID{1}, Partitions: 1}})
	r.Owner = owner
	if err := p.Submit([]*Request{r}); err != nil {
		t.Fatal(err)
	}
	p.write.step()
	select {
	case <-p.respond.wake:
		p.respond.step()
	default:
		t.Error("nobody looks at the request any more")
	}
	if len(owner.answered) != 1 || !errors.Is(owner.answered[0], ErrFailed) {
		t.Errorf("answers: %v, want one: %v", owner.answered, ErrFailed)
	}
	if err := p.Close(); err == nil {
		t.Error("closed without the disk's error")
	}
}
