package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// client writes numbered records to a partition of its own and remembers which numbers were acknowledged. It lives through the server's crashes.
//
// An idempotent client sends what was not acknowledged again, with the same sequences: each number must be there exactly once. Another client goes on with new numbers: its unanswered ones may
// be there or not.
type client struct {
	name       string
	partition  int32
	acks       int16
	idempotent bool
	mayLose    bool         // its level does not outlive the process: what is lost is counted, not a failure
	patient    bool         // a retriable refusal is no failure: it goes on, on a new connection
	dark       *atomic.Bool // set as the power goes: what comes from then on did not arrive. Nil: it does not go
	rng        *rand.Rand

	producer kwire.Producer // idempotent only
	next     uint64         // first number never sent
	unacked  []sent         // in order
	acked    []uint64       // in order
	inFlight atomic.Int32
}

// sent is one request: the numbers [first, first+count).
type sent struct {
	first    uint64
	count    int
	sequence int32
}

const (
	topic         = "torture"
	window        = 5 // requests in flight
	clientTimeout = 30 * time.Second
	retryPause    = 20 * time.Millisecond
)

// run writes until the connection breaks. It returns an error for anything but that.
func (c *client) run(addr string, stop <-chan struct{}) error {
	c.inFlight.Store(0)
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	conn, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: c.name})
	if err != nil {
		return nil // killed before it came up to us
	}
	defer conn.Close()
	if c.idempotent && c.producer.ID < 0 {
		resp, err := conn.Call(ctx, kmsg.NewPtrInitProducerIDRequest())
		if err != nil || c.isDark() {
			return nil
		}
		r := resp.(*kmsg.InitProducerIDResponse)
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			if c.patient && kerr.IsRetriable(err) {
				return nil
			}
			return fmt.Errorf("%s: init producer id: %w", c.name, err)
		}
		c.producer = kwire.Producer{ID: r.ProducerID, Epoch: r.ProducerEpoch}
	}
	again := c.unacked
	if !c.idempotent {
		again = nil
	}
	c.unacked = nil
	for {
		for len(c.unacked) < window {
			select {
			case <-stop:
				return nil
			default:
			}
			var s sent
			if len(again) > 0 {
				s, again = again[0], again[1:]
			} else {
				s = sent{first: c.next, count: 1 + c.rng.IntN(20), sequence: c.producer.Sequence}
				c.next += uint64(s.count)
				c.producer.Sequence += int32(s.count)
			}
			c.unacked = append(c.unacked, s)
			c.inFlight.Add(1)
			if _, err := conn.Send(ctx, c.request(s)); err != nil {
				return c.broken(again)
			}
		}
		if c.acks == 0 { // there is no answer
			c.unacked = nil
			c.inFlight.Store(0)
			time.Sleep(time.Millisecond) // a pace, not a wait for something
			continue
		}
		resp, err := conn.Receive(ctx)
		if err != nil || c.isDark() {
			return c.broken(again)
		}
		req := c.request(c.unacked[0])
		kresp, err := kwire.Decode(req, resp.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := kerr.ErrorForCode(produceCode(kresp)); err != nil {
			if c.patient && kerr.IsRetriable(err) {
				return c.broken(again)
			}
			return fmt.Errorf("%s: numbers from %d, sequence %d: %w", c.name, c.unacked[0].first, c.unacked[0].sequence, err)
		}
		for i := range c.unacked[0].count {
			c.acked = append(c.acked, c.unacked[0].first+uint64(i))
		}
		c.unacked = c.unacked[1:]
		c.inFlight.Add(-1)
	}
}

func (c *client) isDark() bool { return c.dark != nil && c.dark.Load() }

// produceCode is the error code of the one partition in a Produce response.
func produceCode(resp kmsg.Response) int16 {
	return resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
}

// broken keeps what is not acknowledged, for an idempotent client to send again.
func (c *client) broken(again []sent) error {
	c.unacked = append(c.unacked, again...)
	return nil
}

func (c *client) request(s sent) *kmsg.ProduceRequest { return c.padded(s, 0) }

