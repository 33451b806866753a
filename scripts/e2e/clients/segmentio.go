package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/segmentio/kafka-go"
)

// segmentio is segmentio/kafka-go. It has no idempotent producer.
type segmentio struct{}

// segmentioChunk is how many records go into one call, which waits for them all.
const segmentioChunk = 10_000

func (segmentio) produce(ctx context.Context, o options, lines iter.Seq[[]byte]) error {
	if o.idempotent {
		return errors.New("it has no idempotent producer")
	}
	writer := &kafka.Writer{
		Addr:         kafka.TCP(o.bootstrap),
		Topic:        o.topic,
		RequiredAcks: kafka.RequireAll,
		BatchSize:    500,
		BatchTimeout: 10 * time.Millisecond, // one second by default, for the last batch of every call
	}
	if o.codec != "default" && o.codec != "none" {
		if err := writer.Compression.UnmarshalText([]byte(o.codec)); err != nil {
			return err
		}
	}
	var chunk []kafka.Message
	for line := range lines {
		chunk = append(chunk, kafka.Message{Value: line})
		if len(chunk) == segmentioChunk {
			if err := writer.WriteMessages(ctx, chunk...); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	if err := writer.WriteMessages(ctx, chunk...); err != nil {
		return err
	}
	return writer.Close()
}

func (segmentio) consume(ctx context.Context, o options, each func(int32, int64, []byte) error) error {
	conn, err := kafka.DialContext(ctx, "tcp", o.bootstrap)
	if err != nil {
		return err
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(o.topic)
	if err != nil {
		return err
	}
	for _, p := range partitions {
		if err := consumeSegmentio(ctx, o, p.ID, each); err != nil {
			return fmt.Errorf("partition %d: %w", p.ID, err)
		}
	}
	return nil
}

func consumeSegmentio(ctx context.Context, o options, partition int, each func(int32, int64, []byte) error) error {
	leader, err := kafka.DialLeader(ctx, "tcp", o.bootstrap, o.topic, partition)
	if err != nil {
		return err
	}
	defer leader.Close()
	end, err := leader.ReadLastOffset()
	if err != nil || end == 0 {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers:   []string{o.bootstrap},
		Topic:     o.topic,
		Partition: partition,
		MaxBytes:  4 << 20,
		MaxWait:   250 * time.Millisecond, // closing waits for the fetch under way: ten seconds by default
	})
	defer reader.Close()
	for {
		m, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		if err := each(int32(m.Partition), m.Offset, m.Value); err != nil {
			return err
		}
		if m.Offset+1 >= end {
			return nil
		}
	}
}
