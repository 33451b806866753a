package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AddOffsetsToTxn, API key 25, versions 0 to 4. Offsets are part of a transaction when they are committed in it, so nothing is noted: the answer says whether the producer is right.
func (b *Broker) addOffsetsToTxn(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.AddOffsetsToTxnRequest)
	resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	if err := groupIDError(req.Group); err != nil {
		resp.ErrorCode = err.Code
		return resp
	}
	if _, _, err := b.txnOf(req.TransactionalID, req.ProducerID, req.ProducerEpoch); err != nil {
		resp.ErrorCode = txnCode(err, req.Version, 2)
	}
	return resp
}
