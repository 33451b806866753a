package catalog

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"

	"tidemark/internal/planted"
	"tidemark/journal"
	"tidemark/qos"
)

// Topic is immutable; a change makes a new one that shares its partitions.
type Topic struct {
	ID              TopicID
	Name            string
	Partitions      []*Partition
	Config          map[string]string // only what was set
	MaxMessageBytes int               // 0: the server's default
}

// ConfigMaxMessageBytes is the one topic setting with an effect of its own.
const ConfigMaxMessageBytes = "max.message.bytes"

// View is the catalog as it was at one moment. It and all it holds is immutable, but for what Partition says of itself.
type View struct {
	Topics   map[string]*Topic
	ByID     map[TopicID]*Topic
	Policies *qos.Policies // nil: there are none

	policyNames policyNames
}

// PolicyKnown says whether a policy of this name was ever set.
func (v *View) PolicyKnown(name string) bool { return slices.Contains(v.policyNames, name) }

// Partition finds a partition by topic name and index; nil when there is none.
func (v *View) Partition(topic string, index int32) *Partition {
	t := v.Topics[topic]
	if t == nil || index < 0 || int(index) >= len(t.Partitions) {
		return nil
	}
	return t.Partitions[index]
}

// Catalog is the state machine. One goroutine applies; View is for anyone.
type Catalog struct {
	view   atomic.Pointer[View]
	groups Groups
	txns   Txns

	writing *Txns // write goroutine only: as of written

	// apply goroutine only
	partitions      map[uint32]*Partition
	nextPartitionID uint32
	nextProducerID  int64
	offset          journal.Offset // everything below was applied
}

// New is an empty catalog at offset 0.
func New() *Catalog {
	c := &Catalog{partitions: make(map[uint32]*Partition), nextPartitionID: 1, nextProducerID: 1}
	c.txns.aborted = new(atomic.Int64)
	c.view.Store(&View{Topics: map[string]*Topic{}, ByID: map[TopicID]*Topic{}})
	return c
}

// View is the newest picture.
func (c *Catalog) View() *View { return c.view.Load() }

// Groups is what consumer groups have committed, for anyone.
func (c *Catalog) Groups() *Groups { return &c.groups }

// Txns is what is known of transactional producers, for anyone.
func (c *Catalog) Txns() *Txns { return &c.txns }

// Writing is the same as it is at written. Write goroutine only.
func (c *Catalog) Writing() *Txns { return c.writing }

// Offset is where the catalog stands in the journal: everything below was applied.
func (c *Catalog) Offset() journal.Offset { return c.offset }

// Advance notes that everything below to was applied. Apply goroutine only.
func (c *Catalog) Advance(to journal.Offset) { c.offset = to }

// ByID finds a partition by its number in the journal; nil when it was deleted. Apply goroutine only.
func (c *Catalog) ByID(id uint32) *Partition { return c.partitions[id] }

// Partitions calls fn for each partition there is. Apply goroutine only, or at start.
func (c *Catalog) Partitions(fn func(*Partition)) {
	for _, p := range c.partitions {
		fn(p)
	}
}

// Apply carries a command out. Apply goroutine only.
func (c *Catalog) Apply(cmd Command) Result {
	switch {
	case cmd.CreateTopic != nil:
		return c.createTopic(cmd.CreateTopic)
	case cmd.DeleteTopic != nil:
		return c.deleteTopic(cmd.DeleteTopic.ID)
	case cmd.CreatePartitions != nil:
		return c.createPartitions(cmd.CreatePartitions)
	case cmd.DeleteRecords != nil:
		return c.deleteRecords(cmd.DeleteRecords)
	case cmd.SetPolicy != nil:
		return c.setPolicy(cmd.SetPolicy)
	case cmd.UnsetPolicy != nil:
		return c.unsetPolicy(cmd.UnsetPolicy.Name)
	case cmd.AlterTopic != nil:
		return c.alterTopic(cmd.AlterTopic)
	case cmd.OfTxn(): // it was checked before it was written
		for _, o := range c.txns.Apply(&cmd) {
			c.groups.put(c.View(), &o)
		}
		return Result{}
	case cmd.CommitOffsets != nil:
		return Result{Err: c.groups.commit(c.View(), cmd.CommitOffsets)}
	case cmd.DeleteOffsets != nil:
		return Result{Err: c.groups.deleteOffsets(cmd.DeleteOffsets)}
	case cmd.DeleteGroup != nil:
		return Result{Err: c.groups.deleteGroup(cmd.DeleteGroup.Group)}
	default:
		first := c.nextProducerID
		c.nextProducerID += int64(cmd.AllotProducerIDs.Count)
		return Result{FirstProducerID: first}
	}
}

