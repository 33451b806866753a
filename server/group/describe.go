package group

import (
	"slices"
	"strings"
	"time"
)

// Description is a group as it is at one moment.
type Description struct {
	Name         string
	Type         string
	State        string
	Generation   int32 // of a Consumer group: its epoch
	TargetEpoch  int32 // of a Consumer group: the epoch of who is to have what
	ProtocolType string
	Protocol     string
	Members      []Member
}

// The types of groups, by Kafka's names.
const (
	TypeClassic  = "classic"
	TypeConsumer = "consumer"
)

// Member is one member as Description has it.
type Member struct {
	ID, Instance   string
	ClientID, Host string
	Metadata       []byte // what it says for the protocol; once there is one
	Assignment     []byte

	// of a Consumer group
	Rack       string
	Epoch      int32
	Subscribed []string
	Regex      string
	Partitions []Partition
	Target     []Partition
}

// Describe tells how the group stands. What members have is told of a stable one alone.
func (g *Group) Describe() Description {
	d := Description{Type: TypeClassic, State: g.state.String(), Generation: g.generation, ProtocolType: g.protocolType}
	if g.state == Stable {
		d.Protocol = g.protocol
	}
	for _, m := range g.order {
		one := Member{ID: m.id, Instance: m.instance, ClientID: m.clientID, Host: m.host}
		if g.state == Stable {
			one.Metadata, one.Assignment = m.metadata(g.protocol), m.assignment
		}
		d.Members = append(d.Members, one)
	}
	return d
}

// Describe tells how a group stands; not ok: it has no members and has had none lately.
func (c *Coordinator) Describe(name string) (d Description, ok bool) {
	c.mu.Lock()
	e := c.groups[name]
	c.mu.Unlock()
	if e == nil {
		return d, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	d = e.group.Describe()
	d.Name = name
	return d, !e.gone && (!e.group.Idle() || c.cfg.Keeps(name))
}

// All describes all groups that are in memory, by name.
func (c *Coordinator) All() []Description {
	c.mu.Lock()
	names := make([]string, 0, len(c.groups))
	for name := range c.groups {
		names = append(names, name)
	}
	c.mu.Unlock()
	slices.SortFunc(names, strings.Compare)
	all := make([]Description, 0, len(names))
	for _, name := range names {
		if d, ok := c.Describe(name); ok {
			all = append(all, d)
		}
	}
	return all
}

// EmptySince says since when a group has no members, on the coordinator's clock: 0, from the start, if it had none since. Not ok: it has some.
func (c *Coordinator) EmptySince(name string) (since time.Duration, ok bool) {
	c.mu.Lock()
	e := c.groups[name]
	c.mu.Unlock()
	if e == nil {
		return 0, true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.empty, e.group.Idle()
}

// Forget drops a group that has no members: its offsets are gone.
func (c *Coordinator) Forget(name string) {
	c.mu.Lock()
	e := c.groups[name]
	c.mu.Unlock()
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.gone && e.group.Idle() {
		c.settle(e)
	}
}
