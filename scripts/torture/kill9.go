package main

import (
	"context"
	"flag"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/scripts/node"
)

// kill9 kills the server with SIGKILL while clients write at all levels, idempotent and not, starts it again on the same data, and reads everything back. A round in which no acknowledgement was
// in flight when it struck is run again and does not count. The page cache outlives the process, so this proves order and bookkeeping, not the disk.
func kill9(f *flag.FlagSet) func(*run) error {
	rounds := f.Int("rounds", 0, "rounds that count; default 100, long 5,000")
	return func(r *run) error {
		pick(r, rounds, 100, 5000)
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		c := &crashRounds{run: r, binary: binary, dir: r.dir, rounds: *rounds, strike: func(n *node.Node) error { n.Kill(); return nil }}
		return c.do()
	}
}

func createTopic(addr string, partitions int32) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic)
	return err
}
