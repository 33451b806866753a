package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/journal/index"
)

// Options of a node's pipeline. Zero values mean the default named.
type Options struct {
	FS      vfs.FS // default vfs.OS
	DataDir string // made when missing

	ClusterID string // of a new data directory; default random. An existing one keeps its own
	NodeID    int32  // default 1; an existing data directory with another one is refused

	SegmentBytes int64 // of a new journal; default 256 MiB. An existing journal keeps its own
	CacheBytes   int64 // default 256 MiB
	Spares       int   // zeroed segments kept ahead; default 2, negative: none

	// FrameTarget is where a turn of the write stage stops adding requests, bytes; default 128 KiB. Larger frames cost less and delay the first of their requests.
	FrameTarget int
	// AdmissionBytes bounds the requests that wait for the write stage; default 64 MiB. Past it submitters stop reading.
	AdmissionBytes int64
	// DirtyBytes is how much may be written and not yet flushed while somebody waits for a flush; default 2 MiB. Less bounds latency, more lets flushes grow.
	DirtyBytes int64
	// FlushInterval is how long bytes that nobody waits for may stay unflushed; default 50 ms.
	FlushInterval time.Duration
	// FlushBytes is how many such bytes are flushed at once; default 2 MiB.
	FlushBytes int64

	// RetentionBytes and RetentionAge are when the oldest segments are dropped: when the journal is larger, or their frames are older. Zero: never.
	RetentionBytes int64
	RetentionAge   time.Duration
	// ProducerExpiry is when an idempotent producer that wrote nothing is forgotten; default 24 h.
	ProducerExpiry time.Duration

	// SlowRequest is how long a request may take, from reading it to having its answer ready, before a SlowRequest event tells of it, at most one a second. 0: none does.
	SlowRequest time.Duration

	// OnEvent is told what an operator may want to know; OnFatal, once, that the disk failed. Both must not block.
	OnEvent func(Event)
	OnFatal func(error)
	// Clock is the wall clock; default time.Now. Frames' times, retention and expiry follow it.
	Clock func() time.Time
}

func (o *Options) setDefaults() error {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.NodeID == 0 {
		o.NodeID = 1
	}
	def(&o.SegmentBytes, journal.DefaultSegmentBytes)
	def(&o.CacheBytes, journal.DefaultCacheBytes)
	def(&o.AdmissionBytes, 64<<20)
	def(&o.DirtyBytes, 2<<20)
	def(&o.FlushBytes, 2<<20)
	def((*int64)(&o.FlushInterval), int64(50*time.Millisecond))
	def((*int64)(&o.ProducerExpiry), int64(24*time.Hour))
	if o.FrameTarget == 0 {
		o.FrameTarget = 128 << 10
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) {}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.DataDir == "" {
		return errors.New("pipeline: no data directory")
	}
	return nil
}

// Pipeline is a node's journal at work. Open starts it, Close ends it.
type Pipeline struct {
	// immutable after Open
	opts       Options
	start      time.Time
	lock       io.Closer
	meta       journal.Meta
	journal    *journal.Journal
	index      *index.Index
	catalog    *catalog.Catalog
	replicator Replicator
	recovered  Recovered

	// Watermarks; each is written by the one goroutine named.
	written    Watermark // write: the stream's end
	replicated Watermark // write (a single node; else replication): a majority holds it in memory
	flushed    Watermark // flush: synced on this node's disk
	committed  Watermark // flush: a majority, the leader among them, has synced it
	indexed    Watermark // follow: readers see it
	applied    Watermark // follow: the catalog has acted on it

	// the stages, in the order of the path
	admit   *admission
	write   writer
	flush   flusher
	respond responder
	follow  follower
	marker  marker
	upkeep  upkeep

	placed   placedFrames
	flushes  flushTimes
	commands commands
	stats    stats
	readers  atomic.Int32 // partitions that fetches wait on
	catchUp  catchUp

	failed    atomic.Bool   // the disk failed
	dead      chan struct{} // closed with failed
	failure   error         // why; written before dead is closed
	failOnce  sync.Once
	closeOnce sync.Once
	stages    []*stage
}

// Recovered is what Open found.
type Recovered struct {
	journal.Recovered
	Replayed int64 // records that were indexed or applied again
	Took     time.Duration
	Created  bool // the data directory was new
}

// stage is a running goroutine that can be stopped and waited for.
type stage struct {
	name string
	stop chan struct{}
	done chan struct{}
}

func (p *Pipeline) startStage(name string, run func(stop <-chan struct{})) {
	s := &stage{name: name, stop: make(chan struct{}), done: make(chan struct{})}
	p.stages = append(p.stages, s)
	go func() {
		defer close(s.done)
		pprof.SetGoroutineLabels(stageLabels(name))
		run(s.stop)
	}()
}

