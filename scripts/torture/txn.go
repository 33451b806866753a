package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/scripts/node"
)

// transactions runs an application that reads numbers, transforms them and writes them elsewhere, all of that in transactions, and kills the server, or the application alone, in the middle. In the end each number has to have been written exactly once, as readers
// of what is committed see it, and no transaction may be left open.
func transactions(f *flag.FlagSet) func(*run) error {
	rounds := f.Int("rounds", 0, "rounds that count; default 20, long 200")
	return func(r *run) error {
		pick(r, rounds, 20, 200)
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		return txnRounds(r, binary, *rounds)
	}
}

const (
	txnGroup      = "transform"
	txnOut        = "out"
	txnInstances  = 2
	txnPartitions = 4
)

// transform is what the application does.
func transform(n uint64) uint64 { return n*0x9e3779b97f4a7c15 + 1 }

// pipe is the application's input as it was acknowledged, and what is under way.
type pipe struct {
	mu       sync.Mutex
	fed      map[uint64]bool // guarded by mu: acknowledged
	sent     uint64          // guarded by mu: numbers below it were sent
	inFlight atomic.Int64    // transactions that are being ended
	ended    atomic.Int64    // transactions that were committed, as far as the application knows
	ahead    atomic.Int64    // numbers that were sent in this round, less those whose transaction was committed
}

// feedAhead is how far the application may be behind, in one round: what it does not come to is left for the next.
const feedAhead = 2000

var txnServer = append([]string{"group.session.min=100ms", "group.initial_delay=20ms"}, smallServer...)

func txnRounds(r *run, binary string, rounds int) error {
	rng := r.rng(3)
	data := filepath.Join(r.dir, "txn")
	n, err := node.Start(binary, data, txnServer...)
	if err != nil {
		return err
	}
	defer func() { n.Kill() }()
	if err := createTopic(n.Addr, txnPartitions); err != nil {
		return err
	}
	if err := createNamed(n.Addr, txnOut, txnPartitions); err != nil {
		return err
	}
	p := &pipe{fed: make(map[uint64]bool)}
	for done, tries := 0, 0; done < rounds; tries++ {
		if tries == triesARound*rounds {
			return fmt.Errorf("%d rounds in %d tries: too little was in flight", done, tries)
		}
		crew, err := p.start(n.Addr)
		if err != nil {
			return err
		}
		if err := p.progress(2 * txnInstances); err != nil {
			return fmt.Errorf("round %d: %w: %s", done+1, err, n.Last())
		}
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond) // when to strike
		flying := p.inFlight.Load()
		alone := rng.IntN(3) == 0
		if !alone {
			n.Kill()
		}
		for _, w := range crew {
			w.kill()
		}
		for _, w := range crew {
			w.done.Wait()
		}
		p.inFlight.Store(0)
		if alone {
			r.count("applications killed", 1)
		} else {
			r.count("servers and applications killed", 1)
			if n, err = node.Start(binary, data, txnServer...); err != nil {
				return err
			}
		}
		if flying == 0 {
			continue
		}
		done++
		r.count("transactions that were being ended at them", flying)
		r.pass()
		if done%50 == 0 {
			fmt.Printf("%s: %d of %d rounds\n", r.form, done, rounds)
		}
	}
	return p.finish(r, n.Addr)
}

func createNamed(addr, name string, partitions int32) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, name)
	return err
}

// start starts the application's instances and, as the last worker, who feeds it.
func (p *pipe) start(addr string) ([]*worker, error) {
	var crew []*worker
	p.ahead.Store(0)
	for i := range txnInstances {
		w, ctx, err := p.instance(addr, i)
		if err != nil {
			return nil, err
		}
		w.done.Go(func() { p.work(ctx, w) })
		crew = append(crew, w)
	}
	w, ctx, err := newWorker(addr, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0))
	if err != nil {
		return nil, err
	}
	w.done.Go(func() { p.feed(ctx, w) })
	return append(crew, w), nil
}

// instance makes one instance of the application.
func (p *pipe) instance(addr string, i int) (*worker, context.Context, error) {
	w := &worker{}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(addr), kgo.Dialer(w.dial), kgo.DisableClientMetrics(), kgo.ConsumerGroup(txnGroup), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.TransactionalID(fmt.Sprintf("transform-%d", i)), kgo.TransactionTimeout(10*time.Second), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DefaultProduceTopic(txnOut), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(50*time.Millisecond),
		kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return nil, nil, err
	}
	w.session, w.cl = session, session.Client()
	return w, ctx, nil
}

