package main

import (
	"fmt"
	"strings"

	"tidemark/scripts/node"
)

// powerLoss is kill9 with the power: the data lies on a file system of its own, which forgets what was not synced. In every third round the power goes again right after the recovery, before anything new is written. It needs
// root, losetup and mkfs for the file systems.
func powerLoss(args []string) (passed, failed int, err error) {
	var seed uint64
	var long bool
	flags := newFlags("powerloss", &seed, &long)
	rounds := flags.Int("rounds", 0, "rounds that count, on each file system; default 50, long 2,500")
	kinds := flags.String("fs", "ext4,xfs", "file systems")
	_ = flags.Parse(args)
	if *rounds == 0 {
		if *rounds = 50; long {
			*rounds = 2500
		}
	}
	r, err := begin("powerloss", seed, long)
	if err != nil {
		return 0, 0, err
	}
	defer r.end()
	binary, err := node.Build(r.dir)
	if err != nil {
		return 0, 0, err
	}
	for _, kind := range strings.Split(*kinds, ",") {
		if err = r.powerLossOn(kind, binary, *rounds); err != nil {
			err = fmt.Errorf("%s: %w", kind, err)
			break
		}
		fmt.Printf("%s: %d rounds\n", kind, *rounds)
	}
	passed, failed = r.report()
	return passed, failed, err
}

func (r *run) powerLossOn(kind, binary string, rounds int) error {
	disk, err := newLoopDisk(r.dir, kind, 1<<30)
	if err != nil {
		return err
	}
	defer disk.close()
	c := &crashRounds{run: r, binary: binary, dir: disk.mount, rounds: rounds,
		strike: func(n *node.Node) error {
			err := disk.powerOff()
			n.Kill()
			return err
		},
		revive: disk.powerOn,
		again:  func(round int) bool { return round%3 == 0 },
	}
	return c.do()
}
