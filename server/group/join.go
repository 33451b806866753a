package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// onJoin takes a member into the next generation.
func (g *Group) onJoin(now time.Duration, ref Ref, e Join) {
	if err := g.mayJoin(e); err != nil {
		g.answer(ref, JoinReply{Err: err, Generation: -1, Member: e.Member})
		return
	}
	_, given := g.pending[e.Member]
	switch {
	case e.Member == "" && e.Instance == "" && e.NeedsID:
		g.pending[e.NewID] = now + e.Session
		g.answer(ref, JoinReply{Err: kerr.MemberIDRequired, Generation: -1, Member: e.NewID})
	case e.Member == "" && g.static[e.Instance] != nil && e.Instance != "":
		g.replace(now, ref, e, g.static[e.Instance])
	case e.Member == "":
		g.enter(now, ref, e, e.NewID)
	case given && e.Instance == "":
		delete(g.pending, e.Member)
		g.enter(now, ref, e, e.Member)
	default:
		m, err := g.find(e.Who)
		if err != nil {
			g.answer(ref, JoinReply{Err: err, Generation: -1, Member: e.Member})
			return
		}
		g.rejoin(now, ref, e, m)
	}
}

// mayJoin says what is wrong with how a member wants to share.
func (g *Group) mayJoin(e Join) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable // looked up a moment too late; the client asks again
	}
	known := e.Member != "" && (g.members[e.Member] != nil || g.pending[e.Member] != 0) || e.Instance != "" && g.static[e.Instance] != nil
	if !known && e.Member == "" && len(g.members)+len(g.pending) >= g.limits.Members {
		return kerr.GroupMaxSizeReached
	}
	if e.ProtocolType == "" || len(e.Protocols) == 0 || len(g.members) > 0 && (e.ProtocolType != g.protocolType || !g.shares(e.Protocols)) {
		return kerr.InconsistentGroupProtocol
	}
	return nil
}

// shares says whether one of the protocols is known to all members.
func (g *Group) shares(ps []Protocol) bool {
	return slices.ContainsFunc(ps, func(p Protocol) bool { return g.allKnow(p.Name) })
}

func (g *Group) allKnow(name string) bool {
	return !slices.ContainsFunc(g.order, func(m *member) bool { return !m.knows(name) })
}

func (m *member) knows(name string) bool {
	return slices.ContainsFunc(m.protocols, func(p Protocol) bool { return p.Name == name })
}

// metadata is what the member says for a protocol.
func (m *member) metadata(name string) []byte {
	for _, p := range m.protocols {
		if p.Name == name {
			return p.Metadata
		}
	}
	return nil
}

// sameAs says whether the member says again what it said.
func (m *member) sameAs(ps []Protocol) bool {
	return slices.EqualFunc(m.protocols, ps, func(a, b Protocol) bool { return a.Name == b.Name && slices.Equal(a.Metadata, b.Metadata) })
}

// enter is a new member's.
func (g *Group) enter(now time.Duration, ref Ref, e Join, id string) {
	if len(g.members) == 0 {
		g.protocolType = e.ProtocolType
	}
	m := &member{id: id, instance: e.Instance}
	m.update(e)
	g.add(m)
	g.await(m, ref, e)
	g.more = true
	g.prepare(now)
}

func (m *member) update(e Join) {
	m.clientID, m.host, m.session, m.rebalance, m.protocols = e.ClientID, e.Host, e.Session, e.Rebalance, e.Protocols
}

// await has the member wait for the next generation. What it waited for before was asked by a connection that is no more.
func (g *Group) await(m *member, ref Ref, e Join) {
	g.dismiss(m, kerr.RebalanceInProgress)
	m.join, m.canSkip = ref, e.CanSkip
}

// rejoin is a member's that is known. What it says may be what it said, since an answer was lost or it saw no need for a change: then it stays in this generation.
func (g *Group) rejoin(now time.Duration, ref Ref, e Join, m *member) {
	same := m.sameAs(e.Protocols)
	switch {
	case g.state == Completing && same,
		g.state == Stable && same && m.id != g.leader: // a leader that joins again wants to assign again
		g.dismiss(m, kerr.RebalanceInProgress)
		m.update(e)
		m.until = now + m.session
		g.answer(ref, g.joined(m))
		return
	}
	m.update(e)
	g.await(m, ref, e)
	g.prepare(now)
}

// replace puts a static member, started anew, in the place that its instance had. In a stable group whose protocol stays, it has its part again and nobody else is disturbed (KIP-345).
func (g *Group) replace(now time.Duration, ref Ref, e Join, old *member) {
	leads, oldID, metadata := g.leader == old.id, old.id, old.metadata(g.protocol)
	g.dismiss(old, kerr.FencedInstanceID)
	delete(g.members, old.id)
	old.id = e.NewID
	g.members[old.id] = old
	if leads {
		g.leader = old.id
	}
	old.update(e)
	if g.state == Stable && g.chosen() == g.protocol && slices.Equal(metadata, old.metadata(g.protocol)) {
		old.until = now + old.session
		r := g.joined(old)
		if leads && !e.CanSkip { // it may not assign again: it is told that another leads
			r.Leader, r.Members = oldID, nil
		}
		r.SkipAssignment = leads && e.CanSkip
		g.answer(ref, r)
		return
	}
	g.await(old, ref, e)
	g.prepare(now)
}

