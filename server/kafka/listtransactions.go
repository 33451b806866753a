package kafka

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var txnStates = []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

// ListTransactions, API key 66, versions 0 to 2: filtered by state, producer id, age (1 and up) and a pattern of the transactional id (2 and up).
func (b *Broker) listTransactions(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.ListTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	for _, s := range req.StateFilters {
		if !slices.Contains(txnStates, s) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, s)
		}
	}
	var pattern *regexp.Regexp
	if req.Version >= 2 && req.TransactionalIDPattern != nil && *req.TransactionalIDPattern != "" {
		var err error
		if pattern, err = regexp.Compile("^(?:" + *req.TransactionalIDPattern + ")$"); err != nil {
			resp.ErrorCode = kerr.InvalidRegularExpression.Code
			return resp
		}
	}
	b.p.CatchUp()
	now := time.Now().UnixMilli()
	for _, x := range b.p.Txns().All() {
		state := txnState(x)
		switch {
		case len(req.StateFilters) > 0 && !slices.Contains(req.StateFilters, state),
			len(req.ProducerIDFilters) > 0 && !slices.Contains(req.ProducerIDFilters, x.ProducerID),
			req.Version >= 1 && req.DurationFilterMillis >= 0 && (x.BeganMs == 0 || now-x.BeganMs <= req.DurationFilterMillis),
			pattern != nil && !pattern.MatchString(x.ID):
			continue
		}
		s := kmsg.NewListTransactionsResponseTransactionState()
		s.TransactionalID, s.ProducerID, s.TransactionState = x.ID, x.ProducerID, state
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	return resp
}