func (c *Catalog) createTopic(cmd *CreateTopic) Result {
	old := c.View()
	if old.Topics[cmd.Name] != nil || old.ByID[cmd.ID] != nil {
		return Result{Err: ErrTopicExists}
	}
	if len(c.partitions)+int(cmd.Partitions) > MaxPartitions {
		return Result{Err: ErrTooMany}
	}
	t := &Topic{ID: cmd.ID, Name: cmd.Name}
	t.configure(cmd.Config)
	t.Partitions = c.grow(t, nil, int(cmd.Partitions))
	c.put(t)
	return Result{Topic: t}
}

// configure gives a new picture of the topic its settings.
func (t *Topic) configure(config map[string]string) {
	t.Config = config
	t.MaxMessageBytes, _ = strconv.Atoi(config[ConfigMaxMessageBytes])
}

// change is the newest picture, to be changed and stored: its maps are its own.
func (c *Catalog) change() *View {
	old := c.View()
	return &View{Topics: maps.Clone(old.Topics), ByID: maps.Clone(old.ByID), Policies: old.Policies, policyNames: old.policyNames}
}

// grow returns have with new partitions up to count.
func (c *Catalog) grow(t *Topic, have []*Partition, count int) []*Partition {
	out := slices.Clone(have)
	for len(out) < count {
		p := &Partition{ID: c.nextPartitionID, TopicID: t.ID, Topic: t.Name, Index: int32(len(out))}
		c.nextPartitionID++
		p.unstable.Store(-1)
		c.partitions[p.ID] = p
		out = append(out, p)
	}
	return out
}

// Seen keeps a partition's number from being given out: records of it were found. Before the stages run.
func (c *Catalog) Seen(partition uint32) { c.nextPartitionID = max(c.nextPartitionID, partition+1) }

// put swaps in a view that has t.
func (c *Catalog) put(t *Topic) {
	v := c.change()
	v.Topics[t.Name], v.ByID[t.ID] = t, t
	c.view.Store(v)
}

func (c *Catalog) deleteTopic(id TopicID) Result {
	v := c.change()
	t := v.ByID[id]
	if t == nil {
		return Result{Err: ErrUnknownTopic}
	}
	delete(v.Topics, t.Name)
	delete(v.ByID, id)
	c.view.Store(v)
	c.groups.deleteTopic(id)
	for _, p := range t.Partitions {
		delete(c.partitions, p.ID)
		c.txns.aborted.Add(int64(-len(p.txns.aborted))) // only this goroutine changes them
		p.deleted.Store(true)
		p.WakeAll()
	}
	return Result{Topic: t}
}

func (c *Catalog) createPartitions(cmd *CreatePartitions) Result {
	old := c.View().ByID[cmd.ID]
	switch {
	case old == nil:
		return Result{Err: ErrUnknownTopic}
	case int(cmd.Count) <= len(old.Partitions):
		return Result{Err: ErrPartitionCount}
	case len(c.partitions)+int(cmd.Count)-len(old.Partitions) > MaxPartitions:
		return Result{Err: ErrTooMany}
	}
	t := *old
	t.Partitions = c.grow(&t, old.Partitions, int(cmd.Count))
	c.put(&t)
	return Result{Topic: &t}
}

func (c *Catalog) alterTopic(cmd *AlterTopic) Result {
	old := c.View().ByID[cmd.ID]
	if old == nil {
		return Result{Err: ErrUnknownTopic}
	}
	t := *old
	config := maps.Clone(old.Config)
	for _, name := range cmd.Unset {
		delete(config, name)
	}
	if len(cmd.Set) > 0 && config == nil {
		config = make(map[string]string)
	}
	maps.Copy(config, cmd.Set)
	t.configure(config)
	c.put(&t)
	return Result{}
}

func (c *Catalog) deleteRecords(cmd *DeleteRecords) Result {
	p := c.partitions[cmd.Partition]
	switch {
	case p == nil:
		return Result{Err: ErrUnknownPartition}
	case cmd.Before > p.HighWatermark():
		return Result{Err: ErrOffsetRange}
	}
	p.RaiseLogStart(cmd.Before)
	return Result{}
}

// StartWriting gives the write goroutine its state: each partition as it is now that all of the journal is applied.
func (c *Catalog) StartWriting() {
	c.writing = c.txns.clone()
	for _, p := range c.partitions {
		p.Next = p.HighWatermark()
		if !planted.Is(planted.SequencesForgotten) {
			p.Seq = p.appliedSeq.clone()
		}
	}
}
