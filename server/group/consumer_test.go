package group

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestConsumerScripts plays the files in testdata/consumer: the life of a group of KIP-848 told event by event. `go test ./server/group -run Scripts -rewrite` writes what happens into them.
//
//	topics NAME=PARTITIONS...     what there is from now on
//	join NAME [topics=(a,b)] [regex=R] [assignor=A] [instance=I] [rebalance=D] [epoch=N] [owned=...]
//	beat NAME [owned=(a:0,a:1)] [topics=...] [assignor=A] [epoch=N]
//	                              NAME's heartbeat with the epoch that it was told; owned=(is) is what it was told last
//	leave NAME [back]             for good, or for a while
//	commit NAME [epoch=N] [owned=(a:0)]   of these
//	at T                          the time is T: the group looks whenever it asked to, up to then
//	show
func TestConsumerScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/consumer", func(t *testing.T, path string) {
		s := &consumerScript{g: NewConsumer(Limits{Members: 3, Session: 10 * time.Second}), topics: &world848{}, told: make(map[string][]Partition), epochs: make(map[string]int32), insts: make(map[string]string)}
		datadriven.RunTest(t, path, s.play)
	})
}

// world848 is all topics; their ids are their names.
type world848 struct{ all []Topic }

func (w *world848) Named(name string) (Topic, bool) {
	i := slices.IndexFunc(w.all, func(t Topic) bool { return t.Name == name })
	if i < 0 {
		return Topic{}, false
	}
	return w.all[i], true
}

func (w *world848) Matching(re *regexp.Regexp) (ts []Topic) {
	for _, t := range w.all {
		if re.MatchString(t.Name) {
			ts = append(ts, t)
		}
	}
	return ts
}

func topicID(name string) (id [16]byte) {
	copy(id[:], name)
	return id
}

type consumerScript struct {
	g      *Consumer
	topics *world848
	now    time.Duration
	told   map[string][]Partition
	epochs map[string]int32
	insts  map[string]string
}

func (s *consumerScript) play(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "topics":
		w := &world848{}
		for _, a := range d.CmdArgs {
			topic := Topic{ID: topicID(a.Key), Name: a.Key}
			fmt.Sscan(a.Vals[0], &topic.Partitions)
			w.all = append(w.all, topic)
		}
		s.topics = w
		return ""
	case "at":
		to := duration(t, d.CmdArgs[0].Key)
		out := ""
		for {
			next := s.g.Next()
			if next == 0 || next > to {
				s.now = to
				return out + "now " + to.String() + "\n"
			}
			before := len(s.g.members)
			s.now = max(s.now, next)
			s.g.Step(s.now, 0, Tick{})
			if len(s.g.members) == before {
				t.Fatalf("%s: nothing was due at %v", d.Pos, next)
			}
			out += fmt.Sprintf("at %v: %d members\n", s.now, len(s.g.members))
		}
	case "show":
		desc := s.g.Describe()
		out := fmt.Sprintf("%s epoch=%d target=%d %s next=%v\n", desc.State, desc.Generation, desc.TargetEpoch, desc.Protocol, s.g.Next())
		for _, m := range desc.Members {
			out += fmt.Sprintf("%s epoch=%d has %s is to have %s\n", m.ID, m.Epoch, show(m.Partitions), show(m.Target))
		}
		return out
	}
	name := d.CmdArgs[0].Key
	h := ConsumerHeartbeat{Who: Who{Member: name, Instance: s.insts[name], Generation: s.epochs[name]}, Topics: s.topics}
	if d.Cmd == "join" {
		h.Generation, h.Rebalance, h.Owned = 0, 5*time.Second, []Partition{}
	}
	for _, a := range d.CmdArgs[1:] {
		val := strings.Join(a.Vals, ",")
		switch a.Key {
		case "topics":
			h.Subscribed = slices.DeleteFunc(a.Vals, func(s string) bool { return s == "" })
		case "regex":
			h.Regex, h.RegexSaid = regexp.MustCompile("^(?:"+val+")$"), true
		case "assignor":
			h.Assignor = &val
		case "instance":
			h.Instance, s.insts[name] = val, val
		case "rebalance":
			h.Rebalance = duration(t, val)
		case "epoch":
			fmt.Sscan(val, &h.Generation)
		case "owned":
			h.Owned = []Partition{}
			for _, v := range a.Vals {
				if v == "is" {
					h.Owned = append(h.Owned, s.told[name]...)
				} else if topic, index, ok := strings.Cut(v, ":"); ok {
					p := Partition{Topic: topicID(topic)}
					fmt.Sscan(index, &p.Index)
					h.Owned = append(h.Owned, p)
				}
			}
		case "back":
		default:
			t.Fatalf("%s: unknown argument %q", d.Pos, a.Key)
		}
	}
	switch d.Cmd {
	case "leave":
		h.Generation = leaves
		if len(d.CmdArgs) > 1 {
			h.Generation = leavesToBack
		}
	case "commit":
		return message(s.g.Step(s.now, 1, Commit{h.Who, h.Owned})[0].Body.(Reply).Err) + "\n"
	}
	r := s.g.Step(s.now, 1, h)[0].Body.(ConsumerReply)
	if r.Err != nil {
		return strings.TrimSpace(r.Err.Message+" "+r.Why) + "\n"
	}
	s.epochs[name] = r.Epoch
	if r.Assigns {
		s.told[name] = r.Assigned
		return fmt.Sprintf("epoch=%d has %s\n", r.Epoch, show(r.Assigned))
	}
	return fmt.Sprintf("epoch=%d\n", r.Epoch)
}

