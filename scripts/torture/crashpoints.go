package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
)

// crashpoints runs a pipeline on a file system in memory and takes a crash around every step that it makes on the disk: a copy of what a power loss (or the death of the process alone) at that moment could leave, and of
// what clients had been told. Each copy is recovered and compared. Some are crashed again in the middle of their recovery, or right after it, or after a little more work.
//
// The steps come from several goroutines, so one seed gives the same choices but not the same interleaving.
func crashpoints(f *flag.FlagSet) func(*run) error {
	points := f.Int64("points", 0, "crash points; default 50,000, long 2,000,000")
	return func(r *run) error {
		pick(r, points, 50_000, 2_000_000)
		debug.SetGCPercent(800) // a run is a short life of many small disks
		c := &crasher{run: r, want: *points, work: make(chan crashPoint, 64)}
		var checkers, lives sync.WaitGroup
		for i := range runtime.NumCPU() {
			checkers.Go(func() { c.check(r.rng(1<<32 + uint64(i))) })
		}
		var next atomic.Uint64
		for range 2 {
			lives.Go(func() {
				for !c.enough() {
					n := next.Add(1)
					if err := guard(func() error { return c.life(n) }); err != nil {
						r.fail("life %d: %v", n, err)
					}
				}
			})
		}
		lives.Wait()
		close(c.work)
		checkers.Wait()
		return nil
	}
}

// crasher is a run of crashpoints.
type crasher struct {
	run   *run
	want  int64
	taken atomic.Int64 // points that count
	work  chan crashPoint
}

func (c *crasher) enough() bool { return c.taken.Load() >= c.want || c.run.failures() > maxSaid }

// crashPoint is a disk after a crash, and what had been told before it.
type crashPoint struct {
	life uint64
	step string
	disk *vfs.Mem
	told moment
	end  journal.Offset // no byte was written behind it
}

const livesRounds = 3 // starts of the server in one life

// life is one history on one disk: starts, work, crashes.
func (c *crasher) life(n uint64) error {
	rng := c.run.rng(n)
	mem, t := vfs.NewMem(), &told{}
	for i := range t.parts {
		t.parts[i].producer.ID = -1
	}
	for round := range livesRounds {
		for i := 1; i < toldPartitions; i++ { // a producer of its own each round, so that a lost tail leaves no gap
			t.parts[i].producer.ID, t.parts[i].producer.Sequence = int64(1000*(round+1)+i), 0
		}
		d := &pointFS{Mem: mem, crasher: c, life: n, told: t, rng: rand.New(rand.NewPCG(rng.Uint64(), n))}
		p, err := pipeline.Open(torturedOptions(d))
		if err != nil {
			return fmt.Errorf("start %d: %w", round, err)
		}
		d.pipeline.Store(p)
		before := t.now()
		all, err := before.verify(p)
		if err != nil {
			p.Close()
			return fmt.Errorf("start %d: %w", round, err)
		}
		t.adopt(all)
		err = t.work(p, rng, 60+rng.IntN(60), c.enough, nil)
		if cerr := p.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		t.mu.Lock()
		twice := t.twice
		t.mu.Unlock()
		if twice > 0 {
			return fmt.Errorf("round %d: %d answers too many", round, twice)
		}
	}
	return nil
}

// check recovers crash points until there are no more.
func (c *crasher) check(rng *rand.Rand) {
	for pt := range c.work {
		if c.run.failures() > maxSaid {
			continue
		}
		if err := guard(func() error { return c.checkOne(pt, rng) }); err != nil {
			c.run.fail("life %d, crash at %s: %v", pt.life, pt.step, err)
			continue
		}
		c.run.pass()
	}
}

// recovery is a pipeline that was opened on a crashed disk.
func (c *crasher) checkOne(pt crashPoint, rng *rand.Rand) error {
	disk := pt.disk
	if rng.IntN(4) == 0 { // the power fails again while it recovers
		faulty := vfs.NewFaulty(disk, vfs.CrashAfter(int64(rng.IntN(12))))
		if p, err := pipeline.Open(torturedOptions(faulty)); err == nil {
			p.Close()
		}
		disk = disk.Crash(rng)
		c.run.count("second crashes in recovery", 1)
	}
	p, all, err := c.recover(disk, pt)
	if err != nil {
		return err
	}
	t := pt.told.restore()
	t.adopt(all) // a reader has seen it
	again := rng.IntN(4)
	switch {
	case again == 0: // right after the recovery, before anything new is written
		c.run.count("crashes right after recovery", 1)
	case again == 1 && p.View().Topics[toldTopic] != nil:
		c.run.count("lives that went on", 1)
		if err := c.goOn(p, t, rng); err != nil {
			p.Close()
			return err
		}
	default:
		return p.Close()
	}
	next := crashPoint{life: pt.life, disk: disk.Crash(rng), told: t.now(), end: pt.end + 1<<20}
	clean := rng.IntN(2) == 0
	if err := p.Close(); err != nil {
		return err
	}
	if clean {
		next.disk = disk
	}
	p, _, err = c.recover(next.disk, next)
	if err != nil {
		return fmt.Errorf("after a second start (clean stop: %v): %w", clean, err)
	}
	if r := p.Recovered(); clean && r.Torn {
		err = fmt.Errorf("after a clean stop %d bytes were cut at %d", r.TornBytes, r.End)
	}
	return errors.Join(err, p.Close())
}

