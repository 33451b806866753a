package main

import (
	"errors"
	"fmt"

	"tidemark/catalog"
	"tidemark/journal"
)

// JournalRepairCmd is `tidemark journal repair`.
type JournalRepairCmd struct {
	Dir string `arg:"" help:"Data directory." type:"path"`
	Yes bool   `help:"Do it. Without this it says what would be lost, and changes nothing."`
}

// Help is kong's detailed help.
func (JournalRepairCmd) Help() string {
	return `For a node that refuses to start because acknowledged bytes are damaged, and that has no peer to copy from. It puts a gap over what is
damaged, so that everything before and behind it is kept at its place; partitions keep their offsets, with a hole where records were lost. Nothing within a
damaged frame is saved. It says what is lost, and does nothing without --yes. Keep a copy of the data directory first.

A segment file that is missing or cut short, and damage to the files meta, mark and catalog.snapshot, cannot be repaired.

    tidemark journal verify ./data
    tidemark journal repair ./data
    tidemark journal repair ./data --yes`
}

// Run repairs, or says what it would do.
func (c *JournalRepairCmd) Run(e *env) error {
	o, err := openOffline(c.Dir)
	if err != nil {
		return err
	}
	defer o.lock.Close()
	cat, err := catalog.Load(o.fsys, c.Dir)
	if err != nil {
		return exitWith(exitDamaged, err)
	}
	losses, err := journal.Repair(o.fsys, o.dir, o.meta, cat.Offset(), c.Yes)
	for _, l := range losses {
		frames := "an unknown number of"
		if l.Frames >= 0 {
			frames = fmt.Sprint(l.Frames)
		}
		fmt.Fprintf(e.stdout, "lost: %d bytes, from offset %d to %d, %s frames: %s\n", l.To-l.From, l.From, l.To, frames, l.Cause)
	}
	switch {
	case errors.As(err, new(*journal.CorruptError)):
		return exitWith(exitDamaged, fmt.Errorf("it cannot be repaired: %w", err))
	case err != nil:
		return exitWith(exitDataDir, err)
	case len(losses) == 0:
		fmt.Fprintln(e.stdout, "nothing to repair")
	case !c.Yes:
		return exitWith(exitDamaged, fmt.Errorf("%d places are damaged; nothing was changed: `tidemark journal repair %s --yes` gives up what is listed", len(losses), c.Dir))
	default:
		fmt.Fprintf(e.stdout, "repaired %d places; the next start makes the index files anew\n", len(losses))
	}
	return nil
}