// padded is a request whose records have keys of keyBytes.
func (c *client) padded(s sent, keyBytes int) *kmsg.ProduceRequest {
	records := make([]kwire.Record, s.count)
	key := []byte(c.name)
	if keyBytes > len(key) {
		key = append(key, make([]byte, keyBytes-len(key))...)
	}
	for i := range records {
		records[i] = kwire.Record{Key: key, Value: binary.BigEndian.AppendUint64(nil, s.first+uint64(i)), Timestamp: 1}
	}
	producer := kwire.NoProducer
	if c.idempotent {
		producer = c.producer
		producer.Sequence = s.sequence
	}
	b, err := kwire.AppendBatch(nil, producer, nil, records...)
	if err != nil {
		panic(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis = c.acks, int32(clientTimeout.Milliseconds())
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = c.partition, b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// check reads the client's partition from the start and compares it with what was acknowledged. From then on all that is there counts as acknowledged: a reader has seen it.
func (c *client) check(addr string) (records, lost int, err error) {
	got, err := readAll(addr, c.partition)
	if err != nil {
		return 0, 0, err
	}
	there := make(map[uint64]bool, len(got))
	for k, n := range got {
		if k > 0 && n <= got[k-1] {
			return len(got), 0, fmt.Errorf("%s: %d comes after %d: twice, or out of order", c.name, n, got[k-1])
		}
		if n >= c.next {
			return len(got), 0, fmt.Errorf("%s: %d was never sent", c.name, n)
		}
		there[n] = true
	}
	for _, n := range c.acked {
		if there[n] {
			continue
		}
		if lost++; !c.mayLose {
			return len(got), lost, fmt.Errorf("%s: %d was acknowledged and is gone (%d were acknowledged, %d are there)", c.name, n, len(c.acked), len(got))
		}
	}
	c.acked = got
	return len(got), lost, nil
}

// fetchRequest asks for what a partition holds from an offset on, and does not wait.
func fetchRequest(partition int32, from int64, maxBytes int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(11)
	req.ReplicaID, req.MaxBytes, req.MinBytes = -1, maxBytes, 0
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = partition, from, maxBytes, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// readAll returns the numbers in a partition.
func readAll(addr string, partition int32) ([]uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	conn, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: "checker"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var got []uint64
	for from := int64(0); ; {
		kresp, err := conn.Request(ctx, fetchRequest(partition, from, 8<<20))
		if err != nil {
			return nil, err
		}
		p := kresp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			return nil, fmt.Errorf("fetch at %d: %w", from, err)
		}
		if from >= p.HighWatermark {
			return got, nil
		}
		batches, err := kwire.ParseBatches(p.RecordBatches)
		if err != nil {
			return nil, err
		}
		for _, b := range batches {
			if b.FirstOffset != from {
				return nil, fmt.Errorf("batch at offset %d, wanted %d", b.FirstOffset, from)
			}
			for _, r := range b.Unpacked {
				got = append(got, binary.BigEndian.Uint64(r.Value))
			}
			from += int64(len(b.Unpacked))
		}
	}
}

// all runs the clients until the server is gone and returns their first error. onStart is called once they are on their way.
func all(clients []*client, addr string, stop <-chan struct{}, whileRunning func()) error {
	var wg sync.WaitGroup
	errs := make(chan error, len(clients))
	for _, c := range clients {
		wg.Go(func() {
			for {
				if err := c.run(addr, stop); err != nil {
					errs <- err
					return
				}
				select {
				case <-stop:
					return
				case <-time.After(retryPause):
				}
				if !c.patient {
					return
				}
			}
		})
	}
	whileRunning()
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// fillBatch is the bytes of one batch of a filler.
const fillBatch = 256 << 10

// one sends one large batch and waits for its answer.
func (c *client) one(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	conn, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: c.name})
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.oneOn(ctx, conn)
}

func (c *client) oneOn(ctx context.Context, conn *kwire.Conn) error {
	s := sent{first: c.next, count: 1}
	c.next++
	kresp, err := conn.Request(ctx, c.padded(s, fillBatch))
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(produceCode(kresp)); err != nil {
		return err
	}
	c.acked = append(c.acked, s.first)
	return nil
}
