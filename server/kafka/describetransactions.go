package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// DescribeTransactions, API key 65, version 0.
func (b *Broker) describeTransactions(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	b.p.CatchUp()
	for _, id := range req.TransactionalIDs {
		s := kmsg.NewDescribeTransactionsResponseTransactionState()
		s.TransactionalID = id
		x, parts, ok := b.p.Txns().Get(id)
		if !ok {
			s.ErrorCode = kerr.TransactionalIDNotFound.Code
			resp.TransactionStates = append(resp.TransactionStates, s)
			continue
		}
		s.State, s.TimeoutMillis, s.StartTimestamp, s.ProducerID, s.ProducerEpoch = txnState(x), x.TimeoutMs, -1, x.ProducerID, x.Epoch
		if x.BeganMs > 0 {
			s.StartTimestamp = x.BeganMs
		}
		for _, p := range parts {
			i := slices.IndexFunc(s.Topics, func(t kmsg.DescribeTransactionsResponseTransactionStateTopic) bool { return t.Topic == p.Topic })
			if i < 0 {
				t := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
				t.Topic = p.Topic
				s.Topics, i = append(s.Topics, t), len(s.Topics)
			}
			s.Topics[i].Partitions = append(s.Topics[i].Partitions, p.Index)
		}
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	return resp
}

// txnState is the state's name as Kafka has it.
func txnState(x catalog.Txn) string {
	switch {
	case x.BeganMs > 0:
		return "Ongoing"
	case x.Outcome == catalog.TxnCommitted:
		return "CompleteCommit"
	case x.Outcome == catalog.TxnAborted:
		return "CompleteAbort"
	}
	return "Empty"
}
