package group

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestRandomMembersSettle has members that come, go, die, forget and repeat themselves, by seed, and then behave: every event is answered exactly once, and in the end all who live are in one stable generation with a part each.
func TestRandomMembersSettle(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 30
	}
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds %d to %d", first, first+seeds-1)
	for seed := first; seed < first+seeds; seed++ {
		w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), asked: make(map[Ref]*actor), g: nil}
		w.g = New(Limits{InitialDelay: time.Duration(w.rng.IntN(3)) * time.Second, Members: 50})
		for range 2 + w.rng.IntN(8) {
			a := &actor{alive: true}
			if w.rng.IntN(3) == 0 {
				a.instance = fmt.Sprintf("i%d", len(w.actors))
			}
			w.actors = append(w.actors, a)
		}
		for range 400 {
			w.wild()
		}
		w.settle()
	}
}

type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	g      *Group
	now    time.Duration
	last   Ref
	asked  map[Ref]*actor
	actors []*actor
	ids    int
}

// actor is a client with at most one event that is not answered.
type actor struct {
	alive      bool
	id         string
	instance   string
	generation int32
	leads      bool
	members    []Joined
	joined     bool // in generation, as far as it knows
	part       string
	waits      Ref
}

func (w *world) step(a *actor, e Event) {
	ref := Ref(0)
	if a != nil {
		w.last++
		ref = w.last
		w.asked[ref] = a
		a.waits = ref
	}
	for _, ans := range w.g.Step(w.now, ref, e) {
		to := w.asked[ans.To]
		if to == nil {
			w.t.Fatalf("seed %d: %d is answered, but nobody asked or it was answered before", w.seed, ans.To)
		}
		delete(w.asked, ans.To)
		if to.waits != ans.To {
			continue // it waits no more
		}
		to.waits = 0
		to.hear(ans.Body)
	}
}

func (a *actor) hear(body any) {
	switch r := body.(type) {
	case JoinReply:
		a.joined, a.part = r.Err == nil, ""
		if r.Err == nil {
			a.id, a.generation, a.leads, a.members = r.Member, r.Generation, r.Leader == r.Member, r.Members
		} else if a.id = r.Member; r.Err.Message != "MEMBER_ID_REQUIRED" {
			a.id = ""
		}
	case SyncReply:
		if r.Err == nil {
			a.part = string(r.Assignment)
		} else {
			a.joined = false
			a.forget(r.Err.Message)
		}
	case Reply:
		if r.Err != nil {
			a.joined = false
			a.forget(r.Err.Message)
		}
	}
}

func (a *actor) forget(why string) {
	if why == "UNKNOWN_MEMBER_ID" || why == "FENCED_INSTANCE_ID" {
		a.id = ""
	}
}

func (w *world) who(a *actor) Who { return Who{a.id, a.instance, a.generation} }

func (w *world) join(a *actor, said string) {
	w.ids++
	w.step(a, Join{Who: w.who(a), NewID: fmt.Sprintf("m%d", w.ids), NeedsID: w.rng.IntN(2) == 0, CanSkip: w.rng.IntN(2) == 0, ProtocolType: "consumer",
		Protocols: []Protocol{{"p", []byte(said)}}, Session: 10 * time.Second, Rebalance: 15 * time.Second})
}

func (w *world) sync(a *actor) {
	s := Sync{Who: w.who(a), Assignments: make(map[string][]byte)}
	if a.leads {
		for _, m := range a.members {
			s.Assignments[m.Member] = []byte("part of " + m.Member)
		}
	}
	w.step(a, s)
}

// wild does something that a client may do, sensible or not.
func (w *world) wild() {
	a := w.actors[w.rng.IntN(len(w.actors))]
	switch w.rng.IntN(10) {
	case 0:
		w.pass(time.Duration(w.rng.IntN(8000)) * time.Millisecond)
	case 1: // its connection ends
		if a.waits != 0 {
			w.step(nil, Gone{a.waits})
			delete(w.asked, a.waits)
			a.waits = 0
		}
	case 2: // it starts anew
		if a.waits == 0 {
			a.id, a.joined = "", false
		}
	case 3:
		if a.waits == 0 && a.joined {
			w.step(a, Heartbeat{w.who(a)})
		}
	case 4:
		if a.waits == 0 && a.id != "" {
			w.step(a, Commit{w.who(a), nil})
		}
	case 5:
		if a.id != "" {
			w.last++
			w.asked[w.last] = &actor{}
			w.asked[w.last].waits = w.last
			for _, ans := range w.g.Step(w.now, w.last, Leave{[]Who{w.who(a)}}) {
				to := w.asked[ans.To]
				delete(w.asked, ans.To)
				if to != nil && to.waits == ans.To {
					to.waits = 0
					to.hear(ans.Body)
				}
			}
		}
	case 6:
		if a.waits == 0 && a.joined {
			w.sync(a)
		}
	default:
		if a.waits == 0 {
			w.join(a, fmt.Sprint(w.rng.IntN(3)))
		}
	}
}

// pass lets time go by, with the group looking whenever it asked to.
func (w *world) pass(d time.Duration) {
	end := w.now + d
	for {
		next := w.g.Next()
		if next == 0 || next > end {
			break
		}
		w.now = max(w.now, next)
		w.step(nil, Tick{})
		if again := w.g.Next(); again == next {
			w.t.Fatalf("seed %d: at %v it asks to be looked at at %v again", w.seed, w.now, next)
		}
	}
	w.now = end
}

// settle has all behave from now on.
func (w *world) settle() {
	for round := range 200 {
		stable := w.g.state == Stable && len(w.g.members) == len(w.actors)
		for _, a := range w.actors {
			switch {
			case a.waits != 0:
				stable = false
			case !a.joined:
				stable = false
				w.join(a, "calm")
			case a.part == "":
				stable = false
				w.sync(a)
			default:
				w.step(a, Heartbeat{w.who(a)})
			}
		}
		for _, a := range w.actors {
			stable = stable && a.joined && a.part == "part of "+a.id && a.generation == w.g.generation
		}
		if stable {
			if len(w.asked) != 0 {
				w.t.Fatalf("seed %d: %d events were never answered", w.seed, len(w.asked))
			}
			return
		}
		if round == 199 {
			w.t.Fatalf("seed %d: not settled: %+v", w.seed, w.g.Describe())
		}
		w.pass(time.Second)
	}
}
