package main

import (
	"errors"
	"math/rand/v2"
	"time"

	"tidemark/catalog"
	"tidemark/pipeline"
	"tidemark/qos"
)

// work submits batches at all levels, with retries, while a reader looks on. It ends early when enough says so, and at the first refusal, unless refused is there to be told of them.
func (t *told) work(p *pipeline.Pipeline, rng *rand.Rand, batches int, enough func() bool, refused func(error)) error {
	answer := func(r *toldRequest) error {
		<-r.done
		err := r.refused()
		if err != nil && refused != nil {
			refused(err)
			return nil
		}
		return err
	}
	parts, err := t.createTopic(p)
	if err != nil {
		return err
	}
	stop, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		t.watch(p, parts, stop)
	}()
	defer func() { close(stop); <-read }()
	var window []*toldRequest
	levels := []qos.Level{qos.Receive, qos.Persistence, qos.Replication, qos.All}
	for range batches {
		if enough != nil && enough() {
			return nil
		}
		part := rng.IntN(toldPartitions)
		sent := t.fresh(part, 1+rng.IntN(3))
		level := levels[rng.IntN(len(levels))]
		r, err := t.submit(p, parts[part], sent, level)
		if err != nil {
			return err
		}
		window = append(window, r)
		if sent.producer.ID >= 0 && rng.IntN(4) == 0 { // the client did not hear in time, and sends it again
			if r, err = t.submit(p, parts[part], sent, qos.Persistence); err != nil {
				return err
			}
			window = append(window, r)
		}
		for len(window) > rng.IntN(12) {
			if err := answer(window[0]); err != nil {
				return err
			}
			window = window[1:]
		}
	}
	for _, r := range window {
		if err := answer(r); err != nil {
			return err
		}
	}
	return nil
}

// refused is the request's error.
func (r *toldRequest) refused() error { return errors.Join(r.Err, r.Records[0].Err) }

// watch is a reader: it remembers how far it could see.
func (t *told) watch(p *pipeline.Pipeline, parts []*catalog.Partition, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		for i, part := range parts {
			hw := part.HighWatermark()
			t.mu.Lock()
			t.parts[i].seen = max(t.parts[i].seen, hw)
			t.mu.Unlock()
		}
		time.Sleep(20 * time.Microsecond) // a pace, not a wait for something
	}
}
