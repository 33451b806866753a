package main

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/scripts/node"
)

// kill9 kills the server with SIGKILL while clients write at all levels, idempotent and not, starts it again on the same data, and reads everything back. A round in which no acknowledgement was
// in flight when it struck is run again and does not count. The page cache outlives the process, so this proves order and bookkeeping, not the disk.
func kill9(args []string) (passed, failed int, err error) {
	var seed uint64
	var long bool
	flags := newFlags("kill9", &seed, &long)
	rounds := flags.Int("rounds", 0, "rounds that count; default 100, long 5,000")
	_ = flags.Parse(args) // it ends the process itself
	if *rounds == 0 {
		if *rounds = 100; long {
			*rounds = 5000
		}
	}
	r, err := begin("kill9", seed, long)
	if err != nil {
		return 0, 0, err
	}
	defer r.end()
	binary, err := node.Build(r.dir)
	if err != nil {
		return 0, 0, err
	}
	c := &crashRounds{run: r, binary: binary, dir: r.dir, rounds: *rounds, strike: func(n *node.Node) error { n.Kill(); return nil }}
	err = c.do()
	passed, failed = r.report()
	return passed, failed, err
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
