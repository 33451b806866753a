package catalog

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// Groups is what consumer groups have committed: how far each has read. The apply goroutine changes it, anyone reads.
type Groups struct {
	mu    sync.RWMutex
	m     map[string]*groupOffsets // guarded by mu
	bytes int64                    // that they hold, about; guarded by mu
}

type groupOffsets struct {
	topics map[TopicID]map[int32]Committed
}

// Committed is how far a group has read of a partition.
type Committed struct {
	Offset      int64 // that it reads next
	LeaderEpoch int32 // −1: not said
	Metadata    string
	AtMs        int64 // when it was committed
}

// MaxOffsetsBytes bounds what the committed offsets of all groups hold together: about a million of them.
const MaxOffsetsBytes = 128 << 20

const (
	groupBytes  = 128 // about what a group holds besides its name, an offset besides its metadata
	offsetBytes = 112
)

// commit notes offsets of the topics that v has.
func (g *Groups) commit(v *View, cmd *CommitOffsets) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bytes > MaxOffsetsBytes && g.grows(cmd) { // what is asked for is bounded by a request, so this is soft by one of them
		return ErrOffsetsBytes
	}
	g.setAll(v, cmd)
	return nil
}

// put is commit without a limit: of a transaction, whose records are committed with it. What an open transaction may hold is bounded when it is added.
func (g *Groups) put(v *View, cmd *CommitOffsets) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setAll(v, cmd)
}

// Full says that no more offsets are taken than there are.
func (g *Groups) Full() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.bytes > MaxOffsetsBytes
}

// grows says whether a commit holds anything that is not there, or more beside an offset. g.mu is held.
func (g *Groups) grows(cmd *CommitOffsets) bool {
	have := g.m[cmd.Group]
	if have == nil {
		return true
	}
	for _, t := range cmd.Topics {
		for _, p := range t.Partitions {
			if old, had := have.topics[t.ID][p.Index]; !had || len(p.Metadata) > len(old.Metadata) {
				return true
			}
		}
	}
	return false
}

// setAll notes the offsets of a commit. g.mu is held.
func (g *Groups) setAll(v *View, cmd *CommitOffsets) {
	for _, t := range cmd.Topics {
		topic := v.ByID[t.ID]
		if topic == nil {
			continue
		}
		for _, p := range t.Partitions {
			if int(p.Index) < len(topic.Partitions) {
				g.set(cmd.Group, t.ID, p.Index, Committed{p.Offset, p.LeaderEpoch, p.Metadata, cmd.AtMs})
			}
		}
	}
}

// set notes one offset. g.mu is held.
func (g *Groups) set(group string, id TopicID, index int32, to Committed) {
	have := g.m[group]
	if have == nil {
		have = &groupOffsets{topics: make(map[TopicID]map[int32]Committed)}
		if g.m == nil {
			g.m = make(map[string]*groupOffsets)
		}
		g.m[group] = have
		g.bytes += groupBytes + int64(len(group))
	}
	parts := have.topics[id]
	if parts == nil {
		parts = make(map[int32]Committed)
		have.topics[id] = parts
	}
	old, had := parts[index]
	if !had {
		g.bytes += offsetBytes
	}
	g.bytes += int64(len(to.Metadata) - len(old.Metadata))
	parts[index] = to
}

// unset forgets one offset, and the group with the last of them. g.mu is held.
func (g *Groups) unset(group string, id TopicID, index int32) {
	have := g.m[group]
	old, had := have.topics[id][index]
	if !had {
		return
	}
	g.bytes -= offsetBytes + int64(len(old.Metadata))
	if delete(have.topics[id], index); len(have.topics[id]) == 0 {
		delete(have.topics, id)
	}
	if len(have.topics) == 0 {
		delete(g.m, group)
		g.bytes -= groupBytes + int64(len(group))
	}
}

func (g *Groups) deleteOffsets(cmd *DeleteOffsets) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	have := g.m[cmd.Group]
	if have == nil {
		return ErrUnknownGroup
	}
	for _, t := range cmd.Topics {
		for _, index := range t.Partitions {
			if at, ok := have.topics[t.ID][index]; ok && (cmd.UntilMs == 0 || at.AtMs <= cmd.UntilMs) {
				g.unset(cmd.Group, t.ID, index)
			}
		}
	}
	return nil
}

func (g *Groups) deleteGroup(group string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	have := g.m[group]
	if have == nil {
		return ErrUnknownGroup
	}
	for id := range have.topics {
		g.forget(group, id)
	}
	return nil
}

// deleteTopic forgets what was committed of a topic that is gone.
func (g *Groups) deleteTopic(id TopicID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for group := range g.m {
		g.forget(group, id)
	}
}

// forget forgets all offsets of a group's topic. g.mu is held.
func (g *Groups) forget(group string, id TopicID) {
	for index := range g.m[group].topics[id] {
		g.unset(group, id, index)
	}
}

// Names are the groups that have committed offsets, sorted.
func (g *Groups) Names() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Sorted(maps.Keys(g.m))
}

// Has says whether a group has committed offsets.
func (g *Groups) Has(group string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.m[group] != nil
}

// Of is what a group committed of a partition.
func (g *Groups) Of(group string, id TopicID, index int32) (Committed, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	have := g.m[group]
	if have == nil {
		return Committed{}, false
	}
	c, ok := have.topics[id][index]
	return c, ok
}

// All is all that a group committed: a copy.
func (g *Groups) All(group string) map[TopicID]map[int32]Committed {
	g.mu.RLock()
	defer g.mu.RUnlock()
	have := g.m[group]
	if have == nil {
		return nil
	}
	out := make(map[TopicID]map[int32]Committed, len(have.topics))
	for id, parts := range have.topics {
		out[id] = maps.Clone(parts)
	}
	return out
}

// snapshotGroup is a group in a snapshot: what it would have to commit to stand where it stands, by when it did.
type snapshotGroup struct {
	Name    string           `cbor:"1,keyasint"`
	Offsets []snapshotOffset `cbor:"2,keyasint"`
}

type snapshotOffset struct {
	Topic       TopicID `cbor:"1,keyasint"`
	Index       int32   `cbor:"2,keyasint"`
	Offset      int64   `cbor:"3,keyasint"`
	LeaderEpoch int32   `cbor:"4,keyasint"`
	Metadata    string  `cbor:"5,keyasint,omitempty"`
	AtMs        int64   `cbor:"6,keyasint"`
}

// snapshot is all groups, in an order that is always the same.
func (g *Groups) snapshot() (all []snapshotGroup) {
	for _, name := range g.Names() {
		one := snapshotGroup{Name: name}
		for id, parts := range g.All(name) {
			for index, c := range parts {
				one.Offsets = append(one.Offsets, snapshotOffset{id, index, c.Offset, c.LeaderEpoch, c.Metadata, c.AtMs})
			}
		}
		slices.SortFunc(one.Offsets, func(a, b snapshotOffset) int {
			if by := strings.Compare(string(a.Topic[:]), string(b.Topic[:])); by != 0 {
				return by
			}
			return int(a.Index) - int(b.Index)
		})
		all = append(all, one)
	}
	return all
}
