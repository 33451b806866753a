package pipeline

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// queued is a request of a client with one record of a size.
func queued(client string, bytes int) *Request {
	return &Request{Labels: &Labels{ClientID: client, Turn: client}, Bytes: bytes, Records: []Record{{Kind: journal.RecordBatch, Payload: zeros[:bytes]}}}
}

var zeros [1 << 20]byte // nobody looks at them

func testAdmission(budget int64) *admission {
	return newAdmission(budget, func() time.Duration { return 0 }, newSignal())
}

func TestAFloodDoesNotHoldOthersUp(t *testing.T) {
	const mib = 1 << 20
	a := testAdmission(64 * mib)
	for range 40 {
		if err := a.push([]*Request{queued("flood", 900<<10)}, false); err != nil {
			t.Fatal(err)
		}
	}
	few := []*Request{queued("orders", 100), queued("orders", 100)}
	if err := a.push(few, false); err != nil {
		t.Fatal(err)
	}
	a.peek(mib, 16*mib)
	got := a.take(nil)
	if !slices.Contains(got, few[0]) || !slices.Contains(got, few[1]) {
		t.Errorf("the first of %d requests of the flood left, and not the others", len(got))
	}
}

// Whatever comes and goes: each request leaves once, those of a client in order, and no more at once than the limit.
func TestAdmissionInTurns(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for range 200 {
		a := testAdmission(1 << 40)
		clients := 1 + rng.IntN(5)
		size := func(c int) int { return 1 + rng.IntN(1<<(6+3*c)) } // each its own
		var waiting [5][]*Request
		took := 0
		pushed := 0
		leave := func() {
			target := 1 + rng.IntN(256<<10)
			body, n := a.peek(target, 2*target)
			if again, m := a.peek(target, 2*target); again != body || m != n {
				t.Fatalf("peek says %d, %d and then %d, %d", body, n, again, m)
			}
			got := a.take(nil)
			if len(got) != n {
				t.Fatalf("%d left, peek said %d", len(got), n)
			}
			sum := 0
			for i, r := range got {
				if sum += r.body; i > 0 && sum > 2*target {
					t.Fatalf("%d body bytes left, the limit is %d", sum, 2*target)
				}
				var c int
				fmt.Sscan(r.Labels.ClientID, &c)
				if waiting[c][0] != r {
					t.Fatalf("client %d: out of order", c)
				}
				waiting[c] = waiting[c][1:]
				took++
			}
		}
		for range 300 {
			for c := range clients {
				for range rng.IntN(5) {
					r := queued(fmt.Sprint(c), size(c))
					if err := a.push([]*Request{r}, false); err != nil {
						t.Fatal(err)
					}
					waiting[c] = append(waiting[c], r)
					pushed++
				}
			}
			leave()
		}
		for !a.empty() {
			leave()
		}
		if took != pushed || a.bytes.Load() != 0 || len(a.ring) != 0 || len(a.clients) != 0 {
			t.Fatalf("%d of %d left; %d bytes, %d queues remain", took, pushed, a.bytes.Load(), len(a.ring))
		}
	}
}

