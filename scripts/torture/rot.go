package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
)

// rot damages one place of a data directory, a flipped bit, a file cut short or taken away, and starts the server on it. Each time it must do one of three things: refuse and name the place; serve all that was acknowledged, since the
// damage hit bytes that nobody reads or that are made anew; or refuse the reads of what is damaged, and have verify find it. It never serves a wrong byte, and after a clean stop it never cuts.
func rot(f *flag.FlagSet) func(*run) error {
	damages := f.Int("damages", 0, "places damaged; default 6,000, long 200,000")
	return func(r *run) error {
		pick(r, damages, 6000, 200_000)
		const perHistory = 100
		for n := 0; n < *damages && r.failures() <= maxSaid; n += perHistory {
			h, err := newHistory(r.rng(uint64(n)))
			if err != nil {
				r.fail("history %d: %v", n/perHistory, err)
				continue
			}
			rng := r.rng(1<<32 + uint64(n))
			for range perHistory {
				place := ""
				err := guard(func() (err error) { place, err = r.rotOne(h, rng); return err })
				r.check(err, "history %d (clean stop: %v), %s", n/perHistory, h.clean, place)
			}
		}
		return nil
	}
}

// rebuildWithin is how long a damaged index file may stay so while its reads are refused.
const rebuildWithin = 5 * time.Second

// history is a data directory and what its clients were told.
type history struct {
	disk  *vfs.Mem
	told  moment
	clean bool // it was stopped; else the power failed under load
	meta  journal.JournalMeta
}

func newHistory(rng *rand.Rand) (*history, error) {
	h := &history{disk: vfs.NewMem(), clean: rng.IntN(2) == 0}
	t := &told{}
	for i := range t.parts {
		t.parts[i].producer.ID = int64(i - 1)
	}
	opts := torturedOptions(h.disk)
	opts.RetentionBytes = 0
	p, err := pipeline.Open(opts)
	if err != nil {
		return nil, err
	}
	h.meta = p.Meta().Journals[0]
	if err := t.work(p, rng, 150, nil, nil); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if !h.clean {
		h.told = t.now()
		h.disk = h.disk.Crash(rng)
		return h, p.Close()
	}
	err = p.Close()
	h.told = t.now()
	return h, err
}

// rotOne damages a copy of a history.
func (r *run) rotOne(h *history, rng *rand.Rand) (place string, err error) {
	disk := h.disk.CrashKeepAll()
	name, err := pickFile(disk, rng)
	if err != nil {
		return "", err
	}
	if place, err = damage(disk, name, rng); err != nil {
		return place, err
	}
	opts := torturedOptions(disk)
	opts.RetentionBytes = 0
	p, err := pipeline.Open(opts)
	if err != nil {
		r.count("refused to start", 1)
		var corrupt *journal.CorruptError
		if errors.As(err, &corrupt) && corrupt.File == "" && corrupt.Segment < 0 || corrupt == nil && !strings.Contains(err.Error(), path.Base(name)) {
			return place, fmt.Errorf("it does not say where: %w", err)
		}
		return place, r.repairOne(h, disk)
	}
	recovered := p.Recovered()
	loud, lost, err := h.told.verifyDamaged(p)
	for end := time.Now().Add(rebuildWithin); loud > 0 && strings.HasSuffix(name, ".index") && err == nil && time.Now().Before(end); {
		loud, lost, err = h.told.verifyDamaged(p) // the file is being made anew
	}
	cerr := p.Close()
	switch {
	case err != nil:
		return place, err
	case cerr != nil && loud == 0:
		return place, fmt.Errorf("close: %w", cerr)
	case h.clean && recovered.Torn:
		return place, fmt.Errorf("after a clean stop %d bytes were cut at %d", recovered.TornBytes, recovered.End)
	case lost > 0 && h.clean:
		return place, fmt.Errorf("%d acknowledged records are gone without a word", lost)
	case lost > 0 && !recovered.Torn && recovered.End == 0:
		return place, fmt.Errorf("%d acknowledged records are gone, and nothing was cut", lost)
	case lost > 0: // the last group before the last mark looks like a torn tail: docs/reliability.md
		r.count("cut above what is proven", 1)
		return place, nil
	case loud > 0:
		r.count("reads refused", 1)
		v, err := journal.Verify(disk, journal.JournalDir("data", 0), h.meta, nil, nil)
		if err == nil && len(v.Findings) == 0 {
			err = errors.New("reads are refused, and verify finds nothing")
		}
		return place, err
	}
	r.count("harmless or made anew", 1)
	return place, nil
}