// feed writes numbers, a few at a time, until ctx ends.
func (p *pipe) feed(ctx context.Context, w *worker) {
	for ctx.Err() == nil {
		if p.ahead.Load() > feedAhead {
			time.Sleep(time.Millisecond) // between two looks
			continue
		}
		var records []*kgo.Record
		p.mu.Lock()
		for range 8 {
			records = append(records, &kgo.Record{Value: binary.BigEndian.AppendUint64(nil, p.sent)})
			p.sent++
		}
		p.mu.Unlock()
		p.ahead.Add(int64(len(records)))
		for _, res := range w.cl.ProduceSync(ctx, records...) {
			if res.Err == nil {
				p.mu.Lock()
				p.fed[binary.BigEndian.Uint64(res.Record.Value)] = true
				p.mu.Unlock()
			}
		}
	}
}

// work is the application: it ends with ctx, or when its session can do no more.
func (p *pipe) work(ctx context.Context, w *worker) {
	s := w.session
	for ctx.Err() == nil {
		fetches := s.PollRecords(ctx, 64)
		records := fetches.Records()
		if len(records) == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			return
		}
		var failed atomic.Bool
		for _, r := range records {
			s.Produce(ctx, &kgo.Record{Value: binary.BigEndian.AppendUint64(nil, transform(binary.BigEndian.Uint64(r.Value)))}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(true)
				}
			})
		}
		p.inFlight.Add(1)
		committed, err := s.End(ctx, kgo.TransactionEndTry(!failed.Load()))
		p.inFlight.Add(-1)
		if err != nil && !kerr.IsRetriable(err) {
			return // a new instance begins with the next round
		}
		if committed {
			p.ended.Add(1)
			p.ahead.Add(int64(-len(records)))
		}
	}
}

// progress waits until so many more transactions were committed.
func (p *pipe) progress(transactions int64) error {
	to := p.ended.Load() + transactions
	for deadline := time.Now().Add(clientTimeout); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) { // between two looks
		if p.ended.Load() >= to {
			return nil
		}
	}
	return fmt.Errorf("no transaction is committed for %v", clientTimeout)
}

// finish has the application read the rest, and compares.
func (p *pipe) finish(r *run, addr string) error {
	var crew []*worker
	for i := range txnInstances {
		w, ctx, err := p.instance(addr, i)
		if err != nil {
			return err
		}
		w.done.Go(func() { p.work(ctx, w) })
		crew = append(crew, w)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(context.Background(), 2*clientTimeout)
	defer cancel()
	for ; ; time.Sleep(20 * time.Millisecond) { // between two looks
		lags, err := admin.Lag(ctx, txnGroup)
		if err != nil {
			return err
		}
		if l := lags[txnGroup]; l.Error() == nil && len(l.Lag[topic]) == txnPartitions && l.Lag.Total() == 0 {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the application does not come to the end of its input: %+v", lags[txnGroup].Lag)
		}
	}
	for _, w := range crew {
		w.kill()
	}
	for _, w := range crew {
		w.done.Wait()
	}
	out, err := readCommitted(ctx, addr, admin)
	if err != nil {
		r.fail("%v", err)
		return nil
	}
	missing, twice, strange := 0, 0, len(out)
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range p.sent {
		times := out[transform(n)]
		if times > 0 {
			strange--
		}
		switch {
		case times == 0 && p.fed[n]:
			missing++
		case times > 1:
			twice++
		}
	}
	r.count("numbers written", int64(len(out)))
	r.count("transactions committed", p.ended.Load())
	if missing+twice+strange > 0 {
		r.fail("of %d acknowledged numbers %d are missing, %d were written more than once, and %d that were are none of them", len(p.fed), missing, twice, strange)
		return nil
	}
	r.pass()
	return nil
}

// readCommitted reads the output from its beginning to its end as of now, and counts each value.
func readCommitted(ctx context.Context, addr string, admin *kadm.Client) (map[uint64]int, error) {
	ends, err := admin.ListEndOffsets(ctx, txnOut)
	if err != nil {
		return nil, err
	}
	stable, err := admin.ListCommittedOffsets(ctx, txnOut)
	if err != nil {
		return nil, err
	}
	starts := make(map[int32]kgo.Offset)
	left := make(map[int32]int64)
	for id, end := range ends[txnOut] {
		if at, _ := stable.Lookup(txnOut, id); at.Offset != end.Offset {
			return nil, fmt.Errorf("partition %d is stable up to %d and ends at %d: a transaction is open that nobody will end", id, at.Offset, end.Offset)
		}
		if end.Offset > 0 {
			starts[id], left[id] = kgo.NewOffset().AtStart(), end.Offset
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{txnOut: starts}), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords()) // the last of a partition is one
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	out := make(map[uint64]int)
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(fetches.Err0(), ctx.Err()); err != nil {
			return nil, fmt.Errorf("reading what is committed, %d partitions left: %w", len(left), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out[binary.BigEndian.Uint64(r.Value)]++
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out, nil
}
