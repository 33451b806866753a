package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/internal/kwire"
	"tidemark/qos"
	"tidemark/scripts/node"
)

// kill9 kills the server with SIGKILL while clients write at PERSISTENCE and ALL, idempotent and not, starts it again on the same data, and reads everything back. A round in which no acknowledgement was
// in flight when it struck is run again and does not count. The page cache outlives the process, so this proves order and bookkeeping, not the disk.
func kill9(args []string) (passed, failed int, err error) {
	flags := flag.NewFlagSet("kill9", flag.ExitOnError)
	rounds := flags.Int("rounds", 10, "rounds that count")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "of when it strikes and what is written")
	_ = flags.Parse(args) // it ends the process itself
	fmt.Printf("kill9: seed %d, %d rounds\n", *seed, *rounds)

	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-kill9-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	binary, err := node.Build(dir)
	if err != nil {
		return 0, 0, err
	}
	data := filepath.Join(dir, "data")
	rng := rand.New(rand.NewPCG(*seed, 9))
	var clients []*client
	for _, level := range []qos.Level{qos.Persistence, qos.All} {
		for _, idempotent := range []bool{false, true} {
			clients = append(clients, &client{
				name: fmt.Sprintf("%s-idempotent-%v", level, idempotent), partition: int32(len(clients)), acks: qos.AcksBase + int16(level),
				idempotent: idempotent, producer: kwire.NoProducer, rng: rand.New(rand.NewPCG(*seed, uint64(len(clients)))),
			})
		}
	}
	small := []string{"journal.segment.bytes=16MiB", "journal.cache.bytes=16MiB"}
	n, err := node.Start(binary, data, small...)
	if err != nil {
		return 0, 0, err
	}
	if err := createTopic(n.Addr, int32(len(clients))); err != nil {
		n.Kill()
		return 0, 0, err
	}
	for tries := 0; passed < *rounds && tries < 3**rounds; tries++ {
		inFlight, stop := 0, make(chan struct{})
		err := all(clients, n.Addr, stop, func() {
			time.Sleep(time.Duration(20+rng.IntN(400)) * time.Millisecond) // when to strike: the test's own randomness, not a wait for something
			for _, c := range clients {
				inFlight += int(c.inFlight.Load())
			}
			n.Kill()
			close(stop)
		})
		for _, c := range clients {
			c.inFlight.Store(0)
		}
		if err != nil {
			return passed, failed, err
		}
		if n, err = node.Start(binary, data, small...); err != nil {
			return passed, failed, err
		}
		acked, found := 0, 0
		for _, c := range clients {
			got, err := c.check(n.Addr)
			if err != nil {
				n.Kill()
				return passed, failed, err
			}
			acked, found = acked+len(c.acked), found+got
		}
		if inFlight == 0 {
			continue
		}
		passed++
		fmt.Printf("round %d: requests in flight %d, records acknowledged so far %d, found %d, lost 0, twice 0\n", passed, inFlight, acked, found)
	}
	if code := n.Stop(); code != 0 {
		return passed, failed, fmt.Errorf("the server stopped with exit code %d", code)
	}
	if passed < *rounds {
		failed++
	}
	return passed, failed, nil
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
