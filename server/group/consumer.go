package group

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Partition is one partition of a topic, by the topic's id.
type Partition struct {
	Topic [16]byte
	Index int32
}

func comparePartitions(a, b Partition) int {
	return cmp.Or(slices.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Index, b.Index))
}

// Topic is a topic as a group sees it.
type Topic struct {
	ID         [16]byte
	Name       string
	Partitions int32
}

// Topics are all there are at one moment. Two that are == are the same.
type Topics interface {
	Named(name string) (Topic, bool)
	Matching(re *regexp.Regexp) []Topic
}

// ConsumerHeartbeat is all that a member of a Consumer group says: that it joins (epoch 0), lives, has revoked something, or leaves (−1; −2: a static one that will be back). What is nil has not changed. It is answered with a ConsumerReply.
type ConsumerHeartbeat struct {
	Who        // Generation is the member's epoch
	Rack       string
	ClientID   string
	Host       string
	Rebalance  time.Duration // how long it may take to revoke something; 0: as it was
	Subscribed []string
	Regex      *regexp.Regexp // set: nil is none
	RegexSaid  bool
	Assignor   *string
	Owned      []Partition
	Topics     Topics
}

func (ConsumerHeartbeat) event() {}

// size is about what it makes its member hold.
func (h *ConsumerHeartbeat) size() int64 {
	n := 512 + len(h.ClientID) + len(h.Rack) + len(h.Instance) + 32*len(pattern(h.Regex))
	for _, t := range h.Subscribed {
		n += 16 + len(t)
	}
	return int64(n)
}

// ConsumerReply answers ConsumerHeartbeat.
type ConsumerReply struct {
	Err      *kerr.Error
	Why      string // of an error; empty: it speaks for itself
	Member   string
	Epoch    int32
	Assigned []Partition
	Assigns  bool // Assigned is said
}

// The epochs that are none.
const (
	leaves       = -1
	leavesToBack = -2
)

// Consumer is a group of the protocol of KIP-848: its members say what they want to read, and the group says who has what. A target is computed whenever what they want, or what there is, has changed; each member is led to it by its own heartbeats: first it
// gives back what others are to have, and then gets what nobody has any more. Its fields change in Step alone.
type Consumer struct {
	limits  Limits
	epoch   int32 // raised when there has to be a new target
	target  map[string][]Partition
	reached int32 // the epoch of target
	chosen  string
	members map[string]*consumer
	order   []*consumer
	static  map[string]*consumer
	owner   map[Partition]*consumer // whose it is, until it is known to be given back
	topics  Topics                  // as last seen
	wanted  []Topic                 // of them, what members subscribed to
}

// consumer is one member.
type consumer struct {
	id, instance, rack string
	clientID, host     string
	subscribed         []string
	regex              *regexp.Regexp
	assignor           string
	rebalance          time.Duration
	epoch, previous    int32
	assigned           map[Partition]int32 // and the epoch with which it got each
	revoking           map[Partition]int32
	short              bool // it lacks partitions of its target that others have not given back
	told               bool // of all of assigned
	away               bool // a static one that will be back
	until              time.Duration
	revokeBy           time.Duration // 0: it has nothing to give back
}

// NewConsumer is an empty group.
func NewConsumer(l Limits) *Consumer {
	return &Consumer{limits: l, members: make(map[string]*consumer), static: make(map[string]*consumer), owner: make(map[Partition]*consumer), target: make(map[string][]Partition)}
}

// Step is the state machine: what e, at the time now, makes of the group, and what is answered.
func (g *Consumer) Step(now time.Duration, ref Ref, e Event) []Answer {
	var body any
	switch e := e.(type) {
	case ConsumerHeartbeat:
		body = g.heartbeat(now, e)
	case Commit:
		body = Reply{g.commit(e.Who, e.Of, false)}
	case CommitTxn:
		body = Reply{g.commit(e.Who, e.Of, true)}
	case Delete:
		body = Reply{}
		if !g.Idle() {
			body = Reply{kerr.NonEmptyGroup}
		}
	case Tick:
		g.tick(now)
	case Join:
		body = JoinReply{Err: kerr.InconsistentGroupProtocol, Generation: -1, Member: e.Member}
	case Sync:
		body = SyncReply{Err: kerr.UnknownMemberID}
	case Heartbeat:
		body = Reply{kerr.UnknownMemberID}
	case Leave:
		r := LeaveReply{}
		for _, w := range e.Members {
			r.Errs = append(r.Errs, g.leave(w))
		}
		body = r
	}
	if ref == 0 || body == nil {
		return nil
	}
	return []Answer{{ref, body}}
}

