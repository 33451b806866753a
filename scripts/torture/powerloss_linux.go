package main

import (
	"flag"
	"fmt"
	"strings"
	"sync/atomic"

	"tidemark/scripts/node"
)

// powerLoss is kill9 with the power: the data lies on a file system of its own, which forgets what was not synced. In every third round the power goes again right after the recovery, before anything new is written. It needs
// root, losetup and mkfs for the file systems.
func powerLoss(f *flag.FlagSet) func(*run) error {
	rounds := f.Int("rounds", 0, "rounds that count, on each file system; default 50, long 2,500")
	kinds := f.String("fs", "ext4,xfs", "file systems")
	return func(r *run) error {
		pick(r, rounds, 50, 2500)
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		for _, kind := range strings.Split(*kinds, ",") {
			if err = r.powerLossOn(kind, binary, *rounds); err != nil {
				err = fmt.Errorf("%s: %w", kind, err)
				break
			}
			fmt.Printf("%s: %d rounds\n", kind, *rounds)
		}
		return err
	}
}

func (r *run) powerLossOn(kind, binary string, rounds int) error {
	disk, err := newLoopDisk(r.dir, kind, 1<<30)
	if err != nil {
		return err
	}
	r.atEnd(disk.close)
	defer disk.close()
	dark := new(atomic.Bool)
	c := &crashRounds{run: r, binary: binary, dir: disk.mount, rounds: rounds, dark: dark,
		strike: func(n *node.Node) error {
			err := disk.powerOff(dark)
			n.Kill()
			return err
		},
		revive: disk.powerOn,
		again:  func(round int) bool { return round%3 == 0 },
	}
	return c.do()
}
