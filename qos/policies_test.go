package qos

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func level(l Level) *Level { return &l }

// with makes a set, or ends the test.
func with(t *testing.T, policies ...Policy) *Policies {
	t.Helper()
	var s *Policies
	for _, p := range policies {
		var err error
		if s, err = s.With(p); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestTheMostSpecialPolicyThatSaysSomethingWins(t *testing.T) {
	s := with(t,
		Policy{Name: "all", Client: "*", Floor: level(Receive), Weight: 2, ProduceRate: 10},
		Policy{Name: "orders", Client: "orders-*", Floor: level(Persistence), ProduceRate: 20},
		Policy{Name: "orders-eu", Client: "orders-eu*", FetchRate: 7},
		Policy{Name: "one", Client: "orders-eu-1", ProduceRate: 30},
		Policy{Name: "audit", Topic: "audit", Floor: level(All), ProduceRate: 1},
		Policy{Name: "alice", Principal: "User:alice", ProduceRate: 40},
	)
	for _, c := range []struct {
		principal, client, topic string
		want                     string // setting=value@policy
	}{
		{"User:ANONYMOUS", "x", "t", "floor=receive@all produce_rate=10B/s@all weight=2@all"},
		{"User:ANONYMOUS", "orders-1", "t", "floor=persistence@orders produce_rate=20B/s@orders weight=2@all"},
		{"User:ANONYMOUS", "orders-eu-1", "t", "floor=persistence@orders produce_rate=30B/s@one fetch_rate=7B/s@orders-eu weight=2@all"},
		{"User:ANONYMOUS", "orders-1", "audit", "floor=persistence@orders produce_rate=20B/s@orders weight=2@all"}, // client before topic
		{"User:alice", "orders-1", "t", "floor=persistence@orders produce_rate=40B/s@alice weight=2@all"},          // principal before client
		{"User:alicea", "", "audit", "floor=receive@all produce_rate=10B/s@all weight=2@all"},
	} {
		var got []string
		for _, r := range s.For(c.principal, c.client, c.topic).Reasons() {
			got = append(got, fmt.Sprintf("%s=%s@%s", r.Setting, r.Value, r.Policy))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s %s %s:\n got %s\nwant %s", c.principal, c.client, c.topic, strings.Join(got, " "), c.want)
		}
		if again := s.For(c.principal, c.client, c.topic); again != s.For(c.principal, c.client, c.topic) {
			t.Error("what was looked up is not remembered")
		}
	}
	left, err := s.Without("orders")
	if err != nil || left.Len() != 5 || s.Len() != 6 {
		t.Fatalf("%d of %d are left, %v", left.Len(), s.Len(), err)
	}
	if got := left.For("", "orders-1", "").Produce; got != (Limit{10, "all"}) {
		t.Errorf("without orders: %+v", got)
	}
}

// Whatever acks, floor and ceiling there are: what is waited for is the union with the floor of what the ceiling leaves, and some level has a name for it.
func TestFloorAndCeiling(t *testing.T) {
	choices := []*Level{nil, level(Receive), level(Persistence), level(Replication), level(All)}
	for _, acks := range []int16{0, 1, -1, 101, 102, 103, 104} {
		asked, _ := DefaultAcks.Level(acks)
		for _, floor := range choices {
			for _, ceiling := range choices {
				p := Policy{Name: "p", Floor: floor, Ceiling: ceiling, Weight: 1}
				marks, most := asked.Marks(), ^Marks(0)
				if ceiling != nil {
					most = ceiling.Marks()
				}
				if floor != nil && floor.Marks()&^most != 0 {
					if err := p.Validate(); !errors.Is(err, ErrPolicy) {
						t.Errorf("floor %v, ceiling %v: %v", *floor, *ceiling, err)
					}
					continue
				}
				marks &= most
				if floor != nil {
					marks |= floor.Marks()
				}
				_, got, ok := with(t, p).For("", "", "").Marks(acks, DefaultAcks)
				if !ok || got != marks {
					t.Errorf("acks %d, floor %v, ceiling %v: marks %05b, want %05b", acks, floor, ceiling, got, marks)
				}
				if l := LevelOf(got); got&^l.Marks() != 0 || l != All && l.Marks() != got {
					t.Errorf("marks %05b are level %s, which waits for %05b", got, l, l.Marks())
				}
			}
		}
	}
	// Of two policies the floor goes first.
	s := with(t, Policy{Name: "a", Client: "c", Ceiling: level(Receive)}, Policy{Name: "b", Topic: "t", Floor: level(All)})
	if _, got, _ := s.For("", "c", "t").Marks(101, DefaultAcks); got != All.Marks() {
		t.Errorf("marks %05b, want the floor's", got)
	}
}

func TestPoliciesThatCannotBe(t *testing.T) {
	s := with(t, Policy{Name: "have", Client: "c", Weight: 1})
	for _, c := range []struct {
		p    Policy
		want error
		says string
	}{
		{Policy{Weight: 1}, ErrPolicy, "is no name"},
		{Policy{Name: "a/../b", Weight: 1}, ErrPolicy, "is no name"},
		{Policy{Name: " a", Weight: 1}, ErrPolicy, "is no name"},
		{Policy{Name: "a\nb", Weight: 1}, ErrPolicy, "printable"},
		{Policy{Name: "p", Principal: "alice", Weight: 1}, ErrPolicy, "like User:alice"},
		{Policy{Name: "p"}, ErrPolicy, "sets nothing"},
		{Policy{Name: "p", Client: "a*b", Weight: 1}, ErrPolicy, "at the end only"},
		{Policy{Name: "p", Ceiling: level(OneWay)}, ErrPolicy, "ceiling: one-way"},
		{Policy{Name: "p", AcksOne: level(9)}, ErrPolicy, "acks_1"},
		{Policy{Name: "p", Floor: level(All), Ceiling: level(Persistence)}, ErrPolicy, "floor all"},
		{Policy{Name: "p", Weight: -1}, ErrPolicy, "weight"},
		{Policy{Name: "p", Weight: MaxWeight + 1}, ErrPolicy, "weight"},
		{Policy{Name: "p", Deadline: 1}, ErrPolicy, "less than a millisecond"},
		{Policy{Name: "p", Topic: "t", InFlight: 1}, ErrPolicy, "as a whole"},
		{Policy{Name: "p", Client: "c", Weight: 1}, ErrPolicyTie, `"have" is for client=c`},
	} {
		if got, err := s.With(c.p); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || got != s {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
	if _, err := s.Without("other"); !errors.Is(err, ErrNoPolicy) {
		t.Error(err)
	}
	full := s
	for i := full.Len(); i < MaxPolicies; i++ {
		full = &Policies{list: append(full.list, &Policy{Name: fmt.Sprint(i), Client: fmt.Sprint(i)})}
	}
	if _, err := full.With(Policy{Name: "more", Weight: 1}); !errors.Is(err, ErrPolicies) {
		t.Error(err)
	}
	if _, err := full.With(Policy{Name: "have", Client: "c", Weight: 2}); err != nil {
		t.Errorf("in place of one that is there: %v", err)
	}
}

func TestPolicyAsJSON(t *testing.T) {
	p := Policy{Name: "p", Client: "c*", AcksOne: level(Receive), Deadline: Duration(50 * time.Millisecond), ProduceRate: 5 << 20, FetchRate: 1000, RequestRate: 100, InFlight: 8 << 20, Weight: 3}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"p","client":"c*","acks_1":"receive","deadline":"50ms","produce_rate":"5MiB/s","fetch_rate":"1000B/s","request_rate":"100/s","in_flight":"8MiB","weight":3}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var back Policy
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(p, back) {
		t.Errorf("%+v, %v", back, err)
	}
	for _, bad := range []string{`{"deadline":"0s"}`, `{"deadline":"fast"}`, `{"produce_rate":"-1"}`, `{"produce_rate":"0"}`, `{"in_flight":"8 apples"}`, `{"request_rate":"1.5"}`, `{"floor":"strong"}`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestQuota(t *testing.T) {
	q := NewQuotas()
	limit := Limit{Rate: 1000, Policy: "p"}
	take := func(client string, n int, now time.Duration) time.Duration {
		return q.Take(ProduceBytes, limit, "u", client, n, now)
	}
	if w := take("a", 1000, 0); w != 0 {
		t.Errorf("a second's worth costs %v", w)
	}
	if w := take("a", 500, 0); w != 500*time.Millisecond {
		t.Errorf("half a second's more costs %v", w)
	}
	rates := func(rate ByteRate) *Policies { return with(t, Policy{Name: "p", Topic: "t", ProduceRate: rate}) }
	if w := q.Owes(ProduceBytes, rates(1000), "u", "a", 200*time.Millisecond); w != 300*time.Millisecond {
		t.Errorf("200 ms later %v is owed", w)
	}
	if w := take("b", 1000, 0) + q.Take(FetchBytes, limit, "u", "a", 1000, 0); w != 0 {
		t.Errorf("another client's, or another kind's: %v", w)
	}
	limit.Rate = 10_000 // what is owed is paid at the new rate
	if w := q.Owes(ProduceBytes, rates(10_000), "u", "a", 200*time.Millisecond); w != 30*time.Millisecond {
		t.Errorf("at ten times the rate %v is owed", w)
	}
	if w := q.Owes(ProduceBytes, nil, "u", "a", 200*time.Millisecond); w != 0 || len(q.debts) != 0 {
		t.Errorf("to a policy that is gone %v is owed", w)
	}
	if w := take("a", 10_000, time.Hour); w != 0 {
		t.Errorf("after an hour a second's worth costs %v", w)
	}
	if w := take("a", 1, time.Hour); w <= 0 {
		t.Error("an hour saved more than a second's worth")
	}
	if w := take("b", 1<<60, time.Hour); w != maxWait {
		t.Errorf("a large debt costs %v at once", w)
	}
	q.Count("p", time.Second)
	q.Count("p", 0)
	if c := q.Counts("p"); c.Throttled.Load() != 1 || c.Waits.Load() != 1e9 {
		t.Errorf("%d were throttled", c.Throttled.Load())
	}
	// Clients choose their names: full buckets are let go.
	for i := range 3 * sweepLeast {
		take(fmt.Sprint("c", i), 1, 2*time.Hour+time.Duration(i)*time.Second)
	}
	if n := len(q.buckets); n > sweepLeast+1 {
		t.Errorf("%d buckets", n)
	}
}

// That one bucket is full again is no payment for another.
func TestDebtsAreKeptApart(t *testing.T) {
	q := NewQuotas()
	set := with(t, Policy{Name: "slow", Topic: "a", ProduceRate: 10}, Policy{Name: "fast", Topic: "b", ProduceRate: 1000})
	q.Take(ProduceBytes, Limit{10, "slow"}, "u", "c", 1010, 0)
	q.Take(ProduceBytes, Limit{1000, "fast"}, "u", "c", 1500, 0)
	q.mu.Lock()
	q.sweep(10 * time.Second)
	q.mu.Unlock()
	if w := q.Owes(ProduceBytes, set, "u", "c", 10*time.Second); w != 90*time.Second {
		t.Errorf("%v is owed", w)
	}
	if w := q.Owes(ProduceBytes, set, "u", "c", 101*time.Second); w != 0 || len(q.debts) != 0 {
		t.Errorf("%v is owed after it was paid, %d debts", w, len(q.debts))
	}
}

func TestLookUpsAreBounded(t *testing.T) {
	s := with(t, Policy{Name: "p", Weight: 1})
	for i := range 3 * maxKnown {
		s.For("", fmt.Sprint(i), "")
	}
	n := 0
	s.known.Range(func(any, any) bool { n++; return true })
	if n > maxKnown {
		t.Errorf("%d look-ups are remembered", n)
	}
}

// Whatever JSON an operator sends: it is refused, or it is a policy that can be set, looked up, and read back as it was written.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"name":"p","client":"c*","floor":"persistence","ceiling":"all","deadline":"50ms","produce_rate":"5MiB/s","request_rate":"9/s","weight":3}`), "client", "topic")
	f.Add([]byte(`{"name":"p","topic":"t","acks_1":"receive","fetch_rate":"1B/s"}`), "", "t")
	f.Fuzz(func(t *testing.T, b []byte, client, topic string) {
		var p Policy
		if json.Unmarshal(b, &p) != nil {
			return
		}
		_, _ = p.Match(), p.Said()
		var none *Policies
		s, err := none.With(p)
		if err != nil {
			return
		}
		e := s.For("User:x", client, topic)
		for _, acks := range []int16{-1, 0, 1, 104} {
			if _, marks, ok := e.Marks(acks, DefaultAcks); !ok || acks != 0 && marks&Written == 0 {
				t.Errorf("acks %d waits for %05b", acks, marks)
			}
		}
		out, err := json.Marshal(s.All()[0])
		if err != nil {
			t.Fatal(err)
		}
		var back Policy
		if err := json.Unmarshal(out, &back); err != nil || !reflect.DeepEqual(p, back) {
			t.Errorf("%s came back as %+v, %v", out, back, err)
		}
	})
}