// commit: members name their epoch, or an older one as long as they have had what they commit since then (KIP-1251): a heartbeat may have brought a newer one while the commit was on its way. From outside it may be done while there are none, or in a transaction.
func (g *Consumer) commit(w Who, of []Partition, txn bool) *kerr.Error {
	if w.Generation < 0 && w.Member == "" {
		if len(g.members) > 0 && !txn {
			return kerr.UnknownMemberID
		}
		return nil
	}
	m := g.members[w.Member]
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case m.epoch == w.Generation:
		return nil
	case w.Generation > m.epoch, len(of) == 0, slices.ContainsFunc(of, func(p Partition) bool { return !m.hasHad(p, w.Generation) }):
		return kerr.StaleMemberEpoch
	}
	return nil
}

// hasHad says whether the member has a partition since an epoch or before.
func (m *consumer) hasHad(p Partition, epoch int32) bool {
	since, has := m.assigned[p]
	if !has {
		since, has = m.revoking[p]
	}
	return has && since <= epoch
}

// leave takes a member out as an operator does, by its id or its instance.
func (g *Consumer) leave(w Who) *kerr.Error {
	m := g.members[w.Member]
	if w.Instance != "" && w.Member == "" {
		m = g.static[w.Instance]
	}
	if m == nil || w.Instance != "" && m.instance != w.Instance {
		return kerr.UnknownMemberID
	}
	g.remove(m)
	return nil
}

func (g *Consumer) remove(m *consumer) {
	delete(g.members, m.id)
	delete(g.target, m.id)
	g.order = slices.DeleteFunc(g.order, func(o *consumer) bool { return o == m })
	if g.static[m.instance] == m {
		delete(g.static, m.instance)
	}
	for p := range m.assigned {
		delete(g.owner, p)
	}
	for p := range m.revoking {
		delete(g.owner, p)
	}
	g.epoch++
}

func (g *Consumer) heartbeat(now time.Duration, e ConsumerHeartbeat) ConsumerReply {
	if e.Generation < 0 {
		return g.goodbye(now, e)
	}
	m, r := g.member(e)
	if m == nil {
		return r
	}
	full := e.Generation == 0 || e.Subscribed != nil && e.Owned != nil
	m.until = now + g.limits.Session
	g.update(m, e)
	g.look(e.Topics)
	if g.epoch > g.reached {
		g.retarget()
	}
	g.lead(now, m, e.Owned)
	r = ConsumerReply{Member: m.id, Epoch: m.epoch}
	if full || !m.told {
		r.Assigns, r.Assigned = true, slices.SortedFunc(maps.Keys(m.assigned), comparePartitions)
		m.told = true
	}
	return r
}

// goodbye takes a member out that leaves. A static one that will be back keeps what it has until its session ends.
func (g *Consumer) goodbye(now time.Duration, e ConsumerHeartbeat) ConsumerReply {
	m := g.members[e.Member]
	switch {
	case m == nil:
		return ConsumerReply{Err: kerr.UnknownMemberID}
	case m.instance != e.Instance:
		return ConsumerReply{Err: kerr.FencedInstanceID}
	case e.Generation == leavesToBack && m.instance != "":
		m.away, m.until = true, now+g.limits.Session
	default:
		g.remove(m)
	}
	return ConsumerReply{Member: e.Member, Epoch: e.Generation}
}

