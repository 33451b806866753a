package catalog

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"tidemark/internal/batch"
	"tidemark/journal"
)

// Txns is what is known of transactional producers. As of Sequences there are two: the write goroutine keeps one for what is written, which decides what may be written; the apply goroutine another for what is applied, which anyone reads
// and a snapshot keeps. Both see the same commands and batches in the same order, and only such as Check and CheckBatch let through.
//
// A transaction begins with its producer's first batch or committed offset behind the end of the last, and has no other record of its own. It ends with one frame: the EndTxn command, and a control batch in each partition. So either all of it has
// ended or nothing, whatever crashes.
type Txns struct {
	mu    sync.RWMutex
	byID  map[string]*txn // guarded by mu
	byPID map[int64]*txn  // guarded by mu
	bytes int64           // about what they hold; guarded by mu

	aborted *atomic.Int64 // transactions, by partition, whose records are still there: readers are told of them. Shared by both
}

// txn is one transactional id.
type txn struct {
	Txn
	parts   map[*Partition]struct{} // of the open transaction
	offsets []CommitOffsets         // that it commits
	bytes   int64
}

// Txn is a transactional id as it is at one moment.
type Txn struct {
	ID         string     `cbor:"1,keyasint"`
	ProducerID int64      `cbor:"2,keyasint"`
	Epoch      int16      `cbor:"3,keyasint"`
	Previous   int16      `cbor:"4,keyasint"` // the epoch that the producer itself had last; −1: none
	TimeoutMs  int32      `cbor:"5,keyasint"`
	Outcome    TxnOutcome `cbor:"6,keyasint"`
	BeganMs    int64      `cbor:"7,keyasint"` // of the open transaction, by the frame that it began with; 0: none is open
	LastMs     int64      `cbor:"8,keyasint"` // when it was last heard of
}

// TxnOutcome is how a producer's last transaction ended.
type TxnOutcome uint8

// The outcomes.
const (
	TxnNone TxnOutcome = iota
	TxnCommitted
	TxnAborted
)

// MaxTxnBytes bounds what transactional ids and the offsets of open transactions hold together.
const MaxTxnBytes = 64 << 20

const (
	// maxAborted bounds the aborted transactions that partitions remember, together: 24 MiB.
	maxAborted = 1 << 20

	txnBytes     = 256
	txnPartBytes = 48
)

// InitTxn gives a transactional id a producer id and an epoch, if it has the old ones and no open transaction; OldProducerID −1: if it is not known yet.
type InitTxn struct {
	ID            string `cbor:"1,keyasint"`
	TimeoutMs     int32  `cbor:"2,keyasint"`
	AtMs          int64  `cbor:"3,keyasint"`
	ProducerID    int64  `cbor:"4,keyasint"`
	Epoch         int16  `cbor:"5,keyasint"`
	OldProducerID int64  `cbor:"6,keyasint"`
	OldEpoch      int16  `cbor:"7,keyasint"`
	Previous      int16  `cbor:"8,keyasint"`
}

// AddTxnOffsets adds offsets to a transaction: they are committed when it is.
type AddTxnOffsets struct {
	ProducerID int64         `cbor:"1,keyasint"`
	Epoch      int16         `cbor:"2,keyasint"`
	Offsets    CommitOffsets `cbor:"3,keyasint"`
}

// EndTxn ends a transaction. The control batches of Partitions, which have to be all of it, lie in the same frame. The producer goes on with the new id and epoch.
type EndTxn struct {
	ProducerID    int64    `cbor:"1,keyasint"`
	Epoch         int16    `cbor:"2,keyasint"`
	NewProducerID int64    `cbor:"3,keyasint"`
	NewEpoch      int16    `cbor:"4,keyasint"`
	Commit        bool     `cbor:"5,keyasint,omitempty"`
	AtMs          int64    `cbor:"6,keyasint"`
	Partitions    []uint32 `cbor:"7,keyasint"`
	Previous      int16    `cbor:"8,keyasint"` // the epoch that the producer itself has, if this is a part of raising it; −1: it is not
}

