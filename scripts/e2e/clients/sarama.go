package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/IBM/sarama"
)

// saramaClient is IBM/sarama.
type saramaClient struct{}

func (saramaClient) produce(ctx context.Context, o options, lines iter.Seq[[]byte]) error {
	config := sarama.NewConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	if o.codec != "default" {
		if err := config.Producer.Compression.UnmarshalText([]byte(o.codec)); err != nil {
			return err
		}
	}
	if o.idempotent {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1 // sarama insists
	}
	producer, err := sarama.NewAsyncProducer([]string{o.bootstrap}, config)
	if err != nil {
		return err
	}
	sent := 0
	go func() {
		defer producer.AsyncClose()
		for line := range lines {
			select {
			case producer.Input() <- &sarama.ProducerMessage{Topic: o.topic, Value: sarama.ByteEncoder(line)}:
				sent++
			case <-ctx.Done():
				return
			}
		}
	}()

	// Both channels are closed, and sent is final, once everything was answered after AsyncClose.
	var failure error
	delivered := 0
	successes, errs := producer.Successes(), producer.Errors()
	for successes != nil || errs != nil {
		select {
		case _, ok := <-successes:
			if !ok {
				successes = nil
				continue
			}
			delivered++
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			failure = err
		}
	}
	switch {
	case failure != nil:
		return failure
	case ctx.Err() != nil:
		return ctx.Err()
	case delivered != sent:
		return fmt.Errorf("%d of %d records were delivered", delivered, sent)
	}
	return nil
}

func (saramaClient) consume(ctx context.Context, o options, each func(int32, int64, []byte) error) error {
	cl, err := sarama.NewClient([]string{o.bootstrap}, sarama.NewConfig())
	if err != nil {
		return err
	}
	defer cl.Close()
	consumer, err := sarama.NewConsumerFromClient(cl)
	if err != nil {
		return err
	}
	defer consumer.Close()
	partitions, err := cl.Partitions(o.topic)
	if err != nil {
		return err
	}
	for _, partition := range partitions {
		end, err := cl.GetOffset(o.topic, partition, sarama.OffsetNewest)
		if err != nil {
			return err
		}
		if end == 0 {
			continue
		}
		if err := consumeSarama(ctx, consumer, o.topic, partition, end, each); err != nil {
			return err
		}
	}
	return nil
}

func consumeSarama(ctx context.Context, consumer sarama.Consumer, topic string, partition int32, end int64, each func(int32, int64, []byte) error) error {
	pc, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer pc.Close()
	for {
		select {
		case m := <-pc.Messages():
			if err := each(m.Partition, m.Offset, m.Value); err != nil {
				return err
			}
			if m.Offset+1 >= end {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
