package main

import (
	"errors"
	"fmt"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
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

A segment file that is missing or cut short is filled with zeros, and what it held is lost in the same way. A lost mark is made anew from the frames, the
files meta and catalog.snapshot from their copies, and the catalog, while the journal goes back to its beginning, from that.

    tidemark journal verify ./data
    tidemark journal repair ./data
    tidemark journal repair ./data --yes`
}

// Run repairs, or says what it would do.
func (c *JournalRepairCmd) Run(e *env) error {
	fsys := vfs.OS{}
	if names, err := fsys.List(journal.JournalDir(c.Dir, 0)); err != nil || len(names) == 0 {
		return exitWith(exitDataDir, fmt.Errorf("%s is no data directory: it has no journal", c.Dir))
	}
	lock, err := lockOffline(fsys, c.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	r, err := pipeline.Repair(fsys, c.Dir, c.Yes)
	for _, m := range r.Mended {
		fmt.Fprintf(e.stdout, "mended: %s\n", m)
	}
	for _, l := range r.Losses {
		frames := "an unknown number of"
		if l.Frames >= 0 {
			frames = fmt.Sprint(l.Frames)
		}
		fmt.Fprintf(e.stdout, "lost: %d bytes, from offset %d to %d, %s frames: %s\n", l.To-l.From, l.From, l.To, frames, l.Cause)
	}
	places := len(r.Mended) + len(r.Losses)
	switch {
	case errors.As(err, new(*journal.CorruptError)):
		return exitWith(exitDamaged, fmt.Errorf("it cannot be repaired: %w", err))
	case err != nil:
		return exitWith(exitDataDir, err)
	case places == 0:
		fmt.Fprintln(e.stdout, "nothing to repair")
	case !c.Yes:
		return exitWith(exitDamaged, fmt.Errorf("%d places are damaged; nothing was changed: `tidemark journal repair %s --yes` does what is listed", places, c.Dir))
	default:
		fmt.Fprintf(e.stdout, "repaired %d places; the next start makes the index files anew\n", places)
	}
	return nil
}