// stageLabels are the pprof labels of a goroutine that runs a stage.
func stageLabels(name string) context.Context {
	return pprof.WithLabels(context.Background(), pprof.Labels("stage", name))
}

// Open recovers the data directory, or makes it, and starts the stages. A held lock is vfs.ErrLocked; damage is a journal.DamageError or journal.CorruptError.
func Open(opts Options) (*Pipeline, error) {
	p, err := openStill(opts)
	if err == nil {
		p.run()
	}
	return p, err
}

// openStill is Open without starting the stages: a test drives their steps.
func openStill(opts Options) (*Pipeline, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	if err := opts.FS.MkdirAll(opts.DataDir); err != nil {
		return nil, err
	}
	lock, err := opts.FS.Lock(path.Join(opts.DataDir, "lock"))
	if err != nil {
		return nil, err
	}
	p := &Pipeline{opts: opts, start: time.Now(), lock: lock, dead: make(chan struct{})}
	if err := p.open(); err != nil {
		if p.index != nil {
			p.index.Close()
		}
		if p.journal != nil {
			p.journal.Close()
		}
		lock.Close()
		return nil, err
	}
	return p, nil
}

func (p *Pipeline) open() error {
	begin := time.Now()
	var err error
	if err = p.loadMeta(); err != nil {
		return err
	}
	jm := p.meta.Journals[0]
	salt, err := jm.SaltBytes()
	if err != nil {
		return err
	}
	// A process that died may have left a snapshot whose name is in memory alone; segments are dropped on the strength of it.
	if err := p.opts.FS.SyncDir(p.opts.DataDir); err != nil {
		return &journal.FatalError{Op: "sync of the data directory", Err: err}
	}
	jopts := journal.Options{
		FS: p.opts.FS, Dir: journal.JournalDir(p.opts.DataDir, jm.ID), Salt: salt,
		SegmentBytes: jm.SegmentBytes, CacheBytes: p.opts.CacheBytes, Spares: p.opts.Spares,
	}
	if p.catalog, err = catalog.Load(p.opts.FS, p.opts.DataDir); err != nil {
		return err
	}
	jopts.CatalogOffset = p.catalog.Offset()
	if p.recovered.Created {
		if err := journal.Create(jopts); err != nil {
			return err
		}
	}
	if p.journal, p.recovered.Recovered, err = journal.Open(jopts); err != nil {
		return err
	}
	if p.recovered.Created {
		// Last, so that a crash before it begins anew: a directory with its identity has everything else.
		if err := journal.SaveMeta(p.opts.FS, p.opts.DataDir, p.meta); err != nil {
			return err
		}
	}
	p.wire()
	if err := p.replay(); err != nil {
		return err
	}
	p.recovered.Took = time.Since(begin)
	return p.journal.WriteMark(p.marker.newest())
}

// loadMeta reads the directory's identity or decides on a new one.
func (p *Pipeline) loadMeta() error {
	meta, err := journal.LoadMeta(p.opts.FS, p.opts.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return p.newMeta()
	}
	if err != nil {
		return err
	}
	if len(meta.Journals) != 1 {
		return fmt.Errorf("%s holds %d journals; this build serves one", p.opts.DataDir, len(meta.Journals))
	}
	if meta.NodeID != p.opts.NodeID {
		return fmt.Errorf("%s belongs to node %d, and node-id is %d: use --node-id %d or another --data-dir", p.opts.DataDir, meta.NodeID, p.opts.NodeID, meta.NodeID)
	}
	p.meta = meta
	if same, err := journal.LoadMetaCopy(p.opts.FS, p.opts.DataDir); err == nil && reflect.DeepEqual(same, meta) {
		return nil
	}
	// Made by an earlier build, or damaged. On a full disk it has to wait.
	if err := journal.SaveMeta(p.opts.FS, p.opts.DataDir, meta); err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return nil
}

func (p *Pipeline) newMeta() error {
	// A directory without an identity that holds a stream is not taken for a new one: its meta was lost.
	used, err := journal.Used(p.opts.FS, journal.JournalDir(p.opts.DataDir, 0))
	if err != nil {
		return err
	}
	if used {
		return &journal.CorruptError{Segment: -1, File: path.Join(p.opts.DataDir, "meta"), Cause: "the file is missing, and there is a journal beside it"}
	}
	var salt journal.Salt
	var id [16]byte
	rand.Read(salt[:])
	rand.Read(id[:])
	if p.opts.ClusterID == "" {
		p.opts.ClusterID = hex.EncodeToString(id[:])
	}
	p.meta = journal.Meta{ClusterID: p.opts.ClusterID, NodeID: p.opts.NodeID, Journals: []journal.JournalMeta{{
		ID: 0, Salt: hex.EncodeToString(salt[:]), SegmentBytes: p.opts.SegmentBytes,
	}}}
	p.recovered.Created = true
	return nil
}

