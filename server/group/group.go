package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// State is where a group stands.
type State uint8

// The states, by Kafka's names (String).
const (
	Empty      State = iota // no members
	Preparing               // members join
	Completing              // all have joined; the leader has not said yet who has what
	Stable
	Dead // deleted
)

func (s State) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}[s]
}

// Limits are a group's.
type Limits struct {
	InitialDelay time.Duration // how long the first generation waits for more members, from the newest on
	Members      int           // at most, those with an id that have not joined yet among them
	Session      time.Duration // of members of Consumer groups, which do not choose it
}

// Group is one group. Its fields change in Step alone.
type Group struct {
	limits       Limits
	state        State
	generation   int32
	protocolType string
	protocol     string // that the members share
	leader       string // member id
	members      map[string]*member
	order        []*member                // the same, in the order in which they came
	static       map[string]*member       // by instance
	pending      map[string]time.Duration // ids that were given out and did not join yet, and until when they may

	joinBy   time.Duration // Preparing: when the next generation begins without those who did not join
	first    bool          // Preparing: the group was empty; more members may be about to come
	more     bool          // one came since joinBy was set
	firstEnd time.Duration // however many come, it begins then
	syncBy   time.Duration // members that did not ask for their part by then are taken out; 0: all have

	answers []Answer // of the step that runs
}

// member is one member.
type member struct {
	id, instance   string
	clientID, host string
	session        time.Duration
	rebalance      time.Duration
	protocols      []Protocol
	assignment     []byte
	join, sync     Ref           // it waits for an answer
	canSkip        bool          // of join
	synced         bool          // it asked for its part of this generation
	until          time.Duration // when it is taken for dead, unless it waits for an answer
}

// New is an empty group.
func New(l Limits) *Group {
	return &Group{limits: l, members: make(map[string]*member), static: make(map[string]*member), pending: make(map[string]time.Duration)}
}

// Step is the state machine: what e, at the time now, makes of the group, and which answers leave. Ref names e for its answer.
func (g *Group) Step(now time.Duration, ref Ref, e Event) []Answer {
	g.answers = nil
	switch e := e.(type) {
	case Join:
		g.onJoin(now, ref, e)
	case Sync:
		g.onSync(now, ref, e)
	case Heartbeat:
		g.answer(ref, Reply{g.onHeartbeat(now, e)})
	case Leave:
		g.onLeave(now, ref, e)
	case Commit:
		g.answer(ref, Reply{g.onCommit(now, e.Who, false)})
	case CommitTxn:
		g.answer(ref, Reply{g.onCommit(now, e.Who, true)})
	case Delete:
		g.answer(ref, Reply{g.onDelete()})
	case Tick:
		g.onTick(now)
	case Gone:
		g.onGone(now, e.Ref)
	case ConsumerHeartbeat:
		g.answer(ref, ConsumerReply{Err: kerr.GroupIDNotFound, Why: "it is a group of the classic protocol, and has members"})
	}
	return g.answers
}

func (g *Group) answer(to Ref, body any) {
	if to != 0 {
		g.answers = append(g.answers, Answer{to, body})
	}
}

// find looks a member up, and says what is wrong with its name.
func (g *Group) find(w Who) (*member, *kerr.Error) {
	if w.Instance != "" {
		m := g.static[w.Instance]
		switch {
		case m == nil:
			return nil, kerr.UnknownMemberID
		case m.id != w.Member:
			return nil, kerr.FencedInstanceID
		}
		return m, nil
	}
	m := g.members[w.Member]
	if m == nil {
		return nil, kerr.UnknownMemberID
	}
	return m, nil
}

func (g *Group) add(m *member) {
	g.members[m.id] = m
	g.order = append(g.order, m)
	if m.instance != "" {
		g.static[m.instance] = m
	}
	if g.leader == "" {
		g.leader = m.id
	}
}

// remove takes a member out; whoever waits for an answer in its name is told that it is unknown.
func (g *Group) remove(m *member) {
	delete(g.members, m.id)
	g.order = slices.DeleteFunc(g.order, func(o *member) bool { return o == m })
	if g.static[m.instance] == m {
		delete(g.static, m.instance)
	}
	if g.leader == m.id {
		g.leader = ""
		if len(g.order) > 0 {
			g.leader = g.order[0].id
		}
	}
	g.dismiss(m, kerr.UnknownMemberID)
}

// dismiss answers what a member waits for with an error.
func (g *Group) dismiss(m *member, why *kerr.Error) {
	g.answer(m.join, JoinReply{Err: why, Generation: -1, Member: m.id})
	g.answer(m.sync, SyncReply{Err: why})
	m.join, m.sync = 0, 0
}