// recover opens a disk and compares it with what was told.
func (c *crasher) recover(disk vfs.FS, pt crashPoint) (*pipeline.Pipeline, [toldPartitions]found, error) {
	p, err := pipeline.Open(torturedOptions(disk))
	if err != nil {
		return nil, [toldPartitions]found{}, fmt.Errorf("it does not start: %w", err)
	}
	r := p.Recovered()
	if r.Torn {
		c.run.count("torn tails cut", 1)
	}
	if r.End > pt.end {
		return nil, [toldPartitions]found{}, errors.Join(fmt.Errorf("it recovered up to %d, and nothing was written behind %d", r.End, pt.end), p.Close())
	}
	all, err := pt.told.verify(p)
	if err != nil {
		err = fmt.Errorf("%w (recovered from %d to %d, proven %d, torn bytes %d; written up to %d)", err, r.Checkpoint, r.End, r.ProvenF, r.TornBytes, pt.end)
		return nil, all, errors.Join(err, p.Close())
	}
	return p, all, nil
}

// goOn sends the newest acknowledged batch of each producer again, which must change nothing, and writes a little more.
func (c *crasher) goOn(p *pipeline.Pipeline, t *told, rng *rand.Rand) error {
	parts := p.View().Topics[toldTopic].Partitions
	for i, part := range parts {
		t.mu.Lock()
		last, producer := t.parts[i].last, &t.parts[i].producer
		if producer.ID >= 0 {
			producer.ID, producer.Sequence = producer.ID+1_000_000, 0
		}
		t.mu.Unlock()
		if last != nil {
			before := part.HighWatermark()
			r, err := t.submit(p, part, *last, qos.All)
			if err != nil {
				return err
			}
			<-r.done
			p.CatchUp()
			if after := part.HighWatermark(); after != before {
				return fmt.Errorf("partition %d: a batch that was acknowledged before the crash was sent again, and written twice: the high watermark went from %d to %d", i, before, after)
			}
			if r.refused() == nil && int64(r.Records[0].Base) != last.base {
				return fmt.Errorf("partition %d: a retry of the batch at %d is answered with %d", i, last.base, r.Records[0].Base)
			}
		}
		for range rng.IntN(4) {
			r, err := t.submit(p, part, t.fresh(i, 1+rng.IntN(3)), qos.Persistence)
			if err != nil {
				return err
			}
			<-r.done
			if err := r.refused(); err != nil {
				return err
			}
		}
	}
	return nil
}

// pointFS is a Mem that takes crash points around every step.
type pointFS struct {
	*vfs.Mem
	crasher  *crasher
	life     uint64
	told     *told
	pipeline atomic.Pointer[pipeline.Pipeline] // nil while it starts

	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

// point takes one, if anything is at stake.
func (d *pointFS) point(step string) {
	if d.crasher.enough() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	pt := crashPoint{life: d.life, step: step, told: d.told.now(), end: 1 << 62} // what was told first: the disk may only be newer
	if p := d.pipeline.Load(); p != nil {
		if pt.told.pending == 0 {
			return // nothing is unanswered: it does not count
		}
		pt.end = p.Written() // a frame that is not published is not on the disk either
		if rest := -pt.end & (torturedSegment - 1); rest < journal.FrameHeaderBytes {
			pt.end += rest // a segment's remainder belongs to the frame before it
		}
	}
	if d.rng.IntN(3) == 0 {
		pt.disk = d.Mem.CrashKeepAll() // the process dies and the page cache lives
	} else {
		pt.disk = d.Mem.Crash(d.rng)
	}
	d.crasher.run.count("at "+step, 1)
	d.crasher.run.count("unanswered requests at the crashes", int64(pt.told.pending))
	if n := d.crasher.taken.Add(1); n%100_000 == 0 {
		fmt.Printf("crashpoints: %d of %d points\n", n, d.crasher.want)
	}
	d.crasher.work <- pt
}

func (d *pointFS) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := d.Mem.Open(name, mode)
	if mode&vfs.Create != 0 {
		d.point("create")
	}
	if err != nil {
		return nil, err
	}
	return &pointFile{File: f, fs: d}, nil
}

func (d *pointFS) Rename(from, to string) error {
	defer d.point("rename")
	return d.Mem.Rename(from, to)
}

func (d *pointFS) Remove(name string) error {
	defer d.point("remove")
	return d.Mem.Remove(name)
}

func (d *pointFS) SyncDir(dir string) error {
	d.point("directory sync")
	return d.Mem.SyncDir(dir)
}

func (d *pointFS) Lock(name string) (io.Closer, error) { return d.Mem.Lock(name) }

type pointFile struct {
	vfs.File
	fs *pointFS
}

func (f *pointFile) WriteAt(p []byte, off int64) (int, error) {
	defer f.fs.point("write")
	return f.File.WriteAt(p, off)
}

// WriteSync is a write that the crash may find half done, and then a synced one.
func (f *pointFile) WriteSync(bufs [][]byte, off int64) (int, error) {
	f.fs.point("before a synced write")
	at := off
	for _, b := range bufs {
		if _, err := f.File.WriteAt(b, at); err != nil {
			return 0, err
		}
		at += int64(len(b))
	}
	f.fs.point("in a synced write")
	n, err := f.File.WriteSync(bufs, off)
	f.fs.point("after a synced write")
	return n, err
}

func (f *pointFile) Sync() error {
	f.fs.point("before a sync")
	err := f.File.Sync()
	f.fs.point("after a sync")
	return err
}

func (f *pointFile) Truncate(size int64) error {
	defer f.fs.point("truncate")
	return f.File.Truncate(size)
}

func (f *pointFile) Allocate(size int64) error {
	defer f.fs.point("allocate")
	return f.File.Allocate(size)
}
