package kafka

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/internal/planted"
	"tidemark/journal"
	"tidemark/pipeline"
)

// Transactions. There is no coordinator log: a transaction begins with its first batch or offset in the journal, and ends with one frame that has the control batches of all its partitions and the offsets that it commits (catalog.Txns). The write
// stage lets nothing pass that is not of the producer's newest epoch, so what a handler here decided on what was applied is refused if something else was written meanwhile, and decided again.

// TxnConfig is what transactions are told.
type TxnConfig struct {
	MaxTimeout time.Duration // that a producer may ask for
	Expiry     time.Duration // a transactional id without a transaction is forgotten so long after it was last heard of
}

// maxProducerEpoch is the last epoch of a producer id. Behind it a new id begins at 0.
const maxProducerEpoch = math.MaxInt16 - 1

// txnTries bounds how often a decision is made again.
const txnTries = 20

// fencedCode is PRODUCER_FENCED for versions that know it, INVALID_PRODUCER_EPOCH for those before.
func fencedCode(version, from int16) int16 {
	if version >= from {
		return kerr.ProducerFenced.Code
	}
	return kerr.InvalidProducerEpoch.Code
}

// txnCode is what a transactional producer is told of a command that came to nothing. Whether it was written may be unknown, so it is to try again.
func txnCode(err error, version, fencedFrom int16) int16 {
	switch {
	case errors.Is(err, catalog.ErrFenced):
		return fencedCode(version, fencedFrom)
	case errors.Is(err, catalog.ErrTxnChanged):
		return kerr.ConcurrentTransactions.Code
	case errors.Is(err, catalog.ErrUnknownProducer), errors.Is(err, catalog.ErrTxnBytes):
		return Code(err)
	}
	return groupCode(err)
}

// txnOf finds the transactional id of a producer, at exactly its epoch.
func (b *Broker) txnOf(id string, producerID int64, epoch int16) (x catalog.Txn, parts []*catalog.Partition, err error) {
	x, parts, ok := b.p.Txns().Get(id)
	switch {
	case !ok || x.ProducerID != producerID:
		return x, nil, catalog.ErrUnknownProducer
	case x.Epoch != epoch:
		return x, nil, catalog.ErrFenced
	}
	return x, parts, nil
}

// next is the producer id and epoch that follow x's.
func (b *Broker) next(ctx context.Context, c *Client, x catalog.Txn) (id int64, epoch int16, err error) {
	if x.Epoch < maxProducerEpoch {
		return x.ProducerID, x.Epoch + 1, nil
	}
	id, err = b.nextProducerID(ctx, c)
	return id, 0, err
}

// endTxn ends a transaction as it was found, and gives its producer the id and epoch with which it goes on. ErrTxnChanged: it was not so any more.
// previous is the epoch that the producer itself has, if its epoch is being raised; −1 otherwise.
func (b *Broker) endTxn(ctx context.Context, c *Client, x catalog.Txn, parts []*catalog.Partition, commit bool, newID int64, newEpoch, previous int16) error {
	now := time.Now().UnixMilli()
	cmd := &catalog.EndTxn{ProducerID: x.ProducerID, Epoch: x.Epoch, NewProducerID: newID, NewEpoch: newEpoch, Commit: commit, AtMs: now, Partitions: []uint32{}, Previous: previous}
	var ends []pipeline.Record
	for _, p := range parts {
		cmd.Partitions = append(cmd.Partitions, p.ID)
		b := batch.Control(x.ProducerID, x.Epoch, commit, now)
		ends = append(ends, pipeline.Record{Kind: journal.RecordBatch, Partition: p, Payload: b, Info: batch.Head(b)})
	}
	if planted.Is(planted.MarkerMissing) && len(ends) > 1 {
		ends = ends[:len(ends)-1]
	}
	labels := &pipeline.Labels{ClientID: c.ID, Turn: c.Turn}
	err := b.p.SubmitCommand(catalog.Command{EndTxn: cmd}, labels, b.cfg.CommandTimeout, ends...).Wait(ctx).Err
	if errors.Is(err, catalog.ErrFenced) || errors.Is(err, catalog.ErrUnknownProducer) {
		return catalog.ErrTxnChanged // it was this epoch's when it was looked at: somebody, perhaps the same client, has ended it meanwhile
	}
	return err
}

// settle calls decide, which looks at what is applied and acts on it, until what it saw was still so when it was written.
func (b *Broker) settle(decide func() error) error {
	var err error
	for range txnTries {
		b.p.CatchUpWritten() // a batch may have been answered at a level that is less than applied
		if err = decide(); !errors.Is(err, catalog.ErrTxnChanged) {
			return err
		}
	}
	return err
}

// Look-outs for transactions that take too long, and for transactional ids that nobody uses.
const (
	txnLook    = time.Second
	expireLook = time.Hour
)

// EndLateTransactions aborts, until ctx ends, transactions that take longer than their producer said, and forgets transactional ids that nobody used for long.
func (b *Broker) EndLateTransactions(ctx context.Context) {
	late, old := time.NewTicker(txnLook), time.NewTicker(expireLook)
	defer late.Stop()
	defer old.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-late.C:
			if !b.p.Txns().Open() {
				continue
			}
			for _, x := range b.p.Txns().All() {
				if now := time.Now().UnixMilli(); x.BeganMs > 0 && now-x.BeganMs > int64(x.TimeoutMs) {
					b.abortLate(ctx, x)
				}
			}
		case <-old.C:
			before := time.Now().Add(-b.cfg.Txn.Expiry).UnixMilli()
			for _, x := range b.p.Txns().All() {
				if x.BeganMs == 0 && x.LastMs < before {
					b.command(ctx, &Client{}, catalog.Command{ForgetTxn: &catalog.ForgetTxn{ID: x.ID, BeforeMs: before}}, 0)
				}
			}
		}
	}
}

// abortLate aborts a transaction, if it is still the one that was seen, and fences its producer.
func (b *Broker) abortLate(ctx context.Context, seen catalog.Txn) {
	c := &Client{}
	_ = b.settle(func() error { // if it cannot be done now, it is looked at again
		x, parts, ok := b.p.Txns().Get(seen.ID)
		if !ok || x.BeganMs != seen.BeganMs || x.Epoch != seen.Epoch || x.ProducerID != seen.ProducerID {
			return nil
		}
		id, epoch, err := b.next(ctx, c, x)
		if err != nil {
			return err
		}
		return b.endTxn(ctx, c, x, parts, false, id, epoch, -1)
	})
}