// member finds who sends a heartbeat, or makes it a member.
func (g *Consumer) member(e ConsumerHeartbeat) (*consumer, ConsumerReply) {
	refuse := func(err *kerr.Error, why string) (*consumer, ConsumerReply) {
		return nil, ConsumerReply{Err: err, Why: why}
	}
	m := g.members[e.Member]
	if e.Generation > 0 {
		switch {
		case m == nil && e.Instance != "" && g.static[e.Instance] != nil:
			return refuse(kerr.FencedInstanceID, "")
		case m == nil:
			return refuse(kerr.UnknownMemberID, "")
		case m.instance != e.Instance:
			return refuse(kerr.UnknownMemberID, "")
		case e.Generation == m.epoch, e.Generation == m.previous && e.Owned != nil && m.hasAll(e.Owned): // its answer was lost
			return m, ConsumerReply{}
		}
		return refuse(kerr.FencedMemberEpoch, "the member goes by another epoch: it has to join again with epoch 0")
	}
	if m != nil && m.instance != e.Instance {
		return refuse(kerr.InvalidRequest, "a member's instance does not change")
	}
	if e.Subscribed == nil && !(e.RegexSaid && e.Regex != nil) || e.Rebalance <= 0 || len(e.Owned) > 0 {
		return refuse(kerr.InvalidRequest, "who joins names its subscription and its rebalance timeout, and owns nothing")
	}
	if m != nil {
		return m, ConsumerReply{}
	}
	if old := g.static[e.Instance]; e.Instance != "" && old != nil {
		if !old.away {
			return refuse(kerr.UnreleasedInstanceID, "another member has this instance")
		}
		g.rename(old, e.Member)
		return old, ConsumerReply{}
	}
	if len(g.members) >= g.limits.Members {
		return refuse(kerr.GroupMaxSizeReached, "")
	}
	m = &consumer{id: e.Member, instance: e.Instance, assigned: make(map[Partition]int32)}
	g.members[m.id] = m
	g.order = append(g.order, m)
	if m.instance != "" {
		g.static[m.instance] = m
	}
	g.epoch++
	return m, ConsumerReply{}
}

// rename puts a static member, started anew, in the place that its instance had.
func (g *Consumer) rename(m *consumer, id string) {
	delete(g.members, m.id)
	g.target[id] = g.target[m.id]
	delete(g.target, m.id)
	m.id, m.away, m.told = id, false, false
	g.members[id] = m
}

func (m *consumer) hasAll(owned []Partition) bool {
	return !slices.ContainsFunc(owned, func(p Partition) bool { _, is := m.assigned[p]; return !is })
}

// update notes what a member says of itself. What it wants to read, and how it is to be assigned, need a new target.
func (g *Consumer) update(m *consumer, e ConsumerHeartbeat) {
	m.rack, m.clientID, m.host = e.Rack, e.ClientID, e.Host
	if e.Rebalance > 0 {
		m.rebalance = e.Rebalance
	}
	if e.Subscribed != nil {
		said := slices.Compact(slices.Sorted(slices.Values(e.Subscribed)))
		if !slices.Equal(said, m.subscribed) {
			m.subscribed = said
			g.epoch++
		}
	}
	if e.RegexSaid && pattern(e.Regex) != pattern(m.regex) {
		m.regex = e.Regex
		g.epoch++
	}
	if e.Assignor != nil && *e.Assignor != m.assignor {
		m.assignor = *e.Assignor
		g.epoch++
	}
}

func pattern(re *regexp.Regexp) string {
	if re == nil {
		return ""
	}
	return re.String()
}

