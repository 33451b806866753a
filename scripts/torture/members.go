package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/scripts/node"
)

const (
	memberGroup      = "torture"
	memberCount      = 3
	memberPartitions = 4
)

// shared is what a producer writes and a group's members read and commit, over all rounds.
type shared struct {
	mu       sync.Mutex
	acked    map[uint64]bool         // records that the producer was told of; guarded by mu
	read     map[uint64]int          // records, and how often they were read; guarded by mu
	told     [memberPartitions]int64 // the highest offset whose commit was acknowledged; guarded by mu
	sent     [memberPartitions]int64 // the highest offset that was ever sent in a commit; guarded by mu
	next     uint64                  // guarded by mu
	inFlight atomic.Int64            // commits and records without an answer
}

// memberServer has short sessions, so that a member that was killed is noticed soon.
var memberServer = append([]string{"group.session.min=100ms", "group.initial_delay=20ms"}, smallServer...)

// memberRounds are rounds of: members share partitions, and either the server is killed with all of them, or one member alone, which cannot say that it leaves. In the end all that was acknowledged has been read.
func memberRounds(r *run, binary string, rounds int) error {
	rng := r.rng(2)
	data := filepath.Join(r.dir, "members")
	s := &shared{acked: make(map[uint64]bool), read: make(map[uint64]int)}
	n, err := node.Start(binary, data, memberServer...)
	if err != nil {
		return err
	}
	defer func() { n.Kill() }()
	if err := createTopic(n.Addr, memberPartitions); err != nil {
		return err
	}
	for done, tries := 0, 0; done < rounds; tries++ {
		if tries == triesARound*rounds {
			return fmt.Errorf("%d rounds in %d tries: too little was in flight", done, tries)
		}
		crew, err := s.start(n.Addr)
		if err != nil {
			return err
		}
		if err := s.progress(crew, memberPartitions); err != nil {
			return fmt.Errorf("round %d: %w: %s", done+1, err, n.Last())
		}
		time.Sleep(time.Duration(20+rng.IntN(300)) * time.Millisecond) // when to strike
		if rng.IntN(3) == 0 {                                          // a member alone, and the others take over
			crew[rng.IntN(memberCount)].kill()
			r.count("members killed", 1)
			if err := s.progress(crew, memberPartitions); err != nil {
				return fmt.Errorf("round %d: after a member was killed: %w: %s", done+1, err, n.Last())
			}
		}
		flying := s.inFlight.Load()
		n.Kill()
		for _, m := range crew {
			m.kill()
		}
		for _, m := range crew {
			m.done.Wait()
		}
		s.inFlight.Store(0)
		r.count("servers killed", 1)
		if n, err = node.Start(binary, data, memberServer...); err != nil {
			return err
		}
		cerr := s.committed(n.Addr)
		if flying == 0 && cerr == nil {
			continue
		}
		done++
		r.count("commits and records in flight when servers were killed", flying)
		r.check(cerr, "round %d", done)
	}
	return s.finish(r, n.Addr)
}

// worker is a producer or a member.
type worker struct {
	cl      *kgo.Client
	session *kgo.GroupTransactSession // of a transactional one
	cancel  context.CancelFunc
	dead    atomic.Bool
	done    sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

// kill ends a worker as kill -9 would: its connections end, and it says nothing any more.
func (w *worker) kill() {
	w.dead.Store(true)
	w.mu.Lock()
	for _, c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	w.cancel()
	go w.cl.CloseAllowingRebalance() // ends what waits for an answer that will not come
}

var errDead = errors.New("it was killed")

func (w *worker) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead.Load() {
		return nil, errDead
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		w.conns = append(w.conns, c)
	}
	return c, err
}

func newWorker(addr string, opts ...kgo.Opt) (*worker, context.Context, error) {
	w := &worker{}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.Dialer(w.dial), kgo.DisableClientMetrics()}, opts...)...)
	w.cl = cl
	return w, ctx, err
}

