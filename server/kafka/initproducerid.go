package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// InitProducerId, API key 22, versions 0 to 5. Ids come in blocks that the catalog allots durably before one of them is answered, so none is given out twice, whatever crashes. A client that names an id
// and its epoch gets the next epoch of it, or a new id when there is none left.
func (b *Broker) initProducerID(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil:
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return resp
	case req.Version >= 3 && req.ProducerID >= 0:
		if req.ProducerEpoch >= 0 && req.ProducerEpoch < math.MaxInt16-1 {
			resp.ProducerID, resp.ProducerEpoch = req.ProducerID, req.ProducerEpoch+1
			return resp
		}
	}
	id, err := b.nextProducerID(ctx, c)
	if err != nil {
		resp.ErrorCode = Code(err)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = id, 0
	return resp
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
