package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tidemark/internal/batch"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// eventually polls what another stage does in its own time, such as retention, which no request waits for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 15 s", what)
		}
	}
}

func TestRetention(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	opts.RetentionBytes = 512 << 10
	p := open(t, opts)
	parts := createTopic(t, p, "t", 2).Partitions
	busy, quiet := parts[0], parts[1]
	w := newWaiter()
	w.wait(t, w.submit(t, p, produce(qos.All, quiet, makeBatch(3, "old", -1, -1, -1))))
	write := func(n int) {
		for i := range n {
			r := produce(qos.Persistence, busy, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), -1, -1, -1))
			if w.wait(t, w.submit(t, p, r)); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	write(600)
	eventually(t, "log start moves as far as it has to", func() bool {
		return int64(p.Written()-p.journal.First()) <= opts.RetentionBytes && busy.LogStart() > 0 && quiet.LogStart() == 3
	})
	if _, err := p.Read(busy, 0, busy.HighWatermark(), 1<<20, true, nil); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("a read below log start: %v", err)
	}
	kept := bodies(t, p, busy)
	if len(kept) < 60 {
		t.Errorf("only %d batches are kept", len(kept))
	}
	start, end := busy.LogStart(), busy.HighWatermark()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	// What is left is found again, after a clean stop and after a crash, and offsets go on.
	for _, again := range []*vfs.Mem{mem.CrashKeepAll(), mem.CrashKeepNothing()} {
		opts.FS = again
		p = open(t, opts)
		parts := p.View().Topics["t"].Partitions
		if parts[0].LogStart() < start || parts[0].HighWatermark() != end || parts[1].LogStart() != 3 || parts[1].HighWatermark() != 3 {
			t.Errorf("after a restart: %d to %d and %d to %d; before: %d to %d and 3 to 3", parts[0].LogStart(), parts[0].HighWatermark(), parts[1].LogStart(), parts[1].HighWatermark(), start, end)
		}
		r := produce(qos.All, parts[1], makeBatch(1, "new", -1, -1, -1))
		if w.wait(t, w.submit(t, p, r)); r.Records[0].Base != 3 {
			t.Errorf("the quiet partition goes on at %d", r.Records[0].Base)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Retention may take segments away in the middle of a read: what is read has no gap.
func TestReadDoesNotPassWhatRetentionTakes(t *testing.T) {
	var strike func()
	fsys := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".journal") && strike != nil {
			strike()
		}
		return nil
	})
	p := open(t, testOptions(fsys))
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	for i := range 300 {
		r := produce(qos.Persistence, part, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), -1, -1, -1))
		if w.wait(t, w.submit(t, p, r)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	p.CatchUp()
	strike = func() { // as retention does it, between two looks at the index
		strike = nil
		taken := 2 * journal.Offset(p.journal.SegmentBytes())
		p.raiseLogStarts(taken)
		p.index.DropBefore(taken)
	}
	b, err := p.Read(part, 0, part.HighWatermark(), 1<<30, true, nil)
	if err != nil || strike != nil || part.LogStart() == 0 {
		t.Fatalf("%v; log start %d", err, part.LogStart())
	}
	next := int64(0)
	for len(b) > 0 {
		i := batch.Head(b)
		if i.Base != next {
			t.Fatalf("a batch at %d says %d", next, i.Base)
		}
		next += int64(i.Count)
		b = b[batch.Bytes(b):]
	}
	if next == 0 || next >= int64(part.LogStart()) {
		t.Errorf("read up to %d, log start is %d", next, part.LogStart())
	}
}

func TestRetentionByAge(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	opts := testOptions(vfs.NewMem())
	opts.RetentionAge = time.Hour
	opts.Clock = func() time.Time { return time.UnixMilli(now.Load()) }
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	write := func() {
		for range 100 {
			w.wait(t, w.submit(t, p, produce(qos.Persistence, part, makeBatch(1, strings.Repeat("x", 4000), -1, -1, -1))))
		}
	}
	write()
	write()
	if first := p.journal.First(); first != 0 {
		t.Fatalf("young segments were dropped up to %d", first)
	}
	now.Add((2 * time.Hour).Milliseconds())
	write() // the segments before have a young frame behind them now
	write()
	eventually(t, "old segments are dropped", func() bool { return p.journal.First() > 0 })
}

