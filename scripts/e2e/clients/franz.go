package main

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz is twmb/franz-go. It is idempotent unless told otherwise.
type franz struct{}

var franzCodecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func (franz) produce(ctx context.Context, o options, lines iter.Seq[[]byte]) error {
	opts := []kgo.Opt{kgo.SeedBrokers(o.bootstrap), kgo.DefaultProduceTopic(o.topic)}
	if o.codec != "default" {
		codec, ok := franzCodecs[o.codec]
		if !ok {
			return fmt.Errorf("no codec %q", o.codec)
		}
		opts = append(opts, kgo.ProducerBatchCompression(codec))
	}
	if o.autoCreate {
		opts = append(opts, kgo.AllowAutoTopicCreation())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()

	var once sync.Once
	var failure error
	for line := range lines {
		cl.Produce(ctx, &kgo.Record{Value: line}, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failure = err })
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	return failure
}

func (franz) consume(ctx context.Context, o options, each func(int32, int64, []byte) error) error {
	ends, err := franzEnds(ctx, o)
	if err != nil {
		return err
	}
	starts := make(map[int32]kgo.Offset, len(ends))
	for partition := range ends {
		starts[partition] = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(o.bootstrap),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.topic: starts}),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(ends) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for records := fetches.RecordIter(); !records.Done(); {
			r := records.Next()
			if err := each(r.Partition, r.Offset, r.Value); err != nil {
				return err
			}
			if r.Offset+1 >= ends[r.Partition] {
				delete(ends, r.Partition)
			}
		}
	}
	return nil
}

// franzEnds are the end offsets of the partitions that have records.
func franzEnds(ctx context.Context, o options) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.bootstrap))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, o.topic)
	if err != nil {
		return nil, err
	}
	if err := listed.Error(); err != nil {
		return nil, err
	}
	ends := make(map[int32]int64)
	listed.Each(func(l kadm.ListedOffset) {
		if l.Offset > 0 {
			ends[l.Partition] = l.Offset
		}
	})
	return ends, nil
}
