package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

const (
	// defaultMaxMessageBytes is Kafka's, for brokers that do not say.
	defaultMaxMessageBytes = 1048588
	maxMessageBytesKey     = "max.message.bytes"
)

// newProducer looks up the topic, its limit and a producer id.
func newProducer(ctx context.Context, c *ProduceCmd, acks int16) (*producer, error) {
	p := &producer{
		flags: c.ClientFlags, topic: c.Topic, acks: acks, inFlight: c.InFlight, timeout: c.Timeout,
		brokers: make(map[int32]string),
		links:   make(map[int32]*link),
		events:  make(chan linkEvent, 64),
		done:    make(chan struct{}),
		latency: newLatencyHistogram(3),
	}
	var err error
	if p.control, err = c.dial(ctx); err != nil {
		return nil, err
	}
	if err := p.setUp(ctx, c); err != nil {
		p.control.Close()
		return nil, err
	}
	return p, nil
}

func (p *producer) setUp(ctx context.Context, c *ProduceCmd) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.metadata(ctx); err != nil {
		return err
	}
	compressor, ok := kwire.Compressor(c.Compression)
	if !ok {
		return usageErrorf("--compression: %q", c.Compression)
	}
	limit, err := topicLimit(ctx, p.control, p.topic)
	if err != nil {
		return topicError(p.topic, err)
	}
	p.batcher = &batcher{
		parts: p.parts, separator: []byte(c.KeySeparator), recordsMax: c.BatchRecords, bytesMax: limit, linger: c.Linger,
		compressor: compressor, producer: kwire.NoProducer,
		hasher: kgo.StickyKeyPartitioner(nil).ForTopic(p.topic),
		sticky: rand.IntN(len(p.parts)), // many short runs must not all begin with partition 0
	}
	if c.Partition != nil {
		for _, part := range p.parts {
			if part.id == *c.Partition {
				p.batcher.fixed = part
			}
		}
		if p.batcher.fixed == nil {
			return usageErrorf("--partition: %d, but topic %q has partitions 0 to %d", *c.Partition, p.topic, len(p.parts)-1)
		}
	}
	if !p.oneWay() {
		p.batcher.producer, err = initProducer(ctx, p.control)
	}
	return err
}

// metadata fills in the partitions, and their leaders and addresses as they are now.
func (p *producer) metadata(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &p.topic}}
	kresp, err := p.control.Call(ctx, req)
	if err != nil {
		return err
	}
	resp := kresp.(*kmsg.MetadataResponse)
	if len(resp.Topics) != 1 {
		return fmt.Errorf("%s: %w: metadata of %d topics, asked for one", p.control.Addr(), kwire.ErrFrame, len(resp.Topics))
	}
	topic := resp.Topics[0]
	if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
		return topicError(p.topic, err)
	}
	clear(p.brokers)
	for _, b := range resp.Brokers {
		p.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	if p.parts == nil {
		p.parts = make([]*partition, len(topic.Partitions))
	}
	for _, t := range topic.Partitions {
		if t.Partition < 0 || int(t.Partition) >= len(p.parts) {
			continue // added since the start; keys stay where they were hashed to
		}
		part := p.parts[t.Partition]
		if part == nil {
			part = &partition{id: t.Partition, leader: -1}
			p.parts[t.Partition] = part
		}
		if part.leader != t.Leader {
			part.leader, part.proven = t.Leader, false
		}
	}
	for i, part := range p.parts {
		if part == nil {
			return fmt.Errorf("%s: %w: metadata without partition %d of topic %q", p.control.Addr(), kwire.ErrFrame, i, p.topic)
		}
	}
	if len(p.parts) == 0 {
		return topicError(p.topic, kerr.LeaderNotAvailable)
	}
	return nil
}

// lookUp asks for the leaders again. Failing is no news while the deadline of a batch runs; a topic that is gone is fatal.
func (p *producer) lookUp(now time.Time) {
	p.staleNext = now.Add(backoffMin)
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var err error
	if p.control == nil {
		p.control, err = p.flags.dial(ctx)
	}
	if err == nil {
		err = p.metadata(ctx)
	}
	var kafka *kerr.Error
	switch {
	case err == nil:
		p.stale = false
	case errors.As(err, &kafka):
		if !kafka.Retriable || kafka.Code == kerr.UnknownTopicOrPartition.Code {
			p.fatal(err)
		}
	case p.control != nil:
		p.control.Close()
		p.control = nil
	}
}

// topicLimit is the topic's max.message.bytes.
func topicLimit(ctx context.Context, conn *kwire.Conn, topic string) (int, error) {
	if _, _, ok := conn.Versions(kmsg.DescribeConfigs.Int16()); !ok {
		return defaultMaxMessageBytes, nil
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = []kmsg.DescribeConfigsRequestResource{{
		ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic, ConfigNames: []string{maxMessageBytesKey},
	}}
	kresp, err := conn.Call(ctx, req)
	if err != nil {
		return 0, err
	}
	for _, r := range kresp.(*kmsg.DescribeConfigsResponse).Resources {
		// Not being allowed to see the setting must not keep anyone from writing: the broker checks the size too.
		for _, cfg := range r.Configs {
			if cfg.Name != maxMessageBytesKey || cfg.Value == nil {
				continue
			}
			if n, err := strconv.Atoi(*cfg.Value); err == nil && n > kwire.BatchHeaderBytes {
				return n, nil
			}
		}
	}
	return defaultMaxMessageBytes, nil
}

// initProducer gets a producer id, trying again while the broker is not ready.
func initProducer(ctx context.Context, conn *kwire.Conn) (kwire.Producer, error) {
	for backoff := backoffMin; ; backoff = min(2*backoff, backoffMax) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionTimeoutMillis = int32(time.Minute.Milliseconds())
		if err := conn.Negotiate(req, initProducerIDMax); err != nil {
			return kwire.Producer{}, err
		}
		kresp, err := conn.Request(ctx, req)
		if err != nil {
			return kwire.Producer{}, err
		}
		resp := kresp.(*kmsg.InitProducerIDResponse)
		if resp.ErrorCode == 0 {
			return kwire.Producer{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}, nil
		}
		err = fmt.Errorf("producer id: %w", kerr.ErrorForCode(resp.ErrorCode))
		if !kerr.IsRetriable(kerr.ErrorForCode(resp.ErrorCode)) {
			return kwire.Producer{}, err
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return kwire.Producer{}, err
		}
	}
}