func TestFullDiskRefusesAndGoesOn(t *testing.T) {
	var full atomic.Bool
	fsys := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if full.Load() && op.Kind == vfs.OpAllocate {
			return syscall.ENOSPC
		}
		return nil
	})
	opts := testOptions(fsys)
	opts.Spares = -1
	var failed, resumed atomic.Int32
	opts.OnEvent = func(e Event) {
		switch e := e.(type) {
		case UpkeepFailed:
			if e.Refusing {
				failed.Add(1)
			}
		case UpkeepResumed:
			resumed.Add(1)
		}
	}
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	full.Store(true)
	w := newWaiter()
	write := func() error {
		r := produce(qos.Persistence, part, makeBatch(1, strings.Repeat("x", 20000), -1, -1, -1))
		w.wait(t, w.submit(t, p, r))
		return r.Err
	}
	written := 0
	for ; ; written++ {
		if err := write(); err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
		if written > 1000 {
			t.Fatal("nothing was refused")
		}
	}
	if got := len(bodies(t, p, part)); got != written {
		t.Errorf("%d batches are readable, %d were acknowledged", got, written)
	}
	full.Store(false)
	eventually(t, "writes go on", func() bool { return write() == nil })
	eventually(t, "the events", func() bool { return failed.Load() > 0 && resumed.Load() > 0 })
	w.onceEach(t)
}

func TestDeletedTopicIsGoneAfterReplay(t *testing.T) {
	mem := vfs.NewMem()
	p := open(t, testOptions(mem))
	topic := createTopic(t, p, "gone", 1)
	w := newWaiter()
	w.wait(t, w.submit(t, p, produce(qos.All, topic.Partitions[0], makeBatch(1, "x", -1, -1, -1))))
	deleteTopic(t, p, w, topic.ID)
	if r := produce(qos.All, topic.Partitions[0], makeBatch(1, "y", -1, -1, -1)); true {
		if w.wait(t, w.submit(t, p, r)); !errors.Is(r.Records[0].Err, ErrDeleted) {
			t.Errorf("a write to a deleted partition: %v", r.Records[0].Err)
		}
	}
	again := createTopic(t, p, "gone2", 1).Partitions[0]
	if again.ID == topic.Partitions[0].ID {
		t.Error("a partition's number was used again")
	}
	crashed := mem.CrashKeepNothing() // no snapshot: all of it is replayed
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open(t, testOptions(crashed))
	if v := p.View(); v.Topics["gone"] != nil || v.Topics["gone2"] == nil {
		t.Errorf("topics after replay: %v", v.Topics)
	}
}

// TestSnapshotBoundsReplay writes several segments, so that snapshots are taken, and loses everything else that can be lost.
func TestSnapshotBoundsReplay(t *testing.T) {
	mem := vfs.NewMem()
	p := open(t, testOptions(mem))
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	for i := range 300 {
		w.wait(t, w.submit(t, p, produce(qos.All, part, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), 5, 0, int32(i)))))
	}
	eventually(t, "the mark follows", func() bool { return p.marker.marked.Load() > 700<<10 })
	eventually(t, "index files are written", func() bool {
		names, _ := mem.List(journal.JournalDir("data", 0))
		n := 0
		for _, name := range names {
			if strings.HasSuffix(name, ".index") {
				n++
			}
		}
		return n >= 3
	})
	crashed := mem.CrashKeepNothing()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open(t, testOptions(crashed))
	if r := p.Recovered(); r.Checkpoint == 0 || r.Replayed >= 300 {
		t.Errorf("recovery began at %d and replayed %d records: the snapshot and the index files bound neither", r.Checkpoint, r.Replayed)
	}
	part = p.View().Topics["t"].Partitions[0]
	if got := len(bodies(t, p, part)); got != 300 {
		t.Errorf("%d batches, want 300", got)
	}
	retry := produce(qos.All, part, makeBatch(1, "299|", 5, 0, 299))
	if w.wait(t, w.submit(t, p, retry)); retry.Records[0].Err != nil || retry.Records[0].Base != 299 {
		t.Errorf("a retry over a crash: base %d, %v", retry.Records[0].Base, retry.Records[0].Err)
	}
}

