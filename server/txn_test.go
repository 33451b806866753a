package server

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
)

// producer is a transactional producer as its client sees it.
type producer struct {
	*client
	id     string
	pid    int64
	epoch  int16
	next   map[string]int32 // sequences by topic and partition
	endV   int16            // of EndTxn; 5 and up: its answer has the next epoch
	offset int64            // of the last batch
	acks   int16            // of its batches; 0: −1
}

func (c *client) producer(id string, endVersion int16) *producer {
	c.t.Helper()
	p := &producer{client: c, id: id, endV: endVersion}
	p.init(30 * time.Second)
	return p
}

func (p *producer) init(timeout time.Duration) {
	p.t.Helper()
	r := ask[*kmsg.InitProducerIDResponse](p.client, &kmsg.InitProducerIDRequest{Version: 4, TransactionalID: &p.id, TransactionTimeoutMillis: int32(timeout.Milliseconds()), ProducerID: -1, ProducerEpoch: -1})
	if r.ErrorCode != 0 {
		p.t.Fatalf("InitProducerId: error %d", r.ErrorCode)
	}
	p.pid, p.epoch, p.next = r.ProducerID, r.ProducerEpoch, map[string]int32{}
}

// transactional makes a batch one of a transaction.
func transactional(b []byte) []byte {
	b[22] |= 1 << 4
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// write writes values in the producer's transaction and returns the error code.
func (p *producer) write(topic string, partition int32, vs ...string) int16 {
	p.t.Helper()
	at := fmt.Sprint(topic, partition)
	b := transactional(sequenced(kwire.Producer{ID: p.pid, Epoch: p.epoch, Sequence: p.next[at]}, nil, vs...))
	req := produceTo(topic, partition, -1, b)
	if req.Acks = p.acks; p.acks == 0 {
		req.Acks = -1
	}
	req.Version, req.TransactionID = 9, &p.id
	got := onlyPart(ask[*kmsg.ProduceResponse](p.client, req))
	if got.ErrorCode == 0 {
		p.next[at] += int32(len(vs))
		p.offset = got.BaseOffset
	}
	return got.ErrorCode
}

// end ends the transaction and returns the error code.
func (p *producer) end(commit bool) int16 {
	p.t.Helper()
	r := ask[*kmsg.EndTxnResponse](p.client, &kmsg.EndTxnRequest{Version: p.endV, TransactionalID: p.id, ProducerID: p.pid, ProducerEpoch: p.epoch, Commit: commit})
	if r.ErrorCode == 0 && p.endV >= 5 {
		p.pid, p.epoch, p.next = r.ProducerID, r.ProducerEpoch, map[string]int32{}
	}
	return r.ErrorCode
}

// stable is what a reader of what is committed sees of a partition: values, with those of aborted transactions left out, and the last stable offset.
func (c *client) stable(topic string, partition int32) (values []string, lastStable int64) {
	c.t.Helper()
	req := fetchFrom(topic, partition, 0)
	req.IsolationLevel, req.MinBytes = 1, 0
	got := onlyFetched(ask[*kmsg.FetchResponse](c, req))
	if got.ErrorCode != 0 {
		c.t.Fatalf("fetch: error %d", got.ErrorCode)
	}
	aborted := map[int64]bool{}
	rest := got.AbortedTransactions
	for _, b := range parse(c.t, got.RecordBatches) {
		for len(rest) > 0 && rest[0].FirstOffset <= b.FirstOffset {
			aborted[rest[0].ProducerID] = true
			rest = rest[1:]
		}
		switch {
		case b.Attributes&(1<<5) != 0:
			delete(aborted, b.ProducerID)
		case b.Attributes&(1<<4) != 0 && aborted[b.ProducerID]:
		default:
			for _, r := range b.Unpacked {
				values = append(values, string(r.Value))
			}
		}
	}
	return values, got.LastStableOffset
}

func (c *client) sees(what, topic string, partition int32, lastStable int64, want ...string) {
	c.t.Helper()
	got, at := c.stable(topic, partition)
	if fmt.Sprint(got) != fmt.Sprint(want) || at != lastStable {
		c.t.Errorf("%s: a reader of %s-%d sees %v up to %d, want %v up to %d", what, topic, partition, got, at, want, lastStable)
	}
}

func (c *client) is(what string, got int16, want *kerr.Error) {
	c.t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		c.t.Errorf("%s: error %d, want %d", what, got, code)
	}
}