// ForgetTxn forgets a transactional id that has no open transaction and was not heard of since BeforeMs.
type ForgetTxn struct {
	ID       string `cbor:"1,keyasint"`
	BeforeMs int64  `cbor:"2,keyasint"`
}

// OfTxn says whether the command is one of Txns'.
func (c *Command) OfTxn() bool {
	return c.InitTxn != nil || c.AddTxnOffsets != nil || c.EndTxn != nil || c.ForgetTxn != nil
}

// Check says why a command may not be written as things are. It is nil for commands that are not of transactions.
func (t *Txns) Check(cmd *Command) error {
	switch {
	case cmd.InitTxn != nil:
		c := cmd.InitTxn
		have := t.byID[c.ID]
		switch {
		case have == nil && c.OldProducerID < 0:
			if t.bytes > MaxTxnBytes {
				return ErrTxnBytes
			}
			return nil
		case have == nil || have.ProducerID != c.OldProducerID || have.Epoch != c.OldEpoch || have.BeganMs != 0:
			return ErrTxnChanged
		}
	case cmd.AddTxnOffsets != nil:
		if t.bytes > MaxTxnBytes {
			return ErrTxnBytes
		}
		_, err := t.find(cmd.AddTxnOffsets.ProducerID, cmd.AddTxnOffsets.Epoch)
		return err
	case cmd.EndTxn != nil:
		c := cmd.EndTxn
		have, err := t.find(c.ProducerID, c.Epoch)
		if err != nil {
			return err
		}
		if !slices.Equal(have.partitionIDs(), c.Partitions) {
			return ErrTxnChanged
		}
	case cmd.ForgetTxn != nil:
		if have := t.byID[cmd.ForgetTxn.ID]; have == nil || have.BeganMs != 0 || have.LastMs >= cmd.ForgetTxn.BeforeMs {
			return ErrTxnChanged
		}
	}
	return nil
}

// find looks a producer up that has to have this epoch.
func (t *Txns) find(producerID int64, epoch int16) (*txn, error) {
	have := t.byPID[producerID]
	switch {
	case have == nil:
		return nil, ErrUnknownProducer
	case have.Epoch != epoch:
		return nil, ErrFenced
	}
	return have, nil
}