// onHeartbeat: while members join, one that lives is told to join too.
func (g *Group) onHeartbeat(now time.Duration, e Heartbeat) *kerr.Error {
	m, err := g.find(e.Who)
	switch {
	case err != nil:
		return err
	case e.Generation != g.generation:
		return kerr.IllegalGeneration
	}
	m.until = now + m.session
	if g.state == Preparing {
		return kerr.RebalanceInProgress
	}
	return nil
}

// onCommit: a generation's members may commit until the next one begins.
func (g *Group) onCommit(now time.Duration, e Who, txn bool) *kerr.Error {
	if e.Generation < 0 && e.Member == "" && e.Instance == "" {
		if len(g.members) > 0 && !txn {
			return kerr.UnknownMemberID
		}
		return nil
	}
	if len(g.members) == 0 && e.Generation >= 0 && e.Instance == "" && g.generation == 0 {
		return kerr.IllegalGeneration // a group that never was
	}
	m, err := g.find(e)
	switch {
	case err != nil:
		return err
	case e.Generation != g.generation:
		return kerr.IllegalGeneration
	case g.state == Completing && !txn:
		return kerr.RebalanceInProgress
	}
	m.until = now + m.session
	return nil
}

func (g *Group) onDelete() *kerr.Error {
	if len(g.members)+len(g.pending) > 0 {
		return kerr.NonEmptyGroup
	}
	g.state = Dead
	return nil
}

// onLeave: a static member may be named by its instance alone.
func (g *Group) onLeave(now time.Duration, ref Ref, e Leave) {
	var errs []*kerr.Error
	left := false
	for _, w := range e.Members {
		if w.Instance != "" && w.Member == "" && g.static[w.Instance] != nil {
			w.Member = g.static[w.Instance].id
		}
		if _, given := g.pending[w.Member]; given && w.Instance == "" {
			delete(g.pending, w.Member)
			errs = append(errs, nil)
			g.fewer(now)
			continue
		}
		m, err := g.find(w)
		if err == nil {
			g.remove(m)
			left = true
		}
		errs = append(errs, err)
	}
	g.answer(ref, LeaveReply{errs})
	if left {
		g.changed(now)
	}
}

// onGone lets go of an answer. The member is not taken out: its client may come back with its id.
func (g *Group) onGone(now time.Duration, ref Ref) {
	for _, m := range g.order {
		switch ref {
		case m.join:
			m.join = 0
		case m.sync:
			m.sync = 0
		default:
			continue
		}
		m.until = now + m.session
		return
	}
}

// waits says whether a member waits for an answer, and so is not expected to send heartbeats.
func (m *member) waits() bool { return m.join != 0 || m.sync != 0 }

// onTick takes out whose time is up, and begins the next generation when that is due.
func (g *Group) onTick(now time.Duration) {
	left, dropped := false, false
	for id, until := range g.pending {
		if until <= now {
			delete(g.pending, id)
			dropped = true
		}
	}
	for _, m := range slices.Clone(g.order) {
		late := !m.waits() && m.until <= now
		unsynced := g.syncBy != 0 && g.syncBy <= now && !m.synced
		if late || unsynced {
			g.remove(m)
			left = true
		}
	}
	if g.syncBy != 0 && g.syncBy <= now {
		g.syncBy = 0
	}
	if left {
		g.changed(now)
	} else if dropped {
		g.fewer(now)
	}
	if g.state == Preparing && g.joinBy <= now {
		g.joinTimeUp(now)
	}
}

// Next is when the group has to be looked at again (Tick); 0: nothing is due.
func (g *Group) Next() time.Duration {
	next := time.Duration(0)
	due := func(t time.Duration) {
		if t != 0 && (next == 0 || t < next) {
			next = t
		}
	}
	for _, until := range g.pending {
		due(until)
	}
	for _, m := range g.order {
		if !m.waits() {
			due(m.until)
		}
	}
	if g.state == Preparing {
		due(g.joinBy)
	}
	due(g.syncBy)
	return next
}

// Gone says that the group was deleted.
func (g *Group) Gone() bool { return g.state == Dead }

// Idle says that nothing of the group is in memory that counts.
func (g *Group) Idle() bool { return len(g.members)+len(g.pending) == 0 }

// Bytes is about what the group's members hold.
func (g *Group) Bytes() int64 {
	n := entryBytes
	for id := range g.pending {
		n += 64 + len(id)
	}
	for _, m := range g.order {
		n += m.bytes()
	}
	return int64(n)
}

// entryBytes is about what a group holds besides its members.
const entryBytes = 1 << 10

func (m *member) bytes() int {
	n := 256 + len(m.id) + len(m.instance) + len(m.clientID) + len(m.host) + len(m.assignment)
	for _, p := range m.protocols {
		n += 48 + len(p.Name) + len(p.Metadata)
	}
	return n
}