// repairOne has what was refused repaired: then it starts, and what is lost was said to be.
func (r *run) repairOne(h *history, disk *vfs.Mem) error {
	repaired, err := pipeline.Repair(disk, "data", true)
	if err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	if repaired.Nothing() {
		return errors.New("it does not start, and repair finds nothing to do")
	}
	opts := torturedOptions(disk)
	opts.RetentionBytes = 0
	p, err := pipeline.Open(opts)
	if err != nil {
		return fmt.Errorf("after a repair it does not start: %w", err)
	}
	loud, lost, err := h.told.verifyDamaged(p)
	if err == nil && loud > 0 {
		err = fmt.Errorf("after a repair %d reads are refused", loud)
	}
	said := slices.ContainsFunc(repaired.Losses, func(l journal.Loss) bool { return l.Frames != 0 })
	if err == nil && lost > 0 && len(repaired.Losses) == 0 && !h.clean {
		r.count("cut above what is proven", 1) // as in rotOne
	} else if err == nil && lost > 0 && !said {
		err = fmt.Errorf("after a repair that named no loss %d records are gone", lost)
	}
	r.count("repaired", 1)
	r.count("records that repairs gave up", int64(lost))
	return errors.Join(err, p.Close())
}

// pickFile draws a file, segments more often.
func pickFile(disk *vfs.Mem, rng *rand.Rand) (string, error) {
	var files []string
	for _, dir := range []string{"data", "data/journal/0"} {
		names, err := disk.List(dir)
		if err != nil {
			return "", err
		}
		for _, name := range names {
			full := dir + "/" + name
			if name == "journal" || name == "lock" {
				continue
			}
			files = append(files, full)
			if strings.HasSuffix(name, ".journal") {
				files = append(files, full, full, full)
			}
		}
	}
	return files[rng.IntN(len(files))], nil
}

// damage flips a bit, or in one of eight cases cuts the file short, or in one of 32 takes it away.
func damage(disk *vfs.Mem, name string, rng *rand.Rand) (string, error) {
	if rng.IntN(32) == 0 {
		return name + " taken away", errors.Join(disk.Remove(name), disk.SyncDir(path.Dir(name)))
	}
	f, err := disk.Open(name, vfs.ReadWrite)
	if err != nil {
		return name, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size == 0 {
		return name, err
	}
	at := rng.Int64N(size)
	if rng.IntN(8) == 0 {
		return fmt.Sprintf("%s cut at %d of %d", name, at, size), errors.Join(f.Truncate(at), f.Sync())
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return name, err
	}
	bit := rng.IntN(8)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], at)
	return fmt.Sprintf("%s bit %d of byte %d flipped", name, bit, at), errors.Join(err, f.Sync())
}

// verifyDamaged reads every acknowledged batch by itself: how many reads are refused, and how many records are gone. A wrong byte is an error.
func (m *moment) verifyDamaged(p *pipeline.Pipeline) (loud, lost int, err error) {
	p.CatchUp()
	topic := p.View().Topics[toldTopic]
	for i := range m.parts {
		for _, a := range m.parts[i].acked {
			if topic == nil {
				lost += a.count
				continue
			}
			b, err := p.Read(topic.Partitions[i], journal.LogicalOffset(a.base), topic.Partitions[i].HighWatermark(), 1, true, nil)
			if errors.Is(err, pipeline.ErrOutOfRange) || err == nil && len(b) == 0 {
				lost += a.count
				continue
			}
			if err != nil {
				loud++
				continue
			}
			if err := sameBatch(b, a); errors.Is(err, errHole) {
				lost += a.count
			} else if err != nil {
				return loud, lost, fmt.Errorf("partition %d at %d: %w", i, a.base, err)
			}
		}
	}
	return loud, lost, nil
}