func TestTransactionsEndOnAllPartitions(t *testing.T) {
	for _, endV := range []int16{0, 5} {
		each(t, func(t *testing.T, n *node) {
			c := n.dial(t)
			c.create("t", 2)
			p := c.producer("p", endV)
			c.produce("t", 0, -1, values("plain"))
			c.is("write", p.write("t", 0, "a", "b"), nil)
			c.is("write", p.write("t", 1, "c"), nil)
			c.produce("t", 0, -1, values("behind"))
			c.sees("open", "t", 0, 1, "plain")
			c.sees("open", "t", 1, 0)
			c.is("commit", p.end(true), nil)
			c.sees("committed", "t", 0, 5, "plain", "a", "b", "behind")
			c.sees("committed", "t", 1, 2, "c")
			c.is("write", p.write("t", 0, "gone"), nil)
			c.is("write", p.write("t", 1, "gone too"), nil)
			c.is("abort", p.end(false), nil)
			c.is("write", p.write("t", 0, "kept"), nil)
			c.is("commit", p.end(true), nil)
			c.sees("ended", "t", 0, 9, "plain", "a", "b", "behind", "kept")
			c.sees("ended", "t", 1, 4, "c")
			if got := len(c.read("t", 1)); got != 4 {
				t.Errorf("who reads all sees %d records, want those of the aborted transaction and both ends too", got)
			}
		})
	}
}

// TestLateCommitDoesNotHitALaterTransaction has a commit arrive again when the producer's next transaction is open (KIP-890; Jepsen's analyses of Bufstream and Redpanda).
func TestLateCommitDoesNotHitALaterTransaction(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		p := c.producer("p", 5)
		c.is("write", p.write("t", 0, "a"), nil)
		late := *p
		c.is("commit", p.end(true), nil)
		again := late
		c.is("the answer was lost: the same again", again.end(true), nil)
		if again.pid != p.pid || again.epoch != p.epoch {
			t.Errorf("told %d/%d, and then %d/%d", p.pid, p.epoch, again.pid, again.epoch)
		}
		c.is("write", p.write("t", 0, "b"), nil)
		c.is("a late commit", late.end(true), kerr.ProducerFenced)
		c.sees("the later one is open", "t", 0, 2, "a")
		c.is("a late batch", late.write("t", 0, "torn"), kerr.InvalidProducerEpoch)
		c.is("abort", p.end(false), nil)
		c.sees("and aborted", "t", 0, 4, "a")
	})
}

// TestNoTornTransaction: a batch that is still on its way when its transaction is aborted, be it by another instance, comes into no later one.
func TestNoTornTransaction(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 2)
		old := c.producer("p", 5)
		c.is("write", old.write("t", 0, "a"), nil)
		other := n.dial(t)
		p := other.producer("p", 5) // aborts what is open, and fences
		c.sees("aborted", "t", 0, 2)
		c.is("a late batch", old.write("t", 0, "late"), kerr.InvalidProducerEpoch)
		c.is("in another partition", old.write("t", 1, "late"), kerr.InvalidProducerEpoch)
		c.is("its commit", old.end(true), kerr.ProducerFenced)
		c.is("write", p.write("t", 0, "b"), nil)
		c.is("commit", p.end(true), nil)
		c.sees("committed", "t", 0, 4, "b")
		c.sees("nothing there", "t", 1, 0)
		unknown := &producer{client: c, id: "unknown", pid: 12345, next: map[string]int32{}}
		c.is("a producer that nobody knows", unknown.write("t", 0, "x"), kerr.InvalidProducerIDMapping)
	})
}

func TestLateTransactionIsAborted(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		p := c.producer("p", 5)
		p.init(100 * time.Millisecond)
		c.is("write", p.write("t", 0, "a"), nil)
		eventually(t, "it is aborted", func() bool { _, at := c.stable("t", 0); return at == 2 })
		c.is("its commit", p.end(true), kerr.ProducerFenced)
		p.init(time.Minute)
		c.is("write", p.write("t", 0, "b"), nil)
		c.is("commit", p.end(true), nil)
		c.sees("committed", "t", 0, 4, "b")
	})
}

func (p *producer) commitOffset(group, topic string, partition int32, offset int64) int16 {
	p.t.Helper()
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset = partition, offset
	r := ask[*kmsg.TxnOffsetCommitResponse](p.client, &kmsg.TxnOffsetCommitRequest{Version: 3, TransactionalID: p.id, Group: group, ProducerID: p.pid, ProducerEpoch: p.epoch, Generation: -1,
		Topics: []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{rp}}}})
	return r.Topics[0].Partitions[0].ErrorCode
}

