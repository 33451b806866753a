package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	segkafka "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Timeouts of members, so that one that was killed is noticed soon.
const (
	memberSession   = 3 * time.Second
	memberHeartbeat = 500 * time.Millisecond
	memberCommit    = 200 * time.Millisecond
)

// member reads as a member of a group until ctx ends, and then leaves it with everything committed that each was called with; nothing else is ever committed.
type member func(ctx context.Context, o options, group string, each func(partition int32, offset int64, value []byte) error) error

// Those with 848 are of the protocol of KIP-848, in which the broker assigns.
var members = map[string]member{"franz": franzMember(), "franz-848": franzMember(kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())), "confluent": confluentMember("classic"), "confluent-848": confluentMember("consumer"), "sarama": saramaMember, "segmentio": segmentioMember}

// printRecord prints "PARTITION OFFSET VALUE", at once: the process may be killed at any time.
func printRecord(partition int32, offset int64, value []byte) error {
	_, err := fmt.Fprintf(os.Stdout, "%d %d %s\n", partition, offset, value)
	return err
}

func franzMember(more ...kgo.Opt) member {
	return func(ctx context.Context, o options, group string, each func(int32, int64, []byte) error) error {
		return consumeFranz(ctx, append(more, kgo.SeedBrokers(o.bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(o.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.SessionTimeout(memberSession), kgo.HeartbeatInterval(memberHeartbeat), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll()), each)
	}
}

func consumeFranz(ctx context.Context, opts []kgo.Opt, each func(int32, int64, []byte) error) error {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		for records := fetches.RecordIter(); !records.Done(); {
			r := records.Next()
			if err := each(r.Partition, r.Offset, r.Value); err != nil {
				return err
			}
		}
		if err := cl.CommitUncommittedOffsets(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintln(os.Stderr, "franz: commit:", err)
		}
		cl.AllowRebalance()
	}
	return nil
}

func confluentMember(protocol string) member {
	return func(ctx context.Context, o options, group string, each func(int32, int64, []byte) error) error {
		config := kafka.ConfigMap{"bootstrap.servers": o.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.offset.store": false, "auto.commit.interval.ms": int(memberCommit.Milliseconds()), "group.protocol": protocol}
		if protocol == "classic" {
			config["session.timeout.ms"], config["heartbeat.interval.ms"], config["partition.assignment.strategy"] = int(memberSession.Milliseconds()), int(memberHeartbeat.Milliseconds()), "cooperative-sticky"
		}
		return consumeConfluent(ctx, config, o.topic, each)
	}
}

func consumeConfluent(ctx context.Context, config kafka.ConfigMap, topic string, each func(int32, int64, []byte) error) error {
	consumer, err := kafka.NewConsumer(&config)
	if err != nil {
		return err
	}
	if err := consumer.Subscribe(topic, nil); err != nil {
		return err
	}
	for ctx.Err() == nil {
		switch e := consumer.Poll(100).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return e.TopicPartition.Error
			}
			if err := each(e.TopicPartition.Partition, int64(e.TopicPartition.Offset), e.Value); err != nil {
				return err
			}
			if _, err := consumer.StoreMessage(e); err != nil {
				fmt.Fprintln(os.Stderr, "confluent: store:", err)
			}
		case kafka.Error:
			fmt.Fprintln(os.Stderr, "confluent:", e)
			if e.IsFatal() {
				return e
			}
		}
	}
	return consumer.Close()
}

func saramaMember(ctx context.Context, o options, group string, each func(int32, int64, []byte) error) error {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = memberCommit
	config.Consumer.Group.Session.Timeout, config.Consumer.Group.Heartbeat.Interval = memberSession, memberHeartbeat
	cg, err := sarama.NewConsumerGroup([]string{o.bootstrap}, group, config)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := cg.Consume(ctx, []string{o.topic}, saramaHandler{each}); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "sarama:", err)
		}
	}
	return cg.Close()
}

type saramaHandler struct {
	each func(int32, int64, []byte) error
}

func (saramaHandler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h saramaHandler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			if err := h.each(m.Partition, m.Offset, m.Value); err != nil {
				return err
			}
			session.MarkMessage(m, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

func segmentioMember(ctx context.Context, o options, group string, each func(int32, int64, []byte) error) error {
	reader := segkafka.NewReader(segkafka.ReaderConfig{
		Brokers: []string{o.bootstrap}, GroupID: group, Topic: o.topic, StartOffset: segkafka.FirstOffset, MaxBytes: 4 << 20, MaxWait: 250 * time.Millisecond,
		Dialer:         &segkafka.Dialer{ClientID: "segmentio", Timeout: memberSession}, // its own has blanks
		SessionTimeout: memberSession, HeartbeatInterval: memberHeartbeat, RebalanceTimeout: 5 * time.Second, JoinGroupBackoff: 200 * time.Millisecond,
	})
	for {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, context.Canceled) {
				return reader.Close()
			}
			return err
		}
		if err := each(int32(m.Partition), m.Offset, m.Value); err != nil {
			return err
		}
		if err := reader.CommitMessages(context.WithoutCancel(ctx), m); err != nil {
			fmt.Fprintln(os.Stderr, "segmentio: commit:", err)
		}
	}
}