// wire makes the stages and sets the watermarks to the recovered end.
func (p *Pipeline) wire() {
	r := p.recovered.Recovered
	p.write = writer{p: p, wake: newSignal(), labels: stageLabels("write")}
	p.admit = newAdmission(p.opts.AdmissionBytes, p.Now, p.write.wake)
	p.flush = flusher{p: p, wake: newSignal(), labels: stageLabels("flush")}
	p.respond = responder{p: p, wake: newSignal(), labels: stageLabels("respond")}
	p.respond.times.p = p
	p.follow = follower{p: p, wake: newSignal(), at: r.End, known: make(map[uint32]followed)}
	p.marker = marker{p: p, wake: newSignal()}
	p.catchUp.moved = sync.NewCond(&p.catchUp.mu)
	p.upkeep = upkeep{p: p, wake: newSignal(), snapshotAt: p.catalog.Offset()}
	p.replicator = &single{term: r.Term + 1, index: r.Index}
	p.index = index.New(p.opts.FS, p.journal.Dir(), p.journal.SegmentBytes())
	for _, w := range []*Watermark{&p.written, &p.flushed, &p.replicated, &p.committed} {
		w.Advance(r.End)
	}
	m := p.journal.Flush.Mark()
	m.Term = p.replicator.Term()
	p.marker.mark, p.marker.dropTo = m, p.journal.MarkedFirst()
	p.marker.first.Advance(p.journal.MarkedFirst())
	p.marker.marked.Advance(r.End)
}

// replay brings the index and the catalog from their own checkpoints to the end.
func (p *Pipeline) replay() error {
	size := journal.Offset(p.journal.SegmentBytes())
	end := p.recovered.End
	first := p.journal.First()
	active := end - end%size
	for segment := first; segment < active; segment += size {
		if err := p.loadIndex(segment); err != nil {
			return err
		}
	}
	p.upkeep.sealedTo = active
	catalogFrom := p.catalog.Offset()
	from := min(p.journal.NextFrame(catalogFrom), active)
	err := p.journal.EachFrame(from, end, func(f journal.Frame) error {
		p.recovered.Replayed += int64(f.Records)
		return p.follow.replay(f, active, catalogFrom)
	})
	if err != nil {
		return err
	}
	p.catalog.Advance(end)
	p.indexed.Advance(end)
	p.applied.Advance(end)
	p.follow.live = true
	p.follow.snapshot = catalogFrom - catalogFrom%size
	p.follow.touched = nil
	p.raiseLogStarts(first)
	p.catalog.StartWriting()
	return nil
}

// loadIndex takes a full segment's index file, or makes it anew.
func (p *Pipeline) loadIndex(segment journal.Offset) error {
	err := p.index.Load(segment)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*journal.CorruptError)) {
		return err
	}
	return p.rebuildIndex(segment, err)
}

// rebuildIndex makes a full segment's index file anew from the segment.
func (p *Pipeline) rebuildIndex(segment journal.Offset, cause error) error {
	p.opts.OnEvent(IndexRebuilt{Segment: segment, Cause: cause})
	return p.index.Rebuild(segment, func(add func(uint32, index.Entry)) error {
		return p.journal.EachFrame(segment, segment+journal.Offset(p.journal.SegmentBytes()), func(f journal.Frame) error {
			return f.EachRecord(func(r journal.Record) error {
				if r.Kind != journal.RecordBatch {
					return nil
				}
				i, err := batchHead(r)
				if err == nil {
					add(r.Partition, indexEntry(r, &i))
				}
				return err
			})
		})
	})
}

// raiseLogStarts moves each partition's log start to its first batch at or behind first, a segment's start.
func (p *Pipeline) raiseLogStarts(first journal.Offset) {
	if first == 0 {
		return
	}
	for _, t := range p.catalog.View().Topics {
		for _, part := range t.Partitions {
			end := part.HighWatermark() // looked at before the index: a batch that comes in between is found there
			if first, ok := p.index.First(part.ID, first); ok {
				part.RaiseLogStart(first)
			} else {
				part.RaiseLogStart(end)
			}
		}
	}
}

// dropped follows a move of the journal's log start. Upkeep goroutine.
func (p *Pipeline) dropped(first journal.Offset) {
	p.index.DropBefore(first)
	p.event(SegmentsDropped{First: first})
}

func (p *Pipeline) run() {
	// In the order in which Close stops them.
	p.startStage("write", p.write.run)
	p.startStage("flush", p.flush.run)
	p.startStage("follow", p.follow.run)
	p.startStage("respond", p.respond.run)
	p.startStage("upkeep", p.upkeep.run)
	p.startStage("mark", p.marker.run)
}