func TestPartsByWeight(t *testing.T) {
	a := testAdmission(1 << 40)
	weights := map[string]int{"one": 1, "four": 4, "none": 0}
	for client, weight := range weights {
		for range 4096 {
			r := queued(client, 20<<10)
			r.Labels.Weight = weight
			if err := a.push([]*Request{r}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string]int{}
	for range 60 {
		a.peek(1<<20, 16<<20)
		for _, r := range a.take(nil) {
			got[r.Labels.ClientID]++
		}
	}
	if r := float64(got["four"]) / float64(got["one"]); r < 3.8 || r > 4.2 || got["none"] < got["one"]*19/20 || got["none"] > got["one"]*21/20 {
		t.Errorf("with weights %v so many left: %v", weights, got)
	}
	if a.weights != 6 {
		t.Errorf("the ring weighs %d", a.weights)
	}
	lighter, command := queued("four", 1), queued("one", 1)
	lighter.Labels.Weight = 1
	if err := a.push([]*Request{command}, false); err != nil || a.weights != 6 {
		t.Errorf("with a request that says no weight the ring weighs %d, %v", a.weights, err)
	}
	if err := a.push([]*Request{lighter}, false); err != nil || a.weights != 3 {
		t.Errorf("a client whose weight fell to 1: the ring weighs %d, %v", a.weights, err)
	}
	a.takeAll(nil)
	if a.weights != 0 {
		t.Errorf("an empty ring weighs %d", a.weights)
	}
}

func TestEqualPartsWhateverTheSize(t *testing.T) {
	a := testAdmission(1 << 40)
	sizes := map[string]int{"small": 2 << 10, "medium": 60 << 10, "large": 700 << 10}
	for client, size := range sizes {
		for range (64 << 20) / size {
			if err := a.push([]*Request{queued(client, size)}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := map[string]int{}
	for range 60 {
		a.peek(1<<20, 4<<20)
		for _, r := range a.take(nil) {
			left[r.Labels.ClientID] += r.body
		}
	}
	for client, n := range left {
		for other, m := range left {
			if d := n - m; d > 2*(700<<10) {
				t.Errorf("%s sent %d bytes and %s %d", client, n, other, m)
			}
		}
	}
}

func TestFullIsForWhoFills(t *testing.T) {
	a := testAdmission(1000)
	if err := a.push([]*Request{queued("flood", 1100)}, false); err != nil {
		t.Fatal(err)
	}
	if err := a.push([]*Request{queued("orders", 10)}, false); err != nil {
		t.Fatal(err)
	}
	resumed := 0
	flood, orders := &Resume{Wake: func() { resumed++ }}, &Resume{Wake: func() { resumed++ }}
	for range 3 { // asked again, it is told once
		if !a.full("flood", flood) {
			t.Error("who fills the queue may go on")
		}
	}
	if a.full("orders", orders) {
		t.Error("who has little in it may not go on")
	}
	if err := a.push([]*Request{queued("flood", 600)}, false); err != nil {
		t.Fatal(err)
	}
	if !a.full("orders", orders) {
		t.Error("nobody may go on far past the budget")
	}
	if err := a.push([]*Request{queued("orders", 1000)}, false); !errors.Is(err, ErrBusy) {
		t.Errorf("past twice the budget: %v", err)
	}
	for !a.empty() {
		a.peek(1<<20, 1<<20)
		a.take(nil)
	}
	if resumed != 2 {
		t.Errorf("%d of 2 were told that there is room", resumed)
	}
}

// While others keep the queue between half its budget and all of it, those who were paused look again a few at a time, in the order in which they were paused.
func TestNobodyIsForgottenBeforeAFullQueue(t *testing.T) {
	a := testAdmission(1000)
	push := func(n int) {
		t.Helper()
		if err := a.push([]*Request{queued("busy", n)}, false); err != nil {
			t.Fatal(err)
		}
	}
	push(400)
	push(700)
	var woken []int
	for i := range resumedAtOnce + 3 {
		if !a.full("busy", &Resume{Wake: func() { woken = append(woken, i) }}) {
			t.Fatal("not full")
		}
	}
	a.peek(1, 1) // 400 bytes leave, 700 stay
	a.take(nil)
	if len(woken) != resumedAtOnce || woken[0] != 0 {
		t.Errorf("%v were woken, want the first %d", woken, resumedAtOnce)
	}
	push(200)
	a.peek(1, 1)
	a.take(nil)
	if len(woken) != resumedAtOnce+3 {
		t.Errorf("%d were woken in the end", len(woken))
	}
}

func TestExpiredLeaveTheQueue(t *testing.T) {
	a := testAdmission(1 << 20)
	for i := range 12 {
		r := queued(fmt.Sprint(i%3), 100)
		r.Deadline = time.Duration(1+i%4) * time.Second
		if err := a.push([]*Request{r}, false); err != nil {
			t.Fatal(err)
		}
	}
	a.peek(300, 300) // some are chosen already
	if late := a.expire(time.Second / 2); len(late) != 0 {
		t.Errorf("%d are late before any deadline", len(late))
	}
	if late := a.expire(2 * time.Second); len(late) != 6 {
		t.Errorf("%d are late, want 6", len(late))
	}
	rest := a.takeAll(nil)
	if len(rest) != 6 || !a.empty() || a.bytes.Load() != 0 {
		t.Errorf("%d remain of 6, %d bytes", len(rest), a.bytes.Load())
	}
	for _, r := range rest {
		if r.Deadline <= 2*time.Second {
			t.Error("one that is late remains")
		}
	}
}

// While clients with much wait for their bytes to be flushed, one with little is written, as long as that is not much either.
func TestSmallRequestsPassWhatWaitsForAFlush(t *testing.T) {
	stalled(t, func(p *Pipeline, part *catalog.Partition, gate *vfs.Gate) {
		p.opts.DirtyBytes = 64 << 10
		w := newWaiter()
		of := func(client string, level qos.Level, n int) *Request {
			r := produce(level, part, makeBatch(1, strings.Repeat("x", n), -1, -1, -1))
			r.Labels = &Labels{Turn: client}
			return w.submit(t, p, r)
		}
		for range 8 {
			of("flood", qos.Persistence, 2*passBytes)
			synctest.Wait()
		}
		held := of("flood", qos.Receive, 2*passBytes)
		passed := 0
		for ; passed < 1000; passed++ {
			r := of("orders", qos.Receive, passBytes/2)
			synctest.Wait()
			if !w.isAnswered(r) {
				break
			}
		}
		if got := passed * passBytes / 2; got < passedMax-passBytes || got > passedMax+passBytes {
			t.Errorf("%d bytes of small requests passed, want about %d", got, passedMax)
		}
		if w.isAnswered(held) {
			t.Error("a large request passed with them")
		}
		gate.Release()
		synctest.Wait()
		w.onceEach(t)
		gate.Hold() // and again
		for range 8 {
			of("flood", qos.Persistence, 2*passBytes)
			synctest.Wait()
		}
		r := of("orders", qos.Receive, passBytes/2)
		if synctest.Wait(); !w.isAnswered(r) {
			t.Error("none passed the next time")
		}
	})
}

func TestPeekSmall(t *testing.T) {
	a := testAdmission(1 << 20)
	for _, r := range []*Request{queued("a", 100), queued("a", 5000), queued("b", 5000), queued("c", 50), queued("c", 60), queued("d", 70)} {
		if err := a.push([]*Request{r}, false); err != nil {
			t.Fatal(err)
		}
	}
	want := func(target, body, n int) {
		t.Helper()
		if gotBody, gotN := a.peekSmall(200, target); gotBody != body || gotN != n {
			t.Errorf("peekSmall up to %d: %d bytes of %d requests, want %d of %d", target, gotBody, gotN, body, n)
		}
	}
	small := func(n int) int { return queued("", n).bodyBytes() }
	want(1000, small(100)+small(50)+small(70), 3)
	want(1000, 0, 0) // what was chosen has not left
	a.take(nil)
	want(0, 0, 0)
	want(1, small(60), 1)
	if got := len(a.take(nil)); got != 1 || a.bytes.Load() != 10_000 || a.clientCount() != 2 {
		t.Errorf("%d taken, %d bytes of %d clients left", got, a.bytes.Load(), a.clientCount())
	}
	if body, n := a.peek(1<<20, 1<<20); body != 2*small(5000) || n != 2 {
		t.Errorf("the rest: %d bytes of %d requests", body, n)
	}
}
