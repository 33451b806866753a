package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"tidemark/internal/kwire"
	"tidemark/qos"
	"tidemark/scripts/node"
)

// crashRounds are rounds of: clients write, something strikes, the server is started again, and everything is read back.
type crashRounds struct {
	run    *run
	binary string
	dir    string // of the data directories
	rounds int

	strike func(*node.Node) error // ends the server, and with it what it had not made durable
	revive func() error           // makes the data directory usable again; nil: it is
	again  func(round int) bool   // strike again right after the start, before anything new is written
	dark   *atomic.Bool           // set by a strike from which on no answer arrives any more; nil: there is none
}

const (
	roundsADirectory = 10 // then a new one is begun, so that reading back does not take ever longer
	triesARound      = 3  // rounds without anything in flight are run again
)

var smallServer = []string{"journal.segment.bytes=16MiB", "journal.cache.bytes=16MiB", "journal.spares=1"}

// crowd is a client for each level that matters: with what may be lost when the process or the power goes.
func (r *run) crowd() []*client {
	kinds := []struct {
		level      qos.Level
		idempotent bool
	}{{qos.OneWay, false}, {qos.Receive, false}, {qos.Replication, false}, {qos.Persistence, false}, {qos.Persistence, true}, {qos.All, false}, {qos.All, true}}
	var clients []*client
	for i, k := range kinds {
		c := &client{
			name: fmt.Sprintf("%s-idempotent-%v", k.level, k.idempotent), partition: int32(i), acks: qos.AcksBase + int16(k.level),
			idempotent: k.idempotent, patient: true, mayLose: k.level.Marks()&qos.Flushed == 0, producer: kwire.NoProducer, rng: r.rng(uint64(i)),
		}
		if k.level == qos.OneWay {
			c.acks = 0
		}
		clients = append(clients, c)
	}
	return clients
}

// do runs all rounds.
func (c *crashRounds) do() error {
	rng := c.run.rng(9)
	done := 0
	for batch := 0; done < c.rounds; batch++ {
		data := filepath.Join(c.dir, fmt.Sprintf("data-%d", batch))
		clients := c.run.crowd()
		for _, cl := range clients {
			cl.dark = c.dark
		}
		n, err := node.Start(c.binary, data, smallServer...)
		if err != nil {
			return err
		}
		if err := createTopic(n.Addr, int32(len(clients))); err != nil {
			n.Kill()
			return err
		}
		for tries, here := 0, 0; here < roundsADirectory && done < c.rounds; tries++ {
			if tries == triesARound*roundsADirectory {
				n.Kill()
				return fmt.Errorf("%d rounds in %d tries: too little was in flight", here, tries)
			}
			inFlight, stop := 0, make(chan struct{})
			var struck error
			err := all(clients, n.Addr, stop, func() {
				time.Sleep(time.Duration(20+rng.IntN(200)) * time.Millisecond) // when to strike: the test's own randomness, not a wait for something
				for _, cl := range clients {
					inFlight += int(cl.inFlight.Load())
				}
				struck = c.strike(n)
				close(stop)
			})
			if err == nil {
				err = struck
			}
			if err != nil {
				n.Kill()
				return err
			}
			if n, err = c.restart(data, c.again != nil && c.again(done)); err != nil {
				return err
			}
			if err := c.readBack(n, clients); err != nil {
				n.Kill()
				return fmt.Errorf("round %d: %w", done+1, err)
			}
			c.run.count("crashes", 1)
			if inFlight == 0 {
				continue
			}
			c.run.count("requests in flight at them", int64(inFlight))
			c.run.pass()
			done, here = done+1, here+1
			if done%50 == 0 {
				fmt.Printf("%s: %d of %d rounds\n", c.run.form, done, c.rounds)
			}
		}
		if code := n.Stop(); code != 0 {
			return fmt.Errorf("the server stopped with exit code %d: %s", code, n.Last())
		}
		if err := os.RemoveAll(data); err != nil {
			return err
		}
	}
	return nil
}

// restart starts the server on what the strike left.
func (c *crashRounds) restart(data string, again bool) (*node.Node, error) {
	for {
		if c.revive != nil {
			if err := c.revive(); err != nil {
				return nil, err
			}
		}
		if c.dark != nil {
			c.dark.Store(false)
		}
		n, err := node.Start(c.binary, data, smallServer...)
		if err != nil || !again {
			return n, err
		}
		again = false
		c.run.count("crashes right after a recovery", 1)
		if err := c.strike(n); err != nil {
			n.Kill()
			return nil, err
		}
	}
}

func (c *crashRounds) readBack(n *node.Node, clients []*client) error {
	for _, cl := range clients {
		_, lost, err := cl.check(n.Addr)
		if err != nil {
			return err
		}
		if lost > 0 {
			c.run.count(fmt.Sprintf("lost at %s, which may be", qos.Level(max(cl.acks-qos.AcksBase, 0))), int64(lost))
		}
		c.run.count("records read back", int64(len(cl.acked)))
	}
	return nil
}
