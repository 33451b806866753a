package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"tidemark/internal/batch"
)

// both applies commands and batches to a catalog as the apply goroutine does, and to what is written before that.
type both struct {
	t testing.TB
	c *Catalog
}

func (b *both) do(cmd Command) error {
	b.t.Helper()
	decoded, err := DecodeCommand(cmd.Encode())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.c.Writing().Check(&decoded); err != nil {
		return err
	}
	b.c.Writing().Apply(&decoded)
	return b.c.Apply(decoded).Err
}

func (b *both) must(cmd Command) {
	b.t.Helper()
	if err := b.do(cmd); err != nil {
		b.t.Fatal(err)
	}
}

func (b *both) write(p *Partition, pid int64, epoch int16) error {
	i := batch.Info{ProducerID: pid, ProducerEpoch: epoch, Count: 1, Attributes: 1 << 4}
	if err := b.c.Writing().CheckBatch(p, &i); err != nil {
		return err
	}
	b.c.Writing().Batch(p, &i, 7)
	b.c.AppliedTransactional(p, &i, p.HighWatermark(), 7)
	p.Appended(p.HighWatermark(), p.HighWatermark()+1, 1)
	return nil
}

// end does what a frame with EndTxn and control batches does.
func (b *both) end(cmd EndTxn, parts ...*Partition) error {
	for _, p := range parts {
		cmd.Partitions = append(cmd.Partitions, p.ID)
	}
	if err := b.do(Command{EndTxn: &cmd}); err != nil {
		return err
	}
	for _, p := range parts {
		payload := batch.Control(cmd.ProducerID, cmd.Epoch, cmd.Commit, 8)
		i := batch.Head(payload)
		b.c.Ended(p, &i, p.HighWatermark(), payload)
		p.Appended(p.HighWatermark(), p.HighWatermark()+1, 1)
	}
	return nil
}

func newBoth(t testing.TB) (*both, []*Partition) {
	b := &both{t: t, c: New()}
	b.c.StartWriting()
	res := b.c.Apply(Command{CreateTopic: &CreateTopic{Name: "t", ID: TopicID{1}, Partitions: 3}})
	b.must(Command{InitTxn: &InitTxn{ID: "x", TimeoutMs: 1000, AtMs: 5, ProducerID: 40, OldProducerID: -1, OldEpoch: -1, Previous: -1}})
	return b, res.Topic.Partitions
}

func TestTransactionTakesWhatIsItsOwn(t *testing.T) {
	b, parts := newBoth(t)
	want := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("another id", b.write(parts[0], 41, 0), ErrUnknownProducer)
	want("another epoch", b.write(parts[0], 40, 1), ErrFenced)
	want("write", b.write(parts[0], 40, 0), nil)
	want("write", b.write(parts[2], 40, 0), nil)
	want("an end that misses a partition", b.end(EndTxn{ProducerID: 40, NewProducerID: 40, Commit: true}, parts[0]), ErrTxnChanged)
	want("an end that has one too many", b.end(EndTxn{ProducerID: 40, NewProducerID: 40, Commit: true}, parts...), ErrTxnChanged)
	want("an id that is taken", b.do(Command{InitTxn: &InitTxn{ID: "x", ProducerID: 50, OldProducerID: -1, OldEpoch: -1}}), ErrTxnChanged)
	want("a new epoch while it is open", b.do(Command{InitTxn: &InitTxn{ID: "x", ProducerID: 40, Epoch: 1, OldProducerID: 40}}), ErrTxnChanged)
	want("forgotten while it is open", b.do(Command{ForgetTxn: &ForgetTxn{ID: "x", BeforeMs: 1000}}), ErrTxnChanged)
	if at := parts[0].LastStable(); at != 0 {
		t.Errorf("stable up to %d while it is open", at)
	}
	want("abort", b.end(EndTxn{ProducerID: 40, NewProducerID: 40, NewEpoch: 1, AtMs: 9}, parts[0], parts[2]), nil)
	want("the old epoch", b.write(parts[0], 40, 0), ErrFenced)
	if got := fmt.Sprint(parts[0].LastStable(), parts[0].AbortedIn(0, 9), parts[1].AbortedIn(0, 9)); got != "2 [{40 0 1}] []" {
		t.Errorf("after the abort: %s", got)
	}
	want("not so old", b.do(Command{ForgetTxn: &ForgetTxn{ID: "x", BeforeMs: 9}}), ErrTxnChanged)
	want("forgotten", b.do(Command{ForgetTxn: &ForgetTxn{ID: "x", BeforeMs: 10}}), nil)
	want("and unknown", b.write(parts[0], 40, 1), ErrUnknownProducer)
}