func show(ps []Partition) string {
	if len(ps) == 0 {
		return "nothing"
	}
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("%s:%d", strings.TrimRight(string(p.Topic[:]), "\x00"), p.Index))
	}
	return strings.Join(out, " ")
}

// TestConsumersSettle has members that come, go, die and change their minds, by seed, with heartbeats that name what they own, and checks after each step that no partition has two members that may read it. In the end everything that is wanted is read by one, and shared evenly.
func TestConsumersSettle(t *testing.T) {
	first := uint64(time.Now().UnixNano())
	const seeds = 200
	t.Logf("seeds %d to %d", first, first+seeds-1)
	for seed := first; seed < first+seeds; seed++ {
		rng := rand.New(rand.NewPCG(seed, 2))
		g, now := NewConsumer(Limits{Members: 20, Session: 10 * time.Second}), time.Duration(0)
		topics := &world848{all: []Topic{{topicID("a"), "a", int32(1 + rng.IntN(9))}, {topicID("b"), "b", int32(1 + rng.IntN(5))}}}
		type client struct {
			id    string
			epoch int32
			owns  map[Partition]bool // what it may read
		}
		var clients []*client
		ids := 0
		check := func() {
			t.Helper()
			readers := make(map[Partition]string)
			for _, c := range clients {
				for p := range c.owns {
					if other := readers[p]; other != "" {
						t.Fatalf("seed %d: %s and %s both read %s", seed, other, c.id, show([]Partition{p}))
					}
					readers[p] = c.id
				}
			}
		}
		pass := func(d time.Duration) {
			now += d
			for next := g.Next(); next != 0 && next <= now; next = g.Next() {
				g.Step(now, 0, Tick{})
			}
			for _, c := range clients { // who was taken out notices, and lets go before it reads on
				if m := g.members[c.id]; m == nil && c.epoch != 0 {
					c.epoch, c.owns = 0, map[Partition]bool{}
				}
			}
		}
		beat := func(c *client, assignor *string) {
			h := ConsumerHeartbeat{Who: Who{Member: c.id, Generation: c.epoch}, Topics: topics, Owned: slices.SortedFunc(maps.Keys(c.owns), comparePartitions)}
			if h.Owned == nil {
				h.Owned = []Partition{}
			}
			h.Assignor = assignor
			if c.epoch == 0 {
				h.Subscribed, h.Rebalance, h.Owned = []string{"a", "b"}, 5*time.Second, []Partition{}
			}
			r := g.Step(now, 1, h)[0].Body.(ConsumerReply)
			if r.Err != nil { // it was taken for dead: it lets go of everything, and joins again
				c.epoch, c.owns = 0, map[Partition]bool{}
				return
			}
			if c.epoch = r.Epoch; r.Assigns {
				c.owns = map[Partition]bool{}
				for _, p := range r.Assigned {
					c.owns[p] = true
				}
			}
			check()
		}
		for range 300 {
			switch k := rng.IntN(12); {
			case k == 0 && len(clients) < 8:
				ids++
				clients = append(clients, &client{id: fmt.Sprintf("m%d", ids), owns: map[Partition]bool{}})
			case k == 1 && len(clients) > 1: // one leaves
				i := rng.IntN(len(clients))
				g.Step(now, 1, ConsumerHeartbeat{Who: Who{Member: clients[i].id, Generation: leaves}, Topics: topics})
				clients = slices.Delete(clients, i, i+1)
			case k == 2 && len(clients) > 1: // one dies: its session ends before others read what it read
				i := rng.IntN(len(clients))
				clients = slices.Delete(clients, i, i+1)
			case k == 3: // more partitions
				all := slices.Clone(topics.all)
				all[rng.IntN(len(all))].Partitions++
				topics = &world848{all: all}
			case k == 4:
				pass(time.Duration(rng.IntN(4000)) * time.Millisecond)
			case k == 5 && len(clients) > 0:
				a := []string{Uniform, Range}[rng.IntN(2)]
				beat(clients[rng.IntN(len(clients))], &a)
			case len(clients) > 0:
				beat(clients[rng.IntN(len(clients))], nil)
			}
		}
		if len(clients) == 0 {
			continue
		}
		for round := range 60 {
			pass(time.Second)
			for _, c := range clients {
				beat(c, nil)
			}
			if d := g.Describe(); d.State == "Stable" && len(d.Members) == len(clients) && round > 15 { // those who died are gone
				break
			}
		}
		d := g.Describe()
		read, least, most := 0, 1<<30, 0
		for _, c := range clients {
			read += len(c.owns)
			least, most = min(least, len(c.owns)), max(most, len(c.owns))
		}
		want := int(topics.all[0].Partitions + topics.all[1].Partitions)
		if d.State != "Stable" || read != want || d.Protocol == Uniform && most-least > 1 {
			t.Fatalf("seed %d: %s, %d of %d partitions are read, %d to %d by each, %s", seed, d.State, read, want, least, most, d.Protocol)
		}
	}
}
