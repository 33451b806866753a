package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// confluent is confluentinc/confluent-kafka-go: librdkafka, much newer than kcat's.
type confluent struct{}

const confluentWait = 30 * time.Second

func (confluent) produce(ctx context.Context, o options, lines iter.Seq[[]byte]) error {
	config := kafka.ConfigMap{
		"bootstrap.servers":             o.bootstrap,
		"enable.idempotence":            o.idempotent,
		"sticky.partitioning.linger.ms": 0, // all partitions take turns, however short the run
	}
	if o.codec != "default" {
		config["compression.type"] = o.codec
	}
	producer, err := kafka.NewProducer(&config)
	if err != nil {
		return err
	}
	defer producer.Close()

	// Deliveries are counted on the side, since the producer's queue is bounded and so is the channel of its reports.
	type outcome struct {
		delivered int
		failure   error
	}
	outcomes := make(chan outcome, 1)
	go func() {
		var got outcome
		fail := func(err error) {
			if got.failure == nil { // fifty thousand of the same do not help
				got.failure = err
			}
		}
		for event := range producer.Events() {
			switch e := event.(type) {
			case *kafka.Message:
				got.delivered++
				fail(e.TopicPartition.Error)
			case kafka.Error:
				fmt.Fprintln(os.Stderr, "confluent:", e)
				if e.IsFatal() {
					fail(e)
				}
			case closing:
				outcomes <- got
				return
			}
		}
	}()
	sent := 0
	for line := range lines {
		for {
			err = producer.Produce(&kafka.Message{
				TopicPartition: kafka.TopicPartition{Topic: &o.topic, Partition: kafka.PartitionAny},
				Value:          line,
			}, nil)
			if !isCode(err, kafka.ErrQueueFull) || ctx.Err() != nil {
				break
			}
			producer.Flush(10)
		}
		if err != nil {
			return err
		}
		sent++
	}
	for producer.Flush(100) > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	producer.Events() <- closing{}
	got := <-outcomes
	if got.failure == nil && got.delivered != sent {
		return fmt.Errorf("%d of %d records were delivered", got.delivered, sent)
	}
	return got.failure
}

// closing is put behind the last delivery report.
type closing struct{}

func (closing) String() string { return "closing" }

func isCode(err error, code kafka.ErrorCode) bool {
	var kerr kafka.Error
	return errors.As(err, &kerr) && kerr.Code() == code
}

func (confluent) consume(ctx context.Context, o options, each func(int32, int64, []byte) error) error {
	consumer, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers":  o.bootstrap,
		"group.id":           "unused", // the library insists; nothing joins it, since partitions are assigned and nothing is committed
		"enable.auto.commit": false,
		"check.crcs":         true,
	})
	if err != nil {
		return err
	}
	defer consumer.Close()
	metadata, err := consumer.GetMetadata(&o.topic, false, int(confluentWait.Milliseconds()))
	if err != nil {
		return err
	}
	ends := make(map[int32]int64)
	var assigned []kafka.TopicPartition
	for _, p := range metadata.Topics[o.topic].Partitions {
		_, end, err := consumer.QueryWatermarkOffsets(o.topic, p.ID, int(confluentWait.Milliseconds()))
		if err != nil {
			return err
		}
		if end > 0 {
			ends[p.ID] = end
			assigned = append(assigned, kafka.TopicPartition{Topic: &o.topic, Partition: p.ID, Offset: kafka.OffsetBeginning})
		}
	}
	if err := consumer.Assign(assigned); err != nil {
		return err
	}
	for len(ends) > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch e := consumer.Poll(100).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return e.TopicPartition.Error
			}
			partition, offset := e.TopicPartition.Partition, int64(e.TopicPartition.Offset)
			if err := each(partition, offset, e.Value); err != nil {
				return err
			}
			if offset+1 >= ends[partition] {
				delete(ends, partition)
			}
		case kafka.Error: // informational unless fatal; the group's coordinator, which the library looks for, is not there
			fmt.Fprintln(os.Stderr, "confluent:", e)
			if e.IsFatal() {
				return e
			}
		}
	}
	return nil
}
