package qos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Policy is what an operator says of some clients' requests. Which ones: Principal, Client and Topic are each empty (any), a name, or a prefix that ends in *. Of every setting that is zero it says nothing.
//
// The keys of its CBOR form, in which the catalog keeps it, never change their meaning.
type Policy struct {
	Name      string `json:"name" cbor:"1,keyasint"`
	Principal string `json:"principal,omitempty" cbor:"2,keyasint,omitempty"`
	Client    string `json:"client,omitempty" cbor:"3,keyasint,omitempty"`
	Topic     string `json:"topic,omitempty" cbor:"4,keyasint,omitempty"`

	AcksOne  *Level   `json:"acks_1,omitempty" cbor:"5,keyasint,omitempty"`   // what acks=1 asks for
	AcksAll  *Level   `json:"acks_all,omitempty" cbor:"6,keyasint,omitempty"` // what acks=−1 asks for
	Floor    *Level   `json:"floor,omitempty" cbor:"7,keyasint,omitempty"`    // marks that are waited for whatever was asked for
	Ceiling  *Level   `json:"ceiling,omitempty" cbor:"8,keyasint,omitempty"`  // no other marks are waited for
	Deadline Duration `json:"deadline,omitempty" cbor:"9,keyasint,omitempty"` // of a Produce request, if its own is longer

	// Of each client id by itself.
	ProduceRate ByteRate    `json:"produce_rate,omitempty" cbor:"10,keyasint,omitempty"`
	FetchRate   ByteRate    `json:"fetch_rate,omitempty" cbor:"11,keyasint,omitempty"`
	RequestRate RequestRate `json:"request_rate,omitempty" cbor:"12,keyasint,omitempty"`
	InFlight    Bytes       `json:"in_flight,omitempty" cbor:"13,keyasint,omitempty"` // requests that are read and not answered
	Weight      Weight      `json:"weight,omitempty" cbor:"14,keyasint,omitempty"`    // share of the write stage, of one that has 1 by default
}

// Why a policy is refused.
var (
	ErrPolicy      = errors.New("policy is not possible")
	ErrPolicyTie   = errors.New("another policy matches the same requests")
	ErrNoPolicy    = errors.New("no such policy")
	ErrPolicyKnown = errors.New("a policy of this name was set before")
	ErrPolicies    = errors.New("policy limit reached")
)

// Bounds of policies.
const (
	MaxPolicies     = 1000
	maxPolicyName   = 255
	maxPatternBytes = 512
	maxDeadline     = Duration(24 * time.Hour)
	MaxWeight       = 1000
)

// Validate says why the policy cannot be, naming the setting.
func (p *Policy) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %q: %s", ErrPolicy, p.Name, fmt.Sprintf(format, args...))
	}
	if err := CheckName(p.Name); err != nil {
		return err
	}
	for what, pattern := range map[string]string{"principal": p.Principal, "client": p.Client, "topic": p.Topic} {
		if len(pattern) > maxPatternBytes || !printable(pattern) {
			return bad("%s: a pattern has at most %d bytes of printable text", what, maxPatternBytes)
		}
		if i := strings.IndexByte(pattern, '*'); i >= 0 && i != len(pattern)-1 {
			return bad("%s %q: a * is allowed at the end only", what, pattern)
		}
	}
	if p.Principal != "" && p.Principal != "*" && !strings.HasPrefix(p.Principal, "User:") {
		return bad("principal %q: they are like User:alice", p.Principal)
	}
	for what, l := range map[string]*Level{"acks_1": p.AcksOne, "acks_all": p.AcksAll, "floor": p.Floor, "ceiling": p.Ceiling} {
		if l != nil && (int(*l) >= len(levels) || *l == OneWay) {
			return bad("%s: %s: a request with acks is answered, so it is one of receive, persistence, replication, all", what, *l)
		}
	}
	if p.Floor != nil && p.Ceiling != nil && p.Floor.Marks()&^p.Ceiling.Marks() != 0 {
		return bad("floor %s waits for marks that ceiling %s does not allow", *p.Floor, *p.Ceiling)
	}
	for what, v := range map[string]int64{"deadline": int64(p.Deadline), "produce_rate": int64(p.ProduceRate), "fetch_rate": int64(p.FetchRate), "request_rate": int64(p.RequestRate), "in_flight": int64(p.InFlight), "weight": int64(p.Weight)} {
		if v < 0 {
			return bad("%s: %d is less than nothing", what, v)
		}
	}
	switch {
	case p.Deadline > maxDeadline:
		return bad("deadline: %s is more than %s", p.Deadline, maxDeadline)
	case p.Deadline > 0 && p.Deadline < Duration(time.Millisecond):
		return bad("deadline: %s is less than a millisecond", p.Deadline)
	case p.Weight > MaxWeight:
		return bad("weight: %d is more than %d", p.Weight, MaxWeight)
	case p.Topic != "" && (p.RequestRate > 0 || p.InFlight > 0 || p.Weight > 0):
		return bad("request_rate, in_flight and weight are of a client as a whole: a policy for topic %q cannot have them", p.Topic)
	case !slices.ContainsFunc(settings, func(s setting) bool { return s.of(p) != "" }):
		return bad("it sets nothing; to take it away: tidemark qos unset")
	}
	return nil
}

