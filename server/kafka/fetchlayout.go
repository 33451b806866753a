package kafka

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/bufpool"
)

// Layout is a response as it leaves: small bytes, and lent ones that go in between and are not copied.
type Layout struct {
	Small []byte
	Lent  []Lent
}

// Lent is bytes that have memory of their own. They leave behind the first After bytes of Small.
type Lent struct {
	Bytes []byte
	After int
}

const (
	// lendFrom is the size from which a partition's batches are lent. Copying fewer costs less than one more vector of a write.
	lendFrom = 4 << 10
	// LendAbove is the size of a response up to which all is copied: so it may leave together with others.
	LendAbove = 16 << 10
)

// LayOut lays a Fetch response out with its length prefix and header. Large batches stay where they were read to, until Release; memory is what else it takes, the caller's to give back.
//
// Its fields by version are those of FetchResponse.json in Kafka: 5 has the log start, 7 an error and a session, 11 a preferred replica, 12 is flexible, and 13 has topic ids instead of names. Of the tagged fields the diverging epoch alone is ever sent.
func (f *FetchAnswer) LayOut(correlationID int32) (Layout, *bufpool.Buffer) {
	small, lent, pieces := f.sizes()
	l := fetchLayout{flexible: f.Version >= 12, lendFrom: lendFrom}
	if small+lent <= LendAbove {
		small, l.lendFrom = small+lent, LendAbove
	} else if pieces > 0 {
		l.Lent = make([]Lent, 0, pieces)
	}
	memory := bufpool.Get(small)
	l.Small = memory.Bytes()
	l.Small = appendInt32(l.Small, 0) // its length
	l.Small = appendInt32(l.Small, correlationID)
	l.tags()
	l.Small = appendInt32(l.Small, f.ThrottleMillis)
	if f.Version >= 7 {
		l.Small = appendInt16(l.Small, f.ErrorCode)
		l.Small = appendInt32(l.Small, f.SessionID)
	}
	l.length(len(f.Topics), false)
	for i := range f.Topics {
		t := &f.Topics[i]
		if f.Version >= 13 {
			l.Small = append(l.Small, t.TopicID[:]...)
		} else if l.flexible {
			l.length(len(t.Topic), false)
			l.Small = append(l.Small, t.Topic...)
		} else {
			l.Small = appendInt16(l.Small, int16(len(t.Topic)))
			l.Small = append(l.Small, t.Topic...)
		}
		l.length(len(t.Partitions), false)
		for k := range t.Partitions {
			l.partition(f.Version, &t.Partitions[k])
		}
		l.tags()
	}
	l.tags()
	putInt32(l.Small, int32(l.Bytes()-4))
	if len(l.Lent) == 0 {
		f.Release()
	}
	return l.Layout, memory
}

// sizes are how many bytes are too few to be lent, at most, and how many are not, in so many pieces.
func (f *FetchAnswer) sizes() (small, lent, pieces int) {
	small = 64
	for i := range f.Topics {
		t := &f.Topics[i]
		small += 32 + len(t.Topic)
		for k := range t.Partitions {
			p := &t.Partitions[k]
			small += 80 + 17*len(p.AbortedTransactions)
			if len(p.RecordBatches) < lendFrom {
				small += len(p.RecordBatches)
			} else {
				lent += len(p.RecordBatches)
				pieces++
			}
		}
	}
	return small, lent, pieces
}

type fetchLayout struct {
	Layout
	flexible bool
	lendFrom int
}

// Bytes is the size of the whole.
func (l *Layout) Bytes() int {
	n := len(l.Small)
	for i := range l.Lent {
		n += len(l.Lent[i].Bytes)
	}
	return n
}

// tags ends a structure that has no tagged fields.
func (l *fetchLayout) tags() {
	if l.flexible {
		l.Small = append(l.Small, 0)
	}
}

// length begins an array, or bytes, of 32-bit length; flexible versions have a varint of one more, in which nothing is 0.
func (l *fetchLayout) length(n int, null bool) {
	switch {
	case l.flexible && null:
		l.Small = append(l.Small, 0)
	case l.flexible:
		l.Small = binary.AppendUvarint(l.Small, uint64(n)+1)
	case null:
		l.Small = appendInt32(l.Small, -1)
	default:
		l.Small = appendInt32(l.Small, int32(n))
	}
}

func (l *fetchLayout) partition(version int16, p *kmsg.FetchResponseTopicPartition) {
	l.Small = appendInt32(l.Small, p.Partition)
	l.Small = appendInt16(l.Small, p.ErrorCode)
	l.Small = appendInt64(l.Small, p.HighWatermark)
	l.Small = appendInt64(l.Small, p.LastStableOffset)
	if version >= 5 {
		l.Small = appendInt64(l.Small, p.LogStartOffset)
	}
	l.length(len(p.AbortedTransactions), p.AbortedTransactions == nil)
	for i := range p.AbortedTransactions {
		a := &p.AbortedTransactions[i]
		l.Small = appendInt64(l.Small, a.ProducerID)
		l.Small = appendInt64(l.Small, a.FirstOffset)
		l.tags()
	}
	if version >= 11 {
		l.Small = appendInt32(l.Small, p.PreferredReadReplica)
	}
	l.length(len(p.RecordBatches), p.RecordBatches == nil)
	if len(p.RecordBatches) < l.lendFrom {
		l.Small = append(l.Small, p.RecordBatches...)
	} else {
		l.Lent = append(l.Lent, Lent{Bytes: p.RecordBatches, After: len(l.Small)})
	}
	if d := &p.DivergingEpoch; l.flexible && (d.Epoch != -1 || d.EndOffset != -1) {
		l.Small = append(l.Small, 1, 0, 4+8+1) // one field, its tag, its size
		l.Small = appendInt32(l.Small, d.Epoch)
		l.Small = appendInt64(l.Small, d.EndOffset)
	}
	l.tags()
}