// look sees whether the topics that members want have changed.
func (g *Consumer) look(all Topics) {
	if all == g.topics && g.epoch == g.reached {
		return
	}
	g.topics = all
	wanted := make(map[string]Topic)
	for _, m := range g.order {
		for _, t := range g.of(m) {
			wanted[t.Name] = t
		}
	}
	now := slices.SortedFunc(maps.Values(wanted), func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
	if !slices.Equal(now, g.wanted) {
		g.wanted = now
		g.epoch++
	}
}

// of are the topics that a member wants to read, by name.
func (g *Consumer) of(m *consumer) (ts []Topic) {
	for _, name := range m.subscribed {
		if t, ok := g.topics.Named(name); ok {
			ts = append(ts, t)
		}
	}
	if m.regex != nil {
		ts = append(ts, g.topics.Matching(m.regex)...)
	}
	slices.SortFunc(ts, func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(ts)
}

// retarget computes who is to have what.
func (g *Consumer) retarget() {
	var in []wish
	votes := make(map[string]int)
	for _, m := range g.order {
		in = append(in, wish{member: m.id, topics: g.of(m), has: g.target[m.id]})
		if m.assignor != "" {
			votes[m.assignor]++
		}
	}
	g.chosen = Uniform
	if votes[Range] > votes[Uniform] {
		g.chosen = Range
	}
	slices.SortFunc(in, func(a, b wish) int { return cmp.Compare(a.member, b.member) })
	g.target, g.reached = assignors[g.chosen](in), g.epoch
}

// lead takes a member a step towards the target. owned is what it says it has; nil: it does not say.
func (g *Consumer) lead(now time.Duration, m *consumer, owned []Partition) {
	if len(m.revoking) > 0 {
		if owned == nil || slices.ContainsFunc(owned, func(p Partition) bool { _, is := m.revoking[p]; return is }) {
			return
		}
		g.release(m)
	}
	if m.epoch == g.reached && !m.short {
		return
	}
	target := make(map[Partition]struct{}, len(g.target[m.id]))
	for _, p := range g.target[m.id] {
		target[p] = struct{}{}
	}
	for p, since := range m.assigned {
		if _, stays := target[p]; !stays {
			delete(m.assigned, p)
			if m.revoking == nil {
				m.revoking = make(map[Partition]int32)
			}
			m.revoking[p] = since
		}
	}
	if len(m.revoking) > 0 {
		m.told, m.revokeBy = false, now+m.rebalance
		return
	}
	m.short = false
	for p := range target {
		if _, has := m.assigned[p]; has {
			continue
		}
		if g.owner[p] != nil {
			m.short = true
			continue
		}
		g.owner[p] = m
		m.assigned[p] = g.reached
		m.told = false
	}
	if m.epoch != g.reached {
		m.previous, m.epoch = m.epoch, g.reached
	}
}

// release lets others have what a member gave back.
func (g *Consumer) release(m *consumer) {
	for p := range m.revoking {
		delete(g.owner, p)
	}
	m.revoking, m.revokeBy = nil, 0
}

// tick takes out whose time is up.
func (g *Consumer) tick(now time.Duration) {
	for _, m := range slices.Clone(g.order) {
		if m.until <= now || m.revokeBy != 0 && m.revokeBy <= now {
			g.remove(m)
		}
	}
}

// Next is when the group has to be looked at again (Tick); 0: nothing is due.
func (g *Consumer) Next() (next time.Duration) {
	for _, m := range g.order {
		for _, t := range []time.Duration{m.until, m.revokeBy} {
			if t != 0 && (next == 0 || t < next) {
				next = t
			}
		}
	}
	return next
}

// Idle says that the group has no members.
func (g *Consumer) Idle() bool { return len(g.members) == 0 }

// Gone says that the group was deleted: never, one without members is forgotten when nothing is left that it committed.
func (g *Consumer) Gone() bool { return false }

// Bytes is about what the group's members hold.
func (g *Consumer) Bytes() int64 {
	n := entryBytes
	for _, m := range g.order {
		n += 512 + len(m.id) + len(m.instance) + len(m.rack) + len(m.clientID) + len(m.host) + 96*(len(m.assigned)+len(m.revoking)) + 32*len(g.target[m.id]) + 32*len(pattern(m.regex))
		for _, t := range m.subscribed {
			n += 16 + len(t)
		}
	}
	return int64(n)
}

// state is the group's by Kafka's names.
func (g *Consumer) state() string {
	switch {
	case len(g.members) == 0:
		return Empty.String()
	case g.epoch > g.reached:
		return "Assigning"
	case slices.ContainsFunc(g.order, func(m *consumer) bool { return m.epoch != g.reached || m.short || len(m.revoking) > 0 }):
		return "Reconciling"
	}
	return Stable.String()
}

// Describe tells how the group stands.
func (g *Consumer) Describe() Description {
	d := Description{Type: TypeConsumer, State: g.state(), Generation: g.epoch, TargetEpoch: g.reached, ProtocolType: "consumer", Protocol: g.chosen}
	for _, m := range g.order {
		one := Member{ID: m.id, Instance: m.instance, ClientID: m.clientID, Host: m.host, Rack: m.rack, Epoch: m.epoch, Subscribed: m.subscribed, Regex: pattern(m.regex),
			Partitions: slices.SortedFunc(maps.Keys(m.assigned), comparePartitions), Target: g.target[m.id]}
		d.Members = append(d.Members, one)
	}
	return d
}