// CheckName says why a policy cannot have a name.
func CheckName(name string) error {
	parts := strings.Split(name, "/") // it is a part of a path
	if name == "" || len(name) > maxPolicyName || !printable(name) || strings.TrimSpace(name) != name || slices.Contains(parts, "") || slices.Contains(parts, ".") || slices.Contains(parts, "..") {
		return fmt.Errorf("%w: %q is no name: it has 1 to %d bytes of printable text, no space at its ends, and no part between slashes that is empty or one or two dots", ErrPolicy, name, maxPolicyName)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// Match is the pattern in words.
func (p *Policy) Match() string {
	var parts []string
	for _, m := range []struct{ what, pattern string }{{"principal", p.Principal}, {"client", p.Client}, {"topic", p.Topic}} {
		if m.pattern != "" {
			parts = append(parts, m.what+"="+m.pattern)
		}
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, " ")
}

// setting is one thing that a policy can say.
type setting struct {
	name string
	of   func(*Policy) string // "": it says nothing
}

func levelText(l *Level) string {
	if l == nil {
		return ""
	}
	return l.String()
}

// settings lists them, in the order in which they are shown.
var settings = []setting{
	{"acks_1", func(p *Policy) string { return levelText(p.AcksOne) }},
	{"acks_all", func(p *Policy) string { return levelText(p.AcksAll) }},
	{"floor", func(p *Policy) string { return levelText(p.Floor) }},
	{"ceiling", func(p *Policy) string { return levelText(p.Ceiling) }},
	{"deadline", func(p *Policy) string { return unlessZero(p.Deadline) }},
	{"produce_rate", func(p *Policy) string { return unlessZero(p.ProduceRate) }},
	{"fetch_rate", func(p *Policy) string { return unlessZero(p.FetchRate) }},
	{"request_rate", func(p *Policy) string { return unlessZero(p.RequestRate) }},
	{"in_flight", func(p *Policy) string { return unlessZero(p.InFlight) }},
	{"weight", func(p *Policy) string { return unlessZero(p.Weight) }},
}

func unlessZero[T interface {
	~int64 | ~int32
	String() string
}](v T) string {
	if v == 0 {
		return ""
	}
	return v.String()
}

// Said lists what the policy says, as "setting value".
func (p *Policy) Said() []string {
	var out []string
	for _, s := range settings {
		if v := s.of(p); v != "" {
			out = append(out, s.name+"="+v)
		}
	}
	return out
}

// Matches says whether the policy is for a request.
func (p *Policy) Matches(principal, client, topic string) bool {
	return matches(p.Principal, principal) && matches(p.Client, client) && matches(p.Topic, topic)
}

// matches says whether a pattern takes a name.
func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == "" || pattern == name
}

// special is how special a pattern is: a name more than a prefix, a longer prefix more than a shorter one, any prefix more than nothing.
func special(pattern string) int {
	switch {
	case pattern == "":
		return 0
	case strings.HasSuffix(pattern, "*"):
		return len(pattern)
	default:
		return maxPatternBytes + 1
	}
}

// compare puts the more special policy first: by principal, then by client, then by topic, as Kafka puts a user before a client id. Equal ones that match one request have the same patterns.
func compare(a, b *Policy) int {
	for _, pair := range [][2]string{{a.Principal, b.Principal}, {a.Client, b.Client}, {a.Topic, b.Topic}} {
		if d := special(pair[1]) - special(pair[0]); d != 0 {
			return d
		}
	}
	return 0
}
