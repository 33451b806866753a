package catalog

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"tidemark/internal/batch"
	"tidemark/journal"
)

// Sequences is what one partition knows of its idempotent producers, by Kafka's rules: the last five batches of each. The write goroutine keeps one for what is
// written, the apply goroutine another for what is applied, and a snapshot keeps that one.
type Sequences struct {
	m map[int64]*producer
}

const keptBatches = 5

type producer struct {
	epoch  int16
	n      uint8               // of batches
	lastMs int64               // time of the frame of the newest batch
	recent [keptBatches]Placed // oldest first
}

// Placed is a batch that was taken: which sequences it held and where it went.
type Placed struct {
	Sequence int32                 `cbor:"1,keyasint"` // of its first record
	Count    int32                 `cbor:"2,keyasint"`
	Base     journal.LogicalOffset `cbor:"3,keyasint"`
	End      journal.Offset        `cbor:"4,keyasint"` // of its frame: a retry waits for this
}

// Why an idempotent batch is not taken.
var (
	ErrOutOfOrder = errors.New("sequence does not follow the producer's last one")
	ErrFenced     = errors.New("producer epoch is older than the newest one")
)

// nextSequence wraps to 0 behind the largest, as Kafka's does.
func nextSequence(first, count int32) int32 {
	return int32((int64(first) + int64(count)) & math.MaxInt32)
}

// Check says what a batch is to the partition: new (nil, nil), a retry of one that was taken (its place), or an error. An unknown producer may begin anywhere, since its
// state may have expired; a new epoch begins at 0.
func (s *Sequences) Check(i *batch.Info) (*Placed, error) {
	p := s.m[i.ProducerID]
	switch {
	case p == nil:
		return nil, nil
	case i.ProducerEpoch < p.epoch:
		return nil, ErrFenced
	case i.ProducerEpoch > p.epoch:
		if i.BaseSequence != 0 {
			return nil, ErrOutOfOrder
		}
		return nil, nil
	}
	for k := range p.n {
		if b := &p.recent[k]; b.Sequence == i.BaseSequence && b.Count == i.Count {
			return b, nil
		}
	}
	if last := p.recent[p.n-1]; nextSequence(last.Sequence, last.Count) != i.BaseSequence {
		return nil, ErrOutOfOrder
	}
	return nil, nil
}

// Record takes a batch that Check found new.
func (s *Sequences) Record(i *batch.Info, at Placed, frameMs int64) {
	if s.m == nil {
		s.m = make(map[int64]*producer)
	}
	p := s.m[i.ProducerID]
	if p == nil {
		p = &producer{}
		s.m[i.ProducerID] = p
	}
	if p.epoch != i.ProducerEpoch {
		*p = producer{epoch: i.ProducerEpoch}
	}
	if p.n == keptBatches {
		copy(p.recent[:], p.recent[1:])
		p.n--
	}
	p.recent[p.n] = at
	p.n++
	p.lastMs = frameMs
}

// Settle sets the end of the frame that a batch went into, which is known only once the frame is made.
func (s *Sequences) Settle(i *batch.Info, end journal.Offset) {
	p := s.m[i.ProducerID]
	for k := range p.n {
		if p.recent[k].Sequence == i.BaseSequence {
			p.recent[k].End = end
		}
	}
}

// Saved is a producer's state as Save found it.
type Saved struct {
	id   int64
	had  bool
	copy producer
}

// Save remembers a producer so that Restore can undo a Record: for a frame that was dropped.
func (s *Sequences) Save(id int64) Saved {
	if p := s.m[id]; p != nil {
		return Saved{id: id, had: true, copy: *p}
	}
	return Saved{id: id}
}

// Restore undoes what was recorded of a producer since Save.
func (s *Sequences) Restore(v Saved) {
	if !v.had {
		delete(s.m, v.id)
		return
	}
	*s.m[v.id] = v.copy
}

// Expire forgets producers that wrote nothing since beforeMs.
func (s *Sequences) Expire(beforeMs int64) {
	for id, p := range s.m {
		if p.lastMs < beforeMs {
			delete(s.m, id)
		}
	}
}

// Len is the number of producers known.
func (s *Sequences) Len() int { return len(s.m) }

// Known is an idempotent producer as a partition knows it.
type Known struct {
	ID           int64
	Epoch        int16
	LastSequence int32
	LastMs       int64
	TxnFirst     journal.LogicalOffset // where its open transaction begins; −1: none is open
}

// Producers are the idempotent producers that the partition knows, by id. Apply goroutine only.
func (p *Partition) Producers() []Known {
	all := make([]Known, 0, p.appliedSeq.Len())
	for id, s := range p.appliedSeq.m {
		last := s.recent[s.n-1]
		k := Known{ID: id, Epoch: s.epoch, LastSequence: nextSequence(last.Sequence, last.Count-1), LastMs: s.lastMs, TxnFirst: -1}
		for _, o := range p.txns.open {
			if o.ProducerID == id {
				k.TxnFirst = o.First
			}
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Known) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// clone copies the state, for the write goroutine at start.
func (s *Sequences) clone() Sequences {
	c := Sequences{m: make(map[int64]*producer, len(s.m))}
	for id, p := range s.m {
		cp := *p
		c.m[id] = &cp
	}
	return c
}
