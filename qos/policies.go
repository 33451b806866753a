package qos

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Policies is a set of policies, most special first. It is immutable; With and Without make another one. A nil set is empty.
//
// Each setting of a request comes from the most special policy that matches it and says something of that setting, as Kafka's quotas do it: a rate for one client takes no floor away that all have.
type Policies struct {
	list []*Policy

	known    sync.Map     // who to *Effective: what was looked up
	knownLen atomic.Int64 // of known, about
}

// who is what a request is told apart by.
type who struct{ principal, client, topic string }

// maxKnown bounds what a set remembers of its look-ups: clients choose their names.
const (
	maxKnown      = 8192
	maxKnownBytes = 512 // of one look-up's names
)

// Len is the number of policies.
func (s *Policies) Len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// All lists the policies, most special first. They are not to be changed.
func (s *Policies) All() []*Policy {
	if s == nil {
		return nil
	}
	return s.list
}

// Get finds a policy by name; nil when there is none.
func (s *Policies) Get(name string) *Policy {
	for _, p := range s.All() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// With is the set with p, in place of the one of its name if there is one. It refuses a policy that cannot be, that matches the same requests as another, or that is one too many.
func (s *Policies) With(p Policy) (*Policies, error) {
	if err := p.Validate(); err != nil {
		return s, err
	}
	rest := s.others(p.Name)
	for _, q := range rest {
		if q.Principal == p.Principal && q.Client == p.Client && q.Topic == p.Topic {
			return s, fmt.Errorf("%w: %q is for %s, too: neither would be the more special one", ErrPolicyTie, q.Name, q.Match())
		}
	}
	if len(rest) >= MaxPolicies {
		return s, fmt.Errorf("%w: there are %d; take one away first, or let a prefix stand for several", ErrPolicies, MaxPolicies)
	}
	rest = append(rest, &p)
	slices.SortStableFunc(rest, compare)
	return &Policies{list: rest}, nil
}

// Without is the set without the policy of a name; it may be nil. It refuses a name that is not there.
func (s *Policies) Without(name string) (*Policies, error) {
	rest := s.others(name)
	switch {
	case len(rest) == s.Len():
		return s, fmt.Errorf("%w: %q", ErrNoPolicy, name)
	case len(rest) == 0:
		return nil, nil
	}
	return &Policies{list: rest}, nil
}

func (s *Policies) others(name string) []*Policy {
	var out []*Policy
	for _, p := range s.All() {
		if p.Name != name {
			out = append(out, p)
		}
	}
	return out
}

// Effective is what a set says of one principal, client id and topic. It is immutable.
type Effective struct {
	acksOne, acksAll *Level
	floor, ceiling   Marks // ceiling is all marks when nobody set one

	Deadline    Duration // 0: none
	Produce     Limit    // bytes a second
	Fetch       Limit
	Requests    Limit  // requests a second
	InFlight    Bytes  // 0: none
	Weight      Weight // at least 1
	fromByName  map[string]*Policy
	ceilingCuts bool // a floor goes before it
}

// Limit is a rate, and the name of the policy that has it. Rate 0: none.
type Limit struct {
	Rate   int64
	Policy string
}

// For looks up what the set says. Any goroutine; what was looked up before is remembered.
func (s *Policies) For(principal, client, topic string) *Effective {
	key := who{principal, client, topic}
	if e, ok := s.known.Load(key); ok {
		return e.(*Effective)
	}
	e := s.find(key)
	if len(principal)+len(client)+len(topic) > maxKnownBytes {
		return e
	}
	if s.knownLen.Add(1) > maxKnown {
		s.known.Clear()
		s.knownLen.Store(1)
	}
	s.known.Store(key, e)
	return e
}

func (s *Policies) find(w who) *Effective {
	e := &Effective{Weight: 1, ceiling: everyMark, fromByName: make(map[string]*Policy)}
	for _, p := range s.list {
		if !p.Matches(w.principal, w.client, w.topic) {
			continue
		}
		for _, set := range settings {
			if set.of(p) != "" && e.fromByName[set.name] == nil {
				e.fromByName[set.name] = p
				e.take(set.name, p)
			}
		}
	}
	if e.floor&^e.ceiling != 0 { // of two policies: what was to be kept safe goes first
		e.ceilingCuts = true
		e.ceiling |= e.floor
	}
	return e
}

const everyMark = ^Marks(0)

// take has the effective value of one setting from p.
func (e *Effective) take(name string, p *Policy) {
	switch name {
	case "acks_1":
		e.acksOne = p.AcksOne
	case "acks_all":
		e.acksAll = p.AcksAll
	case "floor":
		e.floor = p.Floor.Marks()
	case "ceiling":
		e.ceiling = p.Ceiling.Marks()
	case "deadline":
		e.Deadline = p.Deadline
	case "produce_rate":
		e.Produce = Limit{int64(p.ProduceRate), p.Name}
	case "fetch_rate":
		e.Fetch = Limit{int64(p.FetchRate), p.Name}
	case "request_rate":
		e.Requests = Limit{int64(p.RequestRate), p.Name}
	case "in_flight":
		e.InFlight = p.InFlight
	case "weight":
		e.Weight = p.Weight
	}
}

// Marks is the level that these acks ask for, and what a request with them waits for: the level's marks, less what the ceiling does not allow, and what the floor wants. server is the map of acks where no policy has one. False: acks is none of −1, 0, 1, 101–104.
func (e *Effective) Marks(acks int16, server AcksMap) (asked Level, marks Marks, ok bool) {
	if e.acksOne != nil {
		server.One = *e.acksOne
	}
	if e.acksAll != nil {
		server.All = *e.acksAll
	}
	asked, ok = server.Level(acks)
	return asked, asked.Marks()&e.ceiling | e.floor, ok
}

// LevelOf is the least level that waits for all of these marks.
func LevelOf(m Marks) Level {
	for l := range levels { // by code, each level comes before those that wait for more
		if m&^levels[l].marks == 0 {
			return Level(l)
		}
	}
	return All
}

// Reason says where one setting comes from.
type Reason struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	Policy  string `json:"policy"`
	Match   string `json:"match"`
	Note    string `json:"note,omitempty"`
}

// Reasons lists every setting that a policy decides.
func (e *Effective) Reasons() []Reason {
	var out []Reason
	for _, s := range settings {
		p := e.fromByName[s.name]
		if p == nil {
			continue
		}
		r := Reason{Setting: s.name, Value: s.of(p), Policy: p.Name, Match: p.Match()}
		if s.name == "ceiling" && e.ceilingCuts {
			r.Note = "the floor wants more and goes before it"
		}
		out = append(out, r)
	}
	return out
}
