package catalog

import (
	"errors"
	"reflect"
	"testing"

	"tidemark/internal/batch"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

func filled(t testing.TB) *Catalog {
	floor := qos.Persistence
	c := New()
	for i, cmd := range []Command{
		{CreateTopic: &CreateTopic{Name: "a", ID: TopicID{1}, Partitions: 3, Config: map[string]string{ConfigMaxMessageBytes: "5000"}}},
		{CreateTopic: &CreateTopic{Name: "b", ID: TopicID{2}, Partitions: 1}},
		{DeleteTopic: &DeleteTopic{ID: TopicID{2}}},
		{CreatePartitions: &CreatePartitions{ID: TopicID{1}, Count: 4}},
		{AllotProducerIDs: &AllotProducerIDs{Count: 10}},
		{SetPolicy: &SetPolicy{Policy: qos.Policy{Name: "p", Client: "orders-*", Floor: &floor, Deadline: 5e6, ProduceRate: 5 << 20, Weight: 3}}},
		{SetPolicy: &SetPolicy{Policy: qos.Policy{Name: "gone", Topic: "a", FetchRate: 1}, Initially: true}},
		{UnsetPolicy: &UnsetPolicy{Name: "gone"}},
		{AlterTopic: &AlterTopic{ID: TopicID{1}, Set: map[string]string{ConfigMaxMessageBytes: "6000", "x": "y"}}},
		{AlterTopic: &AlterTopic{ID: TopicID{1}, Unset: []string{"x", "z"}}},
	} {
		back, err := DecodeCommand(cmd.Encode())
		if err != nil || !reflect.DeepEqual(back, cmd) {
			t.Fatalf("command %d came back as %v, %v", i, back, err)
		}
		if r := c.Apply(back); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	p := c.View().Partition("a", 2)
	for seq := range int32(9) {
		p.AppliedBatch(&batch.Info{ProducerID: 7, ProducerEpoch: 1, BaseSequence: 2 * seq, Count: 2, LeaderEpoch: 1 + seq/4}, journal.LogicalOffset(2*seq), 1000, 5)
	}
	c.Advance(4096)
	return c
}

func TestApply(t *testing.T) {
	c := filled(t)
	for _, bad := range []struct {
		cmd  Command
		want error
	}{
		{Command{CreateTopic: &CreateTopic{Name: "a", ID: TopicID{9}, Partitions: 1}}, ErrTopicExists},
		{Command{DeleteTopic: &DeleteTopic{ID: TopicID{2}}}, ErrUnknownTopic},
		{Command{CreatePartitions: &CreatePartitions{ID: TopicID{1}, Count: 4}}, ErrPartitionCount},
		{Command{DeleteRecords: &DeleteRecords{Partition: 99}}, ErrUnknownPartition},
		{Command{DeleteRecords: &DeleteRecords{Partition: 3, Before: 19}}, ErrOffsetRange},
		{Command{CreateTopic: &CreateTopic{Name: "c", ID: TopicID{3}, Partitions: MaxPartitions}}, ErrTooMany},
	} {
		if r := c.Apply(bad.cmd); !errors.Is(r.Err, bad.want) {
			t.Errorf("%s: %v, want %v", bad.cmd, r.Err, bad.want)
		}
	}
	if r := c.Apply(Command{AllotProducerIDs: &AllotProducerIDs{Count: 1}}); r.FirstProducerID != 11 {
		t.Errorf("producer id %d after the ids 1 to 10 were allotted", r.FirstProducerID)
	}
	p := c.View().Partition("a", 2)
	for _, e := range []struct {
		epoch, want int32
		end         journal.LogicalOffset
	}{{1, 1, 8}, {2, 2, 16}, {3, 3, 18}, {0, -1, -1}, {9, -1, -1}} {
		if got, end := p.EpochEnd(e.epoch, 3); got != e.want || end != e.end {
			t.Errorf("epoch %d ends at %d, %d; want %d, %d", e.epoch, got, end, e.want, e.end)
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	c := filled(t)
	b, err := c.Encode(0)
	if err != nil {
		t.Fatal(err)
	}
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	if err := Save(fsys, "d", b); err != nil {
		t.Fatal(err)
	}
	back, err := Load(fsys, "d")
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Encode(0)
	if err != nil || !reflect.DeepEqual(again, b) {
		t.Fatalf("the snapshot of the snapshot differs: %v", err)
	}
	back.StartWriting()
	p := back.View().Partition("a", 2)
	if p.Next != 18 || back.Offset() != 4096 || back.View().Topics["a"].MaxMessageBytes != 6000 || len(back.View().Topics["a"].Partitions) != 4 {
		t.Errorf("next %d, offset %d, %+v", p.Next, back.Offset(), back.View().Topics["a"])
	}
	if at, err := p.Seq.Check(&batch.Info{ProducerID: 7, ProducerEpoch: 1, BaseSequence: 16, Count: 2}); err != nil || at == nil || at.Base != 16 {
		t.Errorf("a retry is not known: %+v, %v", at, err)
	}
	for i := range b {
		spoilt := append([]byte(nil), b...)
		spoilt[i] ^= 4
		if _, err := Decode(spoilt); err == nil {
			t.Fatalf("byte %d changed, and nothing was found", i)
		}
	}
}

func TestSequences(t *testing.T) {
	var s Sequences
	info := func(epoch int16, seq, count int32) *batch.Info {
		return &batch.Info{ProducerID: 1, ProducerEpoch: epoch, BaseSequence: seq, Count: count}
	}
	take := func(i *batch.Info) {
		t.Helper()
		if at, err := s.Check(i); err != nil || at != nil {
			t.Fatalf("sequence %d: %+v, %v", i.BaseSequence, at, err)
		}
		s.Record(i, Placed{Sequence: i.BaseSequence, Count: i.Count}, 0)
	}
	take(info(0, 1<<31-3, 5)) // wraps: 2 is next
	take(info(0, 2, 1))
	for seq := int32(3); seq < 9; seq++ {
		take(info(0, seq, 1))
	}
	for seq := int32(4); seq < 9; seq++ {
		if at, err := s.Check(info(0, seq, 1)); at == nil || err != nil {
			t.Errorf("one of the last five, %d, is not known: %v", seq, err)
		}
	}
	if _, err := s.Check(info(0, 3, 1)); !errors.Is(err, ErrOutOfOrder) {
		t.Errorf("a batch older than the last five: %v", err)
	}
	before := s.Save(1)
	take(info(1, 0, 1))
	s.Restore(before)
	take(info(0, 9, 1))
	s.Expire(1)
	if s.Len() != 0 {
		t.Errorf("%d producers after they expired", s.Len())
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(Command{CreateTopic: &CreateTopic{Name: "a", Partitions: 3}}.Encode())
	f.Add(Command{AllotProducerIDs: &AllotProducerIDs{Count: 1}}.Encode())
	f.Add(Command{SetPolicy: &SetPolicy{Policy: qos.Policy{Name: "p", Client: "c*", Weight: 2}, Initially: true}}.Encode())
	offsets := CommitOffsets{Group: "g", AtMs: 5, Topics: []TopicOffsets{{ID: TopicID{1}, Partitions: []PartitionOffset{{Index: 1, Offset: 6, LeaderEpoch: -1, Metadata: "m"}}}}}
	f.Add(Command{CommitOffsets: &offsets}.Encode())
	f.Add(Command{DeleteOffsets: &DeleteOffsets{Group: "g", Topics: []TopicPartitions{{ID: TopicID{1}, Partitions: []int32{1}}}}}.Encode())
	f.Add(Command{InitTxn: &InitTxn{ID: "x", ProducerID: 4, OldProducerID: -1}}.Encode())
	f.Add(Command{AddTxnOffsets: &AddTxnOffsets{ProducerID: 4, Offsets: offsets}}.Encode())
	f.Add(Command{EndTxn: &EndTxn{ProducerID: 4, NewProducerID: 4, NewEpoch: 1, Partitions: []uint32{1}}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		if c.CreateTopic != nil && c.CreateTopic.Partitions > 1000 {
			return
		}
		_ = c.String()
		New().Apply(c)
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	b, err := filled(f).Encode(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[snapshotHeaderBytes:])
	withTxns, _ := newBoth(f)
	withTxns.must(Command{CommitOffsets: &CommitOffsets{Group: "g", Topics: []TopicOffsets{{ID: TopicID{1}, Partitions: []PartitionOffset{{Index: 1, Offset: 6}}}}}})
	if b, err = withTxns.c.Encode(0); err != nil {
		f.Fatal(err)
	}
	f.Add(b[snapshotHeaderBytes:])
	f.Fuzz(func(t *testing.T, body []byte) {
		if c, err := decodeBody(body); err == nil {
			c.StartWriting()
		}
	})
}