// fatal stops the acknowledging for good.
func (p *Pipeline) fatal(err error) {
	p.failOnce.Do(func() {
		p.failure = err
		p.failed.Store(true)
		close(p.dead)
		p.admit.close(ErrFailed)
		p.respond.wake.set()
		p.catchUp.wake()
		p.event(Failed{Err: err})
		p.opts.OnFatal(err)
	})
}

func (p *Pipeline) event(e Event) { p.opts.OnEvent(e) }

// Close refuses new requests, answers what is pending, flushes, marks, takes a snapshot and lets go of the directory. It returns the disk's error if there was one.
func (p *Pipeline) Close() error {
	var err error
	p.closeOnce.Do(func() {
		p.admit.close(ErrClosed)
		p.write.awaitSubmitter()
		for _, s := range p.stages {
			if s.name == "respond" {
				p.respond.refuse(p.admit.takeAll(nil), ErrFailed) // left over only after a failure
			}
			close(s.stop)
			<-s.done
		}
		if err = p.failure; err == nil {
			err = p.settle()
		}
		p.index.Close()
		err = errors.Join(err, p.journal.Close(), p.lock.Close())
	})
	return err
}

// settle writes what makes the next start short: index files and the catalog.
func (p *Pipeline) settle() error {
	if err := p.upkeep.seal(); err != nil {
		return err
	}
	if p.catalog.Offset() == p.upkeep.snapshotAt {
		return nil
	}
	return p.upkeep.save(p.follow.encode())
}

// Submit hands requests of one submitter to the pipeline, all or none. On error they are still the caller's.
func (p *Pipeline) Submit(reqs []*Request) error {
	err := p.admit.push(reqs, false)
	if err == nil {
		p.write.wake.set()
	}
	return err
}

// SubmitLent is Submit for payloads that are lent until it returns: what of them is needed longer is handed to keep, which points the request at a copy. Much that comes at once is written before it returns, on the caller's goroutine (ADR 13),
// which has the pprof labels of ctx again behind it. It does not wait for a disk or for other stages.
func (p *Pipeline) SubmitLent(ctx context.Context, reqs []*Request, keep func(*Request)) error {
	return p.write.onSubmit(ctx, reqs, keep)
}

// Full says that a submitter of a client should stop reading; if so resume's Wake is called once, from a stage's goroutine, when it may look again.
func (p *Pipeline) Full(client string, resume *Resume) bool { return p.admit.full(client, resume) }

// Now is the pipeline's monotonic clock, that deadlines are on.
func (p *Pipeline) Now() time.Duration { return time.Since(p.start) }

func (p *Pipeline) wallMs() int64 { return p.opts.Clock().UnixMilli() }

// dirtyLimit is how far written may run ahead of flushed.
func (p *Pipeline) dirtyLimit() journal.Offset {
	limit := p.opts.CacheBytes / 2
	if journal.Offset(p.flush.demand.Load()) > p.flushed.Load() {
		limit = min(limit, p.opts.DirtyBytes)
	}
	return journal.Offset(limit)
}

// Groups is what consumer groups have committed and is applied.
func (p *Pipeline) Groups() *catalog.Groups { return p.catalog.Groups() }

// DataDir is where the pipeline keeps its data.
func (p *Pipeline) DataDir() string { return p.opts.DataDir }

// Free is how many bytes the disk below it has left.
func (p *Pipeline) Free() (int64, error) { return p.opts.FS.Free(p.opts.DataDir) }

// Txns is what is known of transactional producers and is applied.
func (p *Pipeline) Txns() *catalog.Txns { return p.catalog.Txns() }

// View is the newest picture of the catalog.
func (p *Pipeline) View() *catalog.View { return p.catalog.View() }

// Recovered is what Open found.
func (p *Pipeline) Recovered() Recovered { return p.recovered }

// Meta is the data directory's identity.
func (p *Pipeline) Meta() journal.Meta { return p.meta }

// LeaderEpoch is the epoch that this node writes in: its term.
func (p *Pipeline) LeaderEpoch() int32 { return int32(p.replicator.Term()) }

// FrameMax is the most bytes that a request's records may take, headers counted.
func (p *Pipeline) FrameMax() int { return p.journal.FrameMax() - journal.FrameHeaderBytes }

// Written is the stream's end: no byte behind it was published.
func (p *Pipeline) Written() journal.Offset { return p.written.Load() }

// Err is why the pipeline failed; nil while it has not.
func (p *Pipeline) Err() error {
	select {
	case <-p.dead:
		return p.failure
	default:
		return nil
	}
}