// joined is the answer to a member of this generation.
func (g *Group) joined(m *member) JoinReply {
	r := JoinReply{Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader, Member: m.id}
	if m.id == g.leader {
		for _, o := range g.order {
			r.Members = append(r.Members, Joined{o.id, o.instance, o.metadata(g.protocol)})
		}
	}
	return r
}

// changed follows a member's going.
func (g *Group) changed(now time.Duration) {
	switch g.state {
	case Stable, Completing:
		g.prepare(now)
	case Preparing:
		g.begin(now)
	}
}

// fewer follows the going of an id that never joined: it may be what a generation waits for.
func (g *Group) fewer(now time.Duration) {
	if g.state == Preparing {
		g.begin(now)
	}
}

// prepare has all members join again, unless that is under way, and begins the next generation if nobody is missing.
func (g *Group) prepare(now time.Duration) {
	was := g.state
	if was == Completing {
		for _, m := range g.order {
			g.answer(m.sync, SyncReply{Err: kerr.RebalanceInProgress})
			if m.sync != 0 {
				m.sync, m.until = 0, now+m.session
			}
		}
	}
	if was != Preparing {
		g.state, g.syncBy = Preparing, 0
		g.first = was == Empty && g.limits.InitialDelay > 0
		g.joinBy = now + g.patience()
		if g.first {
			g.firstEnd = g.joinBy
			g.joinBy, g.more = min(now+g.limits.InitialDelay, g.firstEnd), false
		}
	}
	g.begin(now)
}

// patience is how long members may take to join again: the longest that one of them asked for.
func (g *Group) patience() time.Duration {
	longest := time.Duration(0)
	for _, m := range g.order {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// begin begins the next generation if all have joined, and waits otherwise.
func (g *Group) begin(now time.Duration) {
	waiting := g.first || len(g.pending) > 0 || slices.ContainsFunc(g.order, func(m *member) bool { return m.join == 0 })
	if len(g.members) == 0 || !waiting {
		g.generate(now)
	}
}

// joinTimeUp begins the next generation with those who have joined. A static member that has not keeps its place until its session ends; when nobody has joined they are waited for.
func (g *Group) joinTimeUp(now time.Duration) {
	if g.first && g.more && g.joinBy < g.firstEnd {
		g.joinBy, g.more = min(now+g.limits.InitialDelay, g.firstEnd), false
		return
	}
	for _, m := range slices.Clone(g.order) {
		if m.join == 0 && m.instance == "" {
			g.remove(m)
		}
	}
	if len(g.members) > 0 && !slices.ContainsFunc(g.order, func(m *member) bool { return m.join != 0 }) {
		g.joinBy = now + max(g.patience(), 100*time.Millisecond)
		return
	}
	g.generate(now)
}

// generate begins the next generation: all who wait for it are told, the leader of all of them.
func (g *Group) generate(now time.Duration) {
	g.generation++
	g.first, g.joinBy = false, 0
	if len(g.members) == 0 {
		g.state, g.protocol, g.leader, g.syncBy = Empty, "", "", 0
		return
	}
	if g.members[g.leader].join == 0 { // a static one that has not joined cannot lead
		g.leader = g.order[slices.IndexFunc(g.order, func(m *member) bool { return m.join != 0 })].id
	}
	g.state, g.protocol = Completing, g.chosen()
	g.syncBy = now + g.patience()
	for _, m := range g.order {
		m.assignment, m.synced = nil, m.join == 0
		if m.join == 0 {
			continue
		}
		ref := m.join
		m.join, m.until = 0, now+m.session
		g.answer(ref, g.joined(m))
	}
}

// chosen is the protocol that all know and most like best; of equals the one that the first member likes better.
func (g *Group) chosen() string {
	votes := make(map[string]int)
	for _, m := range g.order {
		for _, p := range m.protocols {
			if g.allKnow(p.Name) {
				votes[p.Name]++
				break
			}
		}
	}
	best := ""
	for _, p := range g.order[0].protocols {
		if votes[p.Name] > votes[best] {
			best = p.Name
		}
	}
	return best
}

// onSync hands a member its part; the leader's brings the parts of all.
func (g *Group) onSync(now time.Duration, ref Ref, e Sync) {
	m, err := g.find(e.Who)
	switch {
	case err != nil:
	case e.Generation != g.generation:
		err = kerr.IllegalGeneration
	case e.ProtocolType != nil && *e.ProtocolType != g.protocolType, e.Protocol != nil && *e.Protocol != g.protocol:
		err = kerr.InconsistentGroupProtocol
	case g.state == Preparing:
		err = kerr.RebalanceInProgress
	}
	if err != nil {
		g.answer(ref, SyncReply{Err: err})
		return
	}
	g.dismiss(m, kerr.RebalanceInProgress)
	m.synced, m.until = true, now+m.session
	if g.state == Stable {
		g.answer(ref, g.part(m))
	} else {
		m.sync = ref
		if m.id == g.leader {
			g.assign(now, e.Assignments)
		}
	}
	if !slices.ContainsFunc(g.order, func(m *member) bool { return !m.synced }) {
		g.syncBy = 0
	}
}

// assign gives everybody the leader's word.
func (g *Group) assign(now time.Duration, parts map[string][]byte) {
	g.state = Stable
	for _, m := range g.order {
		m.assignment = parts[m.id]
		if m.sync != 0 {
			g.answer(m.sync, g.part(m))
			m.sync, m.until = 0, now+m.session
		}
	}
}

func (g *Group) part(m *member) SyncReply {
	return SyncReply{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}