func TestTransactionsOutliveASnapshot(t *testing.T) {
	b, parts := newBoth(t)
	b.must(Command{InitTxn: &InitTxn{ID: "y", TimeoutMs: 1000, AtMs: 5, ProducerID: 41, OldProducerID: -1, OldEpoch: -1, Previous: -1}})
	for _, pid := range []int64{40, 41} {
		if err := b.write(parts[1], pid, 0); err != nil {
			t.Fatal(err)
		}
	}
	b.must(Command{AddTxnOffsets: &AddTxnOffsets{ProducerID: 40, Offsets: CommitOffsets{Group: "g", AtMs: 8, Topics: []TopicOffsets{{ID: TopicID{1}, Partitions: []PartitionOffset{{Index: 1, Offset: 6, LeaderEpoch: -1}}}}}}})
	if err := b.end(EndTxn{ProducerID: 41, NewProducerID: 41, NewEpoch: 1, AtMs: 9}, parts[1]); err != nil {
		t.Fatal(err)
	}
	encoded, err := b.c.Encode(0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	again.StartWriting()
	if got, want := again.Txns().All(), b.c.Txns().All(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	p := again.View().Topics["t"].Partitions[1]
	if got := fmt.Sprint(p.LastStable(), p.AbortedIn(0, 9), again.txns.aborted.Load(), again.Txns().Unstable("g", TopicID{1}, 1)); got != "0 [{41 1 2}] 1 true" {
		t.Errorf("partition: %s", got)
	}
	b2 := &both{t: t, c: again}
	if err := b2.end(EndTxn{ProducerID: 40, NewProducerID: 40, NewEpoch: 1, Commit: true, AtMs: 10, Previous: -1}, p); err != nil {
		t.Fatal(err)
	}
	at, _ := again.Groups().Of("g", TopicID{1}, 1)
	if got := fmt.Sprint(p.LastStable(), at.Offset, again.Txns().Unstable("g", TopicID{1}, 1)); got != "4 6 false" {
		t.Errorf("after the end: %s", got)
	}
}

func TestDroppedFrameUndoesTransactions(t *testing.T) {
	b, parts := newBoth(t)
	w := b.c.Writing()
	state := func() string {
		x, in, ok := w.Get("x")
		_, _, other := w.Get("new")
		return fmt.Sprintf("%+v %d %v %v %d", x, len(in), ok, other, w.bytes)
	}
	before := state()
	i := batch.Info{ProducerID: 40, Count: 1, Attributes: 1 << 4}
	var undo []TxnUndo
	do := func(c Command) {
		undo = append(undo, w.Save(&c))
		w.Apply(&c)
	}
	undo = append(undo, w.Batch(parts[0], &i, 7), w.Batch(parts[0], &i, 8), w.Batch(parts[1], &i, 9))
	do(Command{AddTxnOffsets: &AddTxnOffsets{ProducerID: 40, Offsets: CommitOffsets{Group: "g"}}})
	do(Command{EndTxn: &EndTxn{ProducerID: 40, NewProducerID: 60, NewEpoch: 0}})
	do(Command{InitTxn: &InitTxn{ID: "x", ProducerID: 61, OldProducerID: 60}})
	do(Command{InitTxn: &InitTxn{ID: "new", ProducerID: 62, OldProducerID: -1}})
	do(Command{ForgetTxn: &ForgetTxn{ID: "x"}})
	for k := len(undo) - 1; k >= 0; k-- {
		w.Undo(undo[k])
	}
	if after := state(); after != before {
		t.Errorf("%s, want %s", after, before)
	}
	if err := w.CheckBatch(parts[0], &i); err != nil {
		t.Errorf("its producer: %v", err)
	}
	if len(w.byPID) != 1 {
		t.Errorf("%d producers, want one", len(w.byPID))
	}
}

// TestTransactionOfADeletedTopic: what was written to a partition that is gone when it is applied opens the transaction for both tables, so that it can be ended.
func TestTransactionOfADeletedTopic(t *testing.T) {
	b, parts := newBoth(t)
	i := batch.Info{ProducerID: 40, Count: 1, Attributes: 1 << 4}
	b.c.Writing().Batch(parts[0], &i, 7)
	if err := b.do(Command{DeleteTopic: &DeleteTopic{ID: TopicID{1}}}); err != nil {
		t.Fatal(err)
	}
	b.c.AppliedTransactional(nil, &i, 0, 7)
	if x, in, _ := b.c.Txns().Get("x"); x.BeganMs == 0 || len(in) != 0 {
		t.Errorf("%+v, %d partitions", x, len(in))
	}
	if err := b.end(EndTxn{ProducerID: 40, NewProducerID: 40, NewEpoch: 1, Previous: -1}); err != nil {
		t.Errorf("its end: %v", err)
	}
	b.must(Command{InitTxn: &InitTxn{ID: "x", ProducerID: 40, Epoch: 2, OldProducerID: 40, OldEpoch: 1, Previous: -1}})
}

// TestTransactionCommitsItsOffsetsThoughThereIsNoRoom: its records are committed with them.
func TestTransactionCommitsItsOffsetsThoughThereIsNoRoom(t *testing.T) {
	b, _ := newBoth(t)
	b.must(Command{AddTxnOffsets: &AddTxnOffsets{ProducerID: 40, Offsets: CommitOffsets{Group: "g", AtMs: 8, Topics: []TopicOffsets{{ID: TopicID{1}, Partitions: []PartitionOffset{{Index: 1, Offset: 6}}}}}}})
	b.c.groups.bytes += MaxOffsetsBytes + 1
	if err := b.end(EndTxn{ProducerID: 40, NewProducerID: 40, NewEpoch: 1, Commit: true, Previous: -1}); err != nil {
		t.Fatal(err)
	}
	if at, _ := b.c.Groups().Of("g", TopicID{1}, 1); at.Offset != 6 {
		t.Errorf("offset %d", at.Offset)
	}
	if err := b.do(commitOf("g", 9, TopicID{1}, 1)); !errors.Is(err, ErrOffsetsBytes) {
		t.Errorf("one more: %v", err)
	}
	if err := b.do(Command{CommitOffsets: &CommitOffsets{Group: "g", Topics: []TopicOffsets{{ID: TopicID{1}, Partitions: []PartitionOffset{{Index: 1, Offset: 7}}}}}}); err != nil {
		t.Errorf("the same anew: %v", err)
	}
}
