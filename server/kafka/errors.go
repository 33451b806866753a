package kafka

import (
	"errors"
	"io/fs"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
)

// codes maps the errors of the packages below to what a Kafka client is told. A test proves that every exported sentinel of theirs that can reach a client is here.
// FACTS on how clients take them: 19 and 56 are retried by all, 7 as well ("possibly stored"); 89 is fatal to librdkafka's producer and is never used.
var codes = []struct {
	err  error
	code *kerr.Error
}{
	{pipeline.ErrBusy, kerr.NotEnoughReplicas},
	{pipeline.ErrExpired, kerr.NotEnoughReplicas},
	{pipeline.ErrTimedOut, kerr.RequestTimedOut},
	{pipeline.ErrNoSpace, kerr.KafkaStorageError},
	{pipeline.ErrFailed, kerr.KafkaStorageError},
	{pipeline.ErrTooLarge, kerr.MessageTooLarge},
	{pipeline.ErrClosed, kerr.NotLeaderForPartition},
	{pipeline.ErrTerm, kerr.NotLeaderForPartition},
	{pipeline.ErrCommand, kerr.InvalidRequest},
	{pipeline.ErrDeleted, kerr.UnknownTopicOrPartition},
	{pipeline.ErrOutOfRange, kerr.OffsetOutOfRange},

	{catalog.ErrOutOfOrder, kerr.OutOfOrderSequenceNumber},
	{catalog.ErrFenced, kerr.InvalidProducerEpoch},
	{catalog.ErrTopicExists, kerr.TopicAlreadyExists},
	{catalog.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{catalog.ErrUnknownPartition, kerr.UnknownTopicOrPartition},
	{catalog.ErrPartitionCount, kerr.InvalidPartitions},
	{catalog.ErrOffsetRange, kerr.OffsetOutOfRange},
	{catalog.ErrTooMany, kerr.PolicyViolation},
	{catalog.ErrUnknownProducer, kerr.InvalidProducerIDMapping},
	{catalog.ErrTxnState, kerr.InvalidTxnState},
	{catalog.ErrTxnChanged, kerr.ConcurrentTransactions},
	{catalog.ErrTxnBytes, kerr.PolicyViolation},
	{catalog.ErrUnknownGroup, kerr.GroupIDNotFound},
	{catalog.ErrOffsetsBytes, kerr.PolicyViolation},

	{qos.ErrPolicy, kerr.InvalidRequest},
	{qos.ErrPolicyTie, kerr.InvalidRequest},
	{qos.ErrPolicies, kerr.PolicyViolation},
	{qos.ErrNoPolicy, kerr.InvalidRequest},
	{qos.ErrPolicyKnown, kerr.InvalidRequest},

	{batch.ErrEmpty, kerr.InvalidRecord},
	{batch.ErrMagic, kerr.InvalidRecord},
	{batch.ErrLength, kerr.InvalidRecord},
	{batch.ErrCount, kerr.InvalidRecord},
	{batch.ErrCRC, kerr.CorruptMessage},
	{batch.ErrCodec, kerr.InvalidRecord},
	{batch.ErrSequence, kerr.InvalidRecord},
	{batch.ErrTimestamp, kerr.InvalidTimestamp},
	{batch.ErrControl, kerr.InvalidRecord},
	{batch.ErrRecord, kerr.CorruptMessage},
	{batch.ErrUnpacked, kerr.CorruptMessage},

	{journal.ErrGone, kerr.OffsetOutOfRange},
}

// Code is the Kafka error code for err: 0 for nil, KAFKA_STORAGE_ERROR for what could not be read, UNKNOWN_SERVER_ERROR for what is not in the table.
func Code(err error) int16 {
	if err == nil {
		return 0
	}
	for i := range codes {
		if errors.Is(err, codes[i].err) {
			return codes[i].code.Code
		}
	}
	if errors.As(err, new(*journal.CorruptError)) || errors.As(err, new(*pipeline.MismatchError)) || errors.As(err, new(*fs.PathError)) {
		return kerr.KafkaStorageError.Code
	}
	return kerr.UnknownServerError.Code
}