// partitionIDs are those of the open transaction that are still there, ascending.
func (x *txn) partitionIDs() []uint32 {
	ids := make([]uint32, 0, len(x.parts))
	for p := range x.parts {
		if !p.Deleted() {
			ids = append(ids, p.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// CheckBatch says why a transactional batch may not be written.
func (t *Txns) CheckBatch(part *Partition, i *batch.Info) error {
	have, err := t.find(i.ProducerID, i.ProducerEpoch)
	if err != nil {
		return err
	}
	if _, is := have.parts[part]; !is && (t.bytes > MaxTxnBytes || t.aborted.Load() > maxAborted) {
		return ErrTxnBytes
	}
	return nil
}

// Batch notes a transactional batch that CheckBatch let through, and returns what undoes that. A partition that was deleted meanwhile is nil: the transaction is open all the same.
func (t *Txns) Batch(part *Partition, i *batch.Info, frameMs int64) (undo TxnUndo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := t.byPID[i.ProducerID]
	if have == nil { // it was forgotten since
		return undo
	}
	undo = TxnUndo{of: have, beganMs: have.BeganMs, lastMs: have.LastMs, bytes: t.bytes, own: have.bytes}
	have.begin(frameMs)
	if _, is := have.parts[part]; part != nil && !is {
		have.parts[part] = struct{}{}
		t.grow(have, txnPartBytes)
		undo.part = part
	}
	return undo
}

// TxnUndo undoes what was done to a transaction, for a frame that is dropped.
type TxnUndo struct {
	of              *txn
	beganMs, lastMs int64
	bytes, own      int64
	part            *Partition // that was added
	whole           func()     // of a command
}

// Undo undoes it. What was done later was undone before. Write goroutine only.
func (t *Txns) Undo(u TxnUndo) {
	switch {
	case u.whole != nil:
		u.whole()
	case u.of != nil:
		u.of.BeganMs, u.of.LastMs, u.of.bytes, t.bytes = u.beganMs, u.lastMs, u.own, u.bytes
		if u.part != nil {
			delete(u.of.parts, u.part)
		}
	}
}

// begin begins a transaction, if none is open.
func (x *txn) begin(ms int64) {
	x.LastMs = ms
	if x.BeganMs == 0 {
		x.BeganMs = max(ms, 1)
	}
	if x.parts == nil {
		x.parts = make(map[*Partition]struct{})
	}
}

func (t *Txns) grow(x *txn, by int64) {
	x.bytes += by
	t.bytes += by
}

// Apply carries out a command that Check let through. It returns the offsets that are committed with it.
func (t *Txns) Apply(cmd *Command) (commit []CommitOffsets) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case cmd.InitTxn != nil:
		t.init(cmd.InitTxn)
	case cmd.AddTxnOffsets != nil:
		c := cmd.AddTxnOffsets
		if have := t.byPID[c.ProducerID]; have != nil {
			have.begin(c.Offsets.AtMs)
			have.offsets = append(have.offsets, c.Offsets)
			t.grow(have, c.Offsets.bytes())
		}
	case cmd.EndTxn != nil:
		return t.end(cmd.EndTxn)
	case cmd.ForgetTxn != nil:
		if have := t.byID[cmd.ForgetTxn.ID]; have != nil {
			t.remove(have)
		}
	}
	return nil
}

func (c *CommitOffsets) bytes() int64 {
	n := int64(len(c.Group) + groupBytes)
	for _, t := range c.Topics {
		for _, p := range t.Partitions {
			n += offsetBytes + int64(len(p.Metadata))
		}
	}
	return n
}

func (t *Txns) init(c *InitTxn) {
	have := t.byID[c.ID]
	if have == nil {
		have = &txn{}
		t.put(have, c.ID)
	} else {
		delete(t.byPID, have.ProducerID)
	}
	have.ProducerID, have.Epoch, have.Previous, have.TimeoutMs, have.LastMs, have.Outcome = c.ProducerID, c.Epoch, c.Previous, c.TimeoutMs, c.AtMs, TxnNone
	t.byPID[c.ProducerID] = have
}

func (t *Txns) put(x *txn, id string) {
	if t.byID == nil {
		t.byID, t.byPID = make(map[string]*txn), make(map[int64]*txn)
	}
	x.ID = id
	t.byID[id] = x
	t.grow(x, txnBytes+int64(len(id)))
}

func (t *Txns) remove(x *txn) {
	delete(t.byID, x.ID)
	delete(t.byPID, x.ProducerID)
	t.bytes -= x.bytes
}

func (t *Txns) end(c *EndTxn) (commit []CommitOffsets) {
	have := t.byPID[c.ProducerID]
	if have == nil {
		return nil
	}
	have.Outcome = TxnAborted
	if c.Commit {
		have.Outcome, commit = TxnCommitted, have.offsets
	}
	t.grow(have, txnBytes+int64(len(have.ID))-have.bytes)
	have.parts, have.offsets, have.BeganMs, have.LastMs = nil, nil, 0, c.AtMs
	delete(t.byPID, have.ProducerID)
	have.ProducerID, have.Epoch, have.Previous = c.NewProducerID, c.NewEpoch, c.Previous
	t.byPID[have.ProducerID] = have
	return commit
}

// Get is a transactional id as it is now, and the partitions of its open transaction, in the order of their numbers.
func (t *Txns) Get(id string) (x Txn, parts []*Partition, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	have := t.byID[id]
	if have == nil {
		return x, nil, false
	}
	return have.Txn, have.partitions(), true
}

func (x *txn) partitions() []*Partition {
	parts := make([]*Partition, 0, len(x.parts))
	for p := range x.parts {
		if !p.Deleted() {
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts, func(a, b *Partition) int { return int(int64(a.ID) - int64(b.ID)) })
	return parts
}

// All are all transactional ids, by name.
func (t *Txns) All() []Txn {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Txn, 0, len(t.byID))
	for _, x := range t.byID {
		all = append(all, x.Txn)
	}
	slices.SortFunc(all, func(a, b Txn) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Unstable says whether an open transaction will commit an offset of a group's partition.
func (t *Txns) Unstable(group string, id TopicID, index int32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, x := range t.byID {
		for _, o := range x.offsets {
			if o.Group == group && slices.ContainsFunc(o.Topics, func(t TopicOffsets) bool {
				return t.ID == id && slices.ContainsFunc(t.Partitions, func(p PartitionOffset) bool { return p.Index == index })
			}) {
				return true
			}
		}
	}
	return false
}

// Save returns what undoes a command that is about to be applied. Write goroutine only.
func (t *Txns) Save(c *Command) TxnUndo {
	switch {
	case c.InitTxn != nil:
		return TxnUndo{whole: t.save(c.InitTxn.ID, c.InitTxn.OldProducerID)}
	case c.AddTxnOffsets != nil:
		have := t.byPID[c.AddTxnOffsets.ProducerID]
		offsets, undo := have.offsets, TxnUndo{of: have, beganMs: have.BeganMs, lastMs: have.LastMs, bytes: t.bytes, own: have.bytes}
		return TxnUndo{whole: func() {
			t.Undo(undo)
			have.offsets = offsets
		}}
	case c.EndTxn != nil:
		return TxnUndo{whole: t.save("", c.EndTxn.ProducerID)}
	}
	return TxnUndo{whole: t.save(c.ForgetTxn.ID, -1)}
}

func (t *Txns) save(id string, producerID int64) (restore func()) {
	have, bytes := t.byID[id], t.bytes
	if have == nil {
		have = t.byPID[producerID]
	}
	if have == nil {
		return func() {
			if x := t.byID[id]; x != nil {
				t.remove(x)
			}
			t.bytes = bytes
		}
	}
	was := *have // who ends a transaction gets new maps, and does not change these
	return func() {
		t.remove(have)
		*have = was
		t.byID[have.ID], t.byPID[have.ProducerID], t.bytes = have, have, bytes
	}
}

func (x *txn) clone() *txn {
	c := *x
	c.parts, c.offsets = maps.Clone(x.parts), slices.Clone(x.offsets)
	return &c
}

// clone copies the state, for the write goroutine at start.
func (t *Txns) clone() *Txns {
	c := &Txns{byID: make(map[string]*txn), byPID: make(map[int64]*txn), bytes: t.bytes, aborted: t.aborted}
	for id, x := range t.byID {
		cp := x.clone()
		c.byID[id], c.byPID[cp.ProducerID] = cp, cp
	}
	return c
}

// snapshotTxn is a transactional id in a snapshot.
type snapshotTxn struct {
	Txn        Txn             `cbor:"1,keyasint"`
	Partitions []uint32        `cbor:"2,keyasint,omitempty"`
	Offsets    []CommitOffsets `cbor:"3,keyasint,omitempty"`
}

func (t *Txns) snapshot() (all []snapshotTxn) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, id := range slices.Sorted(maps.Keys(t.byID)) {
		x := t.byID[id]
		all = append(all, snapshotTxn{Txn: x.Txn, Partitions: x.partitionIDs(), Offsets: x.offsets})
	}
	return all
}

// restore takes a transactional id from a snapshot.
func (t *Txns) restore(s snapshotTxn, parts map[uint32]*Partition) bool {
	if s.Txn.ID == "" || t.byID[s.Txn.ID] != nil || t.byPID[s.Txn.ProducerID] != nil {
		return false
	}
	x := &txn{}
	t.put(x, s.Txn.ID)
	x.Txn, x.offsets = s.Txn, s.Offsets
	t.byPID[x.ProducerID] = x
	for i := range s.Offsets {
		t.grow(x, s.Offsets[i].bytes())
	}
	for _, id := range s.Partitions {
		p := parts[id]
		if p == nil {
			return false
		}
		if x.parts == nil {
			x.parts = make(map[*Partition]struct{})
		}
		x.parts[p] = struct{}{}
		t.grow(x, txnPartBytes)
	}
	return true
}

// Aborted is a transaction of one partition that was aborted.
type Aborted struct {
	ProducerID int64                 `cbor:"1,keyasint"`
	First      journal.LogicalOffset `cbor:"2,keyasint"`
	Last       journal.LogicalOffset `cbor:"3,keyasint"` // its control batch
}

// openTxn is a transaction that a partition has batches of.
type openTxn struct {
	ProducerID int64                 `cbor:"1,keyasint"`
	First      journal.LogicalOffset `cbor:"2,keyasint"`
}

// AppliedTransactional notes a transactional batch that is applied; control batches are Ended's. Apply goroutine only, before readers see it. p is nil if it was deleted before.
func (c *Catalog) AppliedTransactional(p *Partition, i *batch.Info, base journal.LogicalOffset, frameMs int64) {
	c.txns.Batch(p, i, frameMs)
	if p != nil {
		p.transactional(i.ProducerID, base)
	}
}

// Ended notes a control batch that is applied. Apply goroutine only.
func (c *Catalog) Ended(p *Partition, i *batch.Info, base journal.LogicalOffset, payload []byte) {
	if commit, ok := batch.Committed(payload); ok && p.control(i.ProducerID, base, commit) {
		c.txns.aborted.Add(1)
	}
}

// Open says whether any transaction is open.
func (t *Txns) Open() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, x := range t.byID {
		if x.BeganMs != 0 {
			return true
		}
	}
	return false
}

// partitionTxns is what a partition knows of transactions. The apply goroutine changes it under Partition.mu.
type partitionTxns struct {
	open    []openTxn // by First
	aborted []Aborted // by Last
}

// transactional notes a batch of a transaction. p.mu is not held.
func (p *Partition) transactional(producerID int64, base journal.LogicalOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.ContainsFunc(p.txns.open, func(o openTxn) bool { return o.ProducerID == producerID }) {
		return
	}
	p.txns.open = append(p.txns.open, openTxn{producerID, base})
	p.unstable.Store(int64(p.txns.open[0].First))
}

// control notes the end of a producer's transaction, and says whether it is one more that was aborted. p.mu is not held.
func (p *Partition) control(producerID int64, base journal.LogicalOffset, commit bool) (aborted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.txns.open, func(o openTxn) bool { return o.ProducerID == producerID })
	if i < 0 {
		return false
	}
	if !commit {
		p.txns.aborted = append(p.txns.aborted, Aborted{producerID, p.txns.open[i].First, base})
	}
	p.txns.open = slices.Delete(p.txns.open, i, i+1)
	if len(p.txns.open) == 0 {
		p.unstable.Store(-1)
	} else {
		p.unstable.Store(int64(p.txns.open[0].First))
	}
	return !commit
}

// LastStable is the last stable offset: all below it belongs to no open transaction.
func (p *Partition) LastStable() journal.LogicalOffset {
	hw := p.HighWatermark() // first: a transaction that begins later lies behind it
	if first := p.unstable.Load(); first >= 0 && journal.LogicalOffset(first) < hw {
		return max(journal.LogicalOffset(first), p.LogStart())
	}
	return hw
}

// AbortedIn are the aborted transactions that have batches in [from, to).
func (p *Partition) AbortedIn(from, to journal.LogicalOffset) (in []Aborted) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := slices.BinarySearchFunc(p.txns.aborted, from, func(a Aborted, from journal.LogicalOffset) int { return int(a.Last - from) })
	for _, a := range p.txns.aborted[i:] {
		if a.First < to {
			in = append(in, a)
		}
	}
	return in
}

// forgetAborted forgets aborted transactions below log start, and says how many. p.mu is held.
func (p *Partition) forgetAborted() (n int) {
	for n < len(p.txns.aborted) && p.txns.aborted[n].Last < p.LogStart() {
		n++
	}
	p.txns.aborted = slices.Delete(p.txns.aborted, 0, n)
	return n
}