// start starts members and, as the last worker, a producer.
func (s *shared) start(addr string) ([]*worker, error) {
	var crew []*worker
	for range memberCount {
		m, ctx, err := newWorker(addr, kgo.ConsumerGroup(memberGroup), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
			kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(50*time.Millisecond), kgo.FetchMaxWait(50*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))
		if err != nil {
			return nil, err
		}
		m.done.Go(func() { s.consume(ctx, m) })
		crew = append(crew, m)
	}
	p, ctx, err := newWorker(addr, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0))
	if err != nil {
		return nil, err
	}
	p.done.Go(func() { s.produce(ctx, p) })
	return append(crew, p), nil
}

// produce writes numbered records, a few at a time, until ctx ends.
func (s *shared) produce(ctx context.Context, w *worker) {
	for ctx.Err() == nil {
		var records []*kgo.Record
		s.mu.Lock()
		for range 8 {
			records = append(records, &kgo.Record{Value: binary.BigEndian.AppendUint64(nil, s.next)})
			s.next++
		}
		s.mu.Unlock()
		s.inFlight.Add(1)
		for _, res := range w.cl.ProduceSync(ctx, records...) {
			if res.Err == nil {
				s.mu.Lock()
				s.acked[binary.BigEndian.Uint64(res.Record.Value)] = true
				s.mu.Unlock()
			}
		}
		s.inFlight.Add(-1)
	}
}

// consume reads and commits until ctx ends. What is committed was read.
func (s *shared) consume(ctx context.Context, w *worker) {
	for ctx.Err() == nil {
		fetches := w.cl.PollRecords(ctx, 64)
		records := fetches.Records()
		if len(records) > 0 {
			s.mu.Lock()
			var upTo [memberPartitions]int64
			for _, r := range records {
				s.read[binary.BigEndian.Uint64(r.Value)]++
				upTo[r.Partition] = max(upTo[r.Partition], r.Offset+1)
				s.sent[r.Partition] = max(s.sent[r.Partition], r.Offset+1)
			}
			s.mu.Unlock()
			s.inFlight.Add(1)
			err := w.cl.CommitRecords(ctx, records...)
			if err == nil {
				s.mu.Lock()
				for i, at := range upTo {
					s.told[i] = max(s.told[i], at)
				}
				s.mu.Unlock()
			}
			s.inFlight.Add(-1)
		}
		w.cl.AllowRebalance()
	}
}

// progress waits until commits of so many partitions have moved.
func (s *shared) progress(crew []*worker, partitions int) error {
	s.mu.Lock()
	from := s.told
	s.mu.Unlock()
	for deadline := time.Now().Add(clientTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // between two looks
		s.mu.Lock()
		moved := 0
		for i := range s.told {
			if s.told[i] > from[i] {
				moved++
			}
		}
		s.mu.Unlock()
		if moved == partitions {
			return nil
		}
	}
	return fmt.Errorf("%d members commit nothing in some partition for %v", len(crew)-1, clientTimeout)
}

// committed compares what the group has committed with what it was told.
func (s *shared) committed(addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	have, err := kadm.NewClient(cl).FetchOffsets(ctx, memberGroup)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.told {
		at, _ := have.Lookup(topic, int32(i))
		if at.At < s.told[i] || at.At > s.sent[i] {
			err = errors.Join(err, fmt.Errorf("partition %d stands at %d: %d was acknowledged, %d sent", i, at.At, s.told[i], s.sent[i]))
		}
		s.told[i] = max(s.told[i], at.At) // one whose answer was lost
	}
	return err
}

// finish has one member read the rest, and looks for records that none has read.
func (s *shared) finish(r *run, addr string) error {
	m, ctx, err := newWorker(addr, kgo.ConsumerGroup(memberGroup), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return err
	}
	m.done.Go(func() { s.consume(ctx, m) })
	missing := 0
	for deadline := time.Now().Add(clientTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // between two looks
		s.mu.Lock()
		missing = 0
		for id := range s.acked {
			if s.read[id] == 0 {
				missing++
			}
		}
		s.mu.Unlock()
		if missing == 0 {
			break
		}
	}
	m.kill()
	m.done.Wait()
	again := 0
	for _, n := range s.read {
		again += n - 1
	}
	r.count("records acknowledged", int64(len(s.acked)))
	r.count("records read again", int64(again))
	if missing > 0 {
		r.fail("%d of %d acknowledged records were read by no member", missing, len(s.acked))
		return nil
	}
	r.pass()
	return nil
}
