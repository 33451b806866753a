package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// EndTxn, API key 26, versions 0 to 5. It is answered when the end is durable at ALL. From version 5 on the producer goes on with another epoch (KIP-890), so that nothing of this transaction that is still on its way can come into the next; one that asks again since the answer
// was lost is told what it was told.
func (b *Broker) endTransaction(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.EndTxnRequest)
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	err := b.settle(func() error {
		x, parts, err := b.txnOf(req.TransactionalID, req.ProducerID, req.ProducerEpoch)
		if req.Version >= 5 && err != nil && x.ID != "" && x.BeganMs == 0 && x.Outcome == outcome(req.Commit) && followed(req, x) {
			resp.ProducerID, resp.ProducerEpoch = x.ProducerID, x.Epoch
			return nil
		}
		if err != nil {
			return err
		}
		id, epoch := x.ProducerID, x.Epoch
		if req.Version >= 5 {
			if id, epoch, err = b.next(ctx, c, x); err != nil {
				return err
			}
		} else if x.BeganMs == 0 && x.Outcome != catalog.TxnNone && x.Outcome != outcome(req.Commit) {
			return catalog.ErrTxnState // it has ended the other way
		} else if x.BeganMs == 0 {
			return nil // it has ended so, or nothing was written
		}
		if err := b.endTxn(ctx, c, x, parts, req.Commit, id, epoch, -1); err != nil {
			return err
		}
		resp.ProducerID, resp.ProducerEpoch = id, epoch
		return nil
	})
	if err != nil {
		resp.ErrorCode = txnCode(err, req.Version, 2)
	}
	return resp
}

func outcome(commit bool) catalog.TxnOutcome {
	if commit {
		return catalog.TxnCommitted
	}
	return catalog.TxnAborted
}

// followed says whether x's producer id and epoch are those that follow the request's.
func followed(req *kmsg.EndTxnRequest, x catalog.Txn) bool {
	if req.ProducerEpoch == maxProducerEpoch {
		return x.Epoch == 0 && x.ProducerID > req.ProducerID
	}
	return x.ProducerID == req.ProducerID && x.Epoch == req.ProducerEpoch+1
}