// committed is a group's offset, and the error of who wants it stable.
func (c *client) committed(group, topic string, partition int32) (offset int64, unstable int16) {
	c.t.Helper()
	ask1 := func(stable bool) kmsg.OffsetFetchResponseTopicPartition {
		return ask[*kmsg.OffsetFetchResponse](c, &kmsg.OffsetFetchRequest{Version: 7, Group: group, RequireStable: stable, Topics: []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{partition}}}}).Topics[0].Partitions[0]
	}
	return ask1(false).Offset, ask1(true).ErrorCode
}

func TestOffsetsEndWithTheirTransaction(t *testing.T) {
	mem := vfs.NewMem()
	keep := func(c *config) { c.pipeline.FS = mem }
	var pid int64
	var epoch int16
	t.Run("open", func(t *testing.T) {
		n := start(t, TransportNet, keep)
		c := n.dial(t)
		c.create("t", 1)
		p := c.producer("p", 5)
		check := func(what string, offset int64, unstable *kerr.Error) {
			t.Helper()
			at, code := c.committed("g", "t", 0)
			if c.is(what, code, unstable); at != offset {
				t.Errorf("%s: offset %d, want %d", what, at, offset)
			}
		}
		c.is("offset", p.commitOffset("g", "t", 0, 5), nil)
		check("open", -1, kerr.UnstableOffsetCommit)
		c.is("commit", p.end(true), nil)
		check("committed", 5, nil)
		c.is("offset", p.commitOffset("g", "t", 0, 9), nil)
		c.is("abort", p.end(false), nil)
		check("aborted", 5, nil)
		c.is("offset", p.commitOffset("g", "t", 0, 7), nil)
		c.is("write", p.write("t", 0, "a"), nil)
		pid, epoch = p.pid, p.epoch
	})
	t.Run("behind a restart", func(t *testing.T) {
		n := start(t, TransportNet, keep)
		c := n.dial(t)
		c.sees("open still", "t", 0, 0)
		if at, code := c.committed("g", "t", 0); at != 5 || code != kerr.UnstableOffsetCommit.Code {
			t.Errorf("offset %d, error %d", at, code)
		}
		p := &producer{client: c, id: "p", pid: pid, epoch: epoch, next: map[string]int32{"t0": 1}, endV: 5}
		c.is("it goes on", p.write("t", 0, "b"), nil)
		c.is("commit", p.end(true), nil)
		c.sees("committed", "t", 0, 3, "a", "b")
		if at, code := c.committed("g", "t", 0); at != 7 || code != 0 {
			t.Errorf("offset %d, error %d", at, code)
		}
	})
	t.Run("and another", func(t *testing.T) {
		n := start(t, TransportNet, keep)
		c := n.dial(t)
		c.sees("committed", "t", 0, 3, "a", "b")
		old := &producer{client: c, id: "p", pid: pid, epoch: epoch, next: map[string]int32{"t0": 2}, endV: 5}
		c.is("its epoch is known", old.write("t", 0, "late"), kerr.InvalidProducerEpoch)
	})
}

// TestCommitOfWhatIsNotAppliedYet: a batch that was answered as received is part of its transaction, and of no later one.
func TestCommitOfWhatIsNotAppliedYet(t *testing.T) {
	for _, endV := range []int16{4, 5} {
		each(t, func(t *testing.T, n *node) {
			c := n.dial(t)
			c.create("t", 1)
			p := c.producer("p", endV)
			p.acks = 101
			var want []string
			for i := range 20 {
				v := fmt.Sprint(i)
				c.is("write", p.write("t", 0, v), nil)
				commit := i%3 != 1
				if commit {
					want = append(want, v)
				}
				c.is("end", p.end(commit), nil)
			}
			c.sees("ended", "t", 0, 40, want...)
		})
	}
}

func TestDeletedTopicInATransaction(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		id := c.create("gone", 1)
		p := c.producer("p", 5)
		c.is("write", p.write("t", 0, "a"), nil)
		c.is("write", p.write("gone", 0, "b"), nil)
		ask[*kmsg.DeleteTopicsResponse](c, &kmsg.DeleteTopicsRequest{Version: 6, TimeoutMillis: 10_000, Topics: []kmsg.DeleteTopicsRequestTopic{{TopicID: id}}})
		c.is("commit", p.end(true), nil)
		c.sees("committed", "t", 0, 2, "a")
	})
}
