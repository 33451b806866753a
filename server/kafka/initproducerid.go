package kafka

import (
	"context"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// InitProducerId, API key 22, versions 0 to 5. Ids come in blocks that the catalog allots durably before one of them is answered, so none is given out twice, whatever crashes. A client that names an id
// and its epoch gets the next epoch of it, or a new id when there is none left. With a transactional id, an open transaction of it is aborted first, and whoever had the id before is fenced.
func (b *Broker) initProducerID(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if req.Version < 3 {
		req.ProducerID, req.ProducerEpoch = -1, -1
	}
	switch {
	case req.TransactionalID != nil:
		b.initTransactional(ctx, c, req, resp)
		return resp
	case req.ProducerID >= 0 && req.ProducerEpoch >= 0 && req.ProducerEpoch < math.MaxInt16-1:
		resp.ProducerID, resp.ProducerEpoch = req.ProducerID, req.ProducerEpoch+1
		return resp
	}
	id, err := b.nextProducerID(ctx, c)
	if err != nil {
		resp.ErrorCode = Code(err)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = id, 0
	return resp
}

func (b *Broker) initTransactional(ctx context.Context, c *Client, req *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) {
	timeout := millis(req.TransactionTimeoutMillis)
	switch {
	case *req.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
		return
	case timeout <= 0 || timeout > b.cfg.Txn.MaxTimeout:
		resp.ErrorCode = kerr.InvalidTransactionTimeout.Code
		return
	}
	err := b.settle(func() (err error) {
		resp.ProducerID, resp.ProducerEpoch, err = b.initTxn(ctx, c, req)
		return err
	})
	if err != nil {
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = txnCode(err, req.Version, 4), -1, -1
	}
}

// initTxn gives a transactional id its next epoch, as things are.
func (b *Broker) initTxn(ctx context.Context, c *Client, req *kmsg.InitProducerIDRequest) (int64, int16, error) {
	cmd := &catalog.InitTxn{ID: *req.TransactionalID, TimeoutMs: req.TransactionTimeoutMillis, AtMs: time.Now().UnixMilli(), OldProducerID: -1, OldEpoch: -1, Previous: -1}
	x, parts, known := b.p.Txns().Get(cmd.ID)
	if !known {
		var err error
		if cmd.ProducerID, err = b.nextProducerID(ctx, c); err != nil {
			return 0, 0, err
		}
	} else {
		claims := req.ProducerID >= 0 && req.ProducerEpoch >= 0
		switch {
		case claims && x.ProducerID == req.ProducerID && x.Previous == req.ProducerEpoch && x.BeganMs == 0:
			return x.ProducerID, x.Epoch, nil // its answer was lost, and nobody has had it since
		case claims && (x.ProducerID != req.ProducerID || x.Epoch != req.ProducerEpoch):
			return 0, 0, catalog.ErrFenced
		}
		id, epoch, err := b.next(ctx, c, x)
		if err != nil {
			return 0, 0, err
		}
		if x.BeganMs != 0 { // whoever had it is fenced with that already
			previous := int16(-1)
			if claims {
				previous = req.ProducerEpoch
			}
			if err := b.endTxn(ctx, c, x, parts, false, id, epoch, previous); err != nil {
				return 0, 0, err
			}
			x.ProducerID, x.Epoch = id, epoch
			if id, epoch, err = b.next(ctx, c, x); err != nil {
				return 0, 0, err
			}
		}
		cmd.OldProducerID, cmd.OldEpoch, cmd.ProducerID, cmd.Epoch = x.ProducerID, x.Epoch, id, epoch
		if claims {
			cmd.Previous = req.ProducerEpoch
		}
	}
	return cmd.ProducerID, cmd.Epoch, b.command(ctx, c, catalog.Command{InitTxn: cmd}, 0).Err
}

func (b *Broker) nextProducerID(ctx context.Context, c *Client) (int64, error) {
	b.ids.mu.Lock()
	defer b.ids.mu.Unlock()
	if b.ids.next == b.ids.last {
		result := b.command(ctx, c, catalog.Command{AllotProducerIDs: &catalog.AllotProducerIDs{Count: producerIDBlock}}, 0)
		if result.Err != nil {
			return 0, result.Err
		}
		b.ids.next, b.ids.last = result.FirstProducerID, result.FirstProducerID+producerIDBlock
	}
	id := b.ids.next
	b.ids.next++
	return id, nil
}
