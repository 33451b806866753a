package main

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	recordbatch "tidemark/internal/batch"
)

// settleAfter is how long nothing has come when it is asked whether anything will: longer than a fetch waits.
const settleAfter = fetchWait + fetchWait/2

// fetchWait is how long a fetch waits for records.
const fetchWait = time.Second

// settle moves spans past what a client is never given, so that their ends are reached: records of aborted transactions whose marker lies behind the end, and a gap at a partition's end, where a repair gave records up.
func (c *ConsumeCmd) settle(ctx context.Context, spans map[int32]*span) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for id, s := range spans {
		for s.next < s.end {
			before := s.next
			req := kmsg.NewPtrFetchRequest()
			req.MaxBytes, req.SessionEpoch = 1<<20, -1
			if c.Committed {
				req.IsolationLevel = 1
			}
			topic, part := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset, part.PartitionMaxBytes = id, s.next, req.MaxBytes
			topic.Topic, topic.Partitions = c.Topic, append(topic.Partitions, part)
			req.Topics = append(req.Topics, topic)
			if err := conn.Negotiate(req, fetchedVersionMax); err != nil {
				return err
			}
			resp, err := conn.Request(ctx, req)
			if err != nil {
				return err
			}
			for _, t := range resp.(*kmsg.FetchResponse).Topics {
				for i := range t.Partitions {
					s.pass(&t.Partitions[i], c.Committed)
				}
			}
			if s.next == before {
				break // what comes next is for the client to bring, or to say why not
			}
		}
	}
	return nil
}

// pass moves a span past what an answer has for it that is never handed out.
func (s *span) pass(p *kmsg.FetchResponseTopicPartition, committed bool) {
	end := p.HighWatermark
	if committed {
		end = p.LastStableOffset
	}
	if p.ErrorCode == 0 && len(p.RecordBatches) == 0 && end >= s.end {
		s.next = s.end
	}
	aborted := slices.Clone(p.AbortedTransactions)
	for b := p.RecordBatches; p.ErrorCode == 0; {
		one := nextBatch(b)
		if len(one) < recordbatch.HeaderBytes {
			return
		}
		b = b[len(one):]
		head := recordbatch.Head(one)
		of := slices.IndexFunc(aborted, func(a kmsg.FetchResponseTopicPartitionAbortedTransaction) bool {
			return a.ProducerID == head.ProducerID && a.FirstOffset <= head.Base
		})
		switch {
		case head.Control() && of >= 0: // the producer's next transaction is another one
			aborted = slices.Delete(aborted, of, of+1)
		case head.Control(), head.Transactional() && of >= 0:
		default:
			return
		}
		s.next = max(s.next, head.Base+int64(head.LastOffsetDelta)+1)
	}
}