func TestLostMetaIsNotANewDirectory(t *testing.T) {
	mem := vfs.NewMem()
	p := open(t, testOptions(mem))
	createTopic(t, p, "t", 1)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mem.Remove("data/meta"); err != nil {
		t.Fatal(err)
	}
	if p, err := Open(testOptions(mem)); err == nil {
		p.Close()
		t.Fatal("a directory that lost its meta was taken for a new one")
	} else if c := (*journal.CorruptError)(nil); !errors.As(err, &c) {
		t.Fatal(err)
	}
}

// TestCrashWhileCreating pulls the plug at every step of making a data directory: the next start begins anew.
func TestCrashWhileCreating(t *testing.T) {
	for n := int64(0); n < 40; n++ {
		mem := vfs.NewMem()
		if p, err := Open(testOptions(vfs.NewFaulty(mem, vfs.CrashAfter(n)))); err == nil {
			p.Close()
		}
		for _, crashed := range []*vfs.Mem{mem.CrashKeepNothing(), mem.CrashKeepAll()} {
			p, err := Open(testOptions(crashed))
			if err != nil {
				t.Fatalf("after %d operations: %v", n, err)
			}
			createTopic(t, p, "t", 1)
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// spoil flips a bit of a file.
func spoil(t *testing.T, fsys vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fsys.Open(name, vfs.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedIndexPageIsMadeAnewWhileRunning(t *testing.T) {
	mem := vfs.NewMem()
	p := open(t, testOptions(mem))
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	for i := range 300 {
		w.wait(t, w.submit(t, p, produce(qos.All, part, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), -1, -1, -1))))
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, mem, "data/journal/0/"+journal.IndexName(0), 100) // a page of entries: only a read finds it
	p = open(t, testOptions(mem))
	part = p.View().Topics["t"].Partitions[0]
	if _, err := p.Read(part, 0, part.HighWatermark(), 0, true, nil); err == nil {
		t.Fatal("a damaged page of the index was believed")
	}
	eventually(t, "the index is made anew", func() bool {
		b, err := p.Read(part, 0, part.HighWatermark(), 0, true, nil)
		return err == nil && len(b) > 0
	})
	if got := len(bodies(t, p, part)); got != 300 {
		t.Errorf("%d batches, want 300", got)
	}
}

func TestLostOldestSegmentIsNotRetention(t *testing.T) {
	mem := vfs.NewMem()
	p := open(t, testOptions(mem))
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	for range 300 {
		w.wait(t, w.submit(t, p, produce(qos.All, part, makeBatch(1, strings.Repeat("x", 4000), -1, -1, -1))))
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00000000000000000000.journal", journal.IndexName(0)} {
		if err := mem.Remove("data/journal/0/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := Open(testOptions(mem)); err == nil {
		p.Close()
		t.Fatal("a journal that lost its first segment was opened")
	} else if c := (*journal.CorruptError)(nil); !errors.As(err, &c) {
		t.Fatal(err)
	}
}

// However many segments retention wants gone, one mark lets them go: marks are written at most ten times a second, and segments fill faster than that.
func TestManySegmentsGoWithOneMark(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions(mem)
	p := open(t, opts)
	part := createTopic(t, p, "t", 1).Partitions[0]
	w := newWaiter()
	for i := range 600 {
		r := produce(qos.Persistence, part, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), -1, -1, -1))
		if w.wait(t, w.submit(t, p, r)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	opts.RetentionBytes = 256 << 10
	p, err := openStill(opts)
	if err != nil {
		t.Fatal(err)
	}
	before := len(p.journal.Segments())
	for range 2 {
		if err := p.upkeep.retain(); err != nil || !p.marker.step() {
			t.Fatal(err)
		}
	}
	if kept := int64(p.Written() - p.journal.First()); kept > opts.RetentionBytes || before < 8 {
		t.Errorf("%d bytes of %d segments are kept after one mark, wanted are %d", kept, before, opts.RetentionBytes)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}
