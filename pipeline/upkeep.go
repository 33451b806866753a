package pipeline

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/catalog"
	"tidemark/journal"
)

// upkeep is the maintenance stage: segments and spares ahead of need, index files of full segments, catalog snapshots, retention.
//
// In: written, indexed, and the follow stage's snapshots. Out: files, and log start. Invariant: nothing here is on a request's path, save when no segment is ready: then the write stage waits for this one, or, without disk space, refuses.
// A failed sync is fatal; a full disk is not: the old state stays and spaceRetry later it is tried again.
type upkeep struct {
	p    *Pipeline
	wake signal

	noSpace atomic.Bool // the next segment could not be made: appends are refused

	mu      sync.Mutex
	newest  *encodedSnapshot                 // guarded by mu; the newest one that is not yet saved
	damaged map[string]*journal.CorruptError // guarded by mu; index files to be made anew, by name

	// upkeep goroutine only
	sealedTo   journal.Offset // segments below have their index file
	snapshotAt journal.Offset // of the snapshot on disk
	retryAt    time.Duration  // after a full disk
	refusing   bool           // and that was said
	failing    bool           // the last step failed: no space is taken for spares
}

// encodedSnapshot is a catalog as the follow goroutine laid it out.
type encodedSnapshot struct {
	bytes  []byte
	offset journal.Offset
	err    error
}

const (
	upkeepInterval = 500 * time.Millisecond // of looking at retention
	spaceRetry     = 500 * time.Millisecond
	zeroingPause   = 2 * time.Millisecond // between chunks of a spare, so that flushes go first
)

// offer leaves a snapshot to be saved; a newer one replaces one that was not.
func (u *upkeep) offer(s encodedSnapshot) {
	u.mu.Lock()
	u.newest = &s
	u.mu.Unlock()
	u.wake.set()
}

// offerAgain puts back a snapshot that could not be saved, unless a newer one has come.
func (u *upkeep) offerAgain(s *encodedSnapshot) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.newest == nil {
		u.newest = s
	}
}

func (u *upkeep) takeOffer() *encodedSnapshot {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.newest
	u.newest = nil
	return s
}

// step does what is due, in the order of who waits for it, and returns whether a spare is in the making. A part that fails does not keep the others from their work: on a full disk retention is what makes room.
func (u *upkeep) step() (more bool, err error) {
	more, err = u.segments()
	err = errors.Join(err, u.seal(), u.rebuildDamaged())
	if s := u.takeOffer(); s != nil {
		if serr := u.save(*s); serr != nil {
			err = errors.Join(err, serr)
			u.offerAgain(s)
		}
	}
	return more && err == nil, errors.Join(err, u.retain())
}

// segments names the next segment and works on spares while no flush is demanded.
func (u *upkeep) segments() (more bool, err error) {
	p := u.p
	for {
		before := p.journal.ReadyTo()
		written := p.written.Load()
		idle := journal.Offset(p.flush.demand.Load()) <= p.flushed.Load() && !u.failing
		more, err = p.journal.Maintain(written, idle)
		if err != nil {
			if before <= written-written%journal.Offset(p.journal.SegmentBytes())+journal.Offset(p.journal.SegmentBytes()) {
				u.noSpace.Store(true)
				p.write.wake.set()
			}
			return false, err
		}
		if p.journal.ReadyTo() == before {
			return more, nil
		}
		u.noSpace.Store(false)
		p.write.wake.set()
		p.event(SegmentReady{End: p.journal.ReadyTo()})
	}
}

// seal writes the index files of segments that are full and wholly indexed.
func (u *upkeep) seal() error {
	p := u.p
	size := journal.Offset(p.journal.SegmentBytes())
	for u.sealedTo+size <= p.indexed.Load() {
		if err := p.index.Seal(u.sealedTo); err != nil {
			return err
		}
		u.sealedTo += size
	}
	return nil
}

// rebuild asks for an index file to be made anew.
func (u *upkeep) rebuild(c *journal.CorruptError) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.damaged == nil {
		u.damaged = make(map[string]*journal.CorruptError)
	}
	if u.damaged[c.File] == nil {
		u.damaged[c.File] = c
		u.wake.set()
	}
}

func (u *upkeep) rebuildDamaged() error {
	u.mu.Lock()
	damaged := u.damaged
	u.damaged = nil
	u.mu.Unlock()
	for name, c := range damaged {
		segment, ok := journal.IndexSegment(name)
		if !ok {
			continue
		}
		if err := u.p.rebuildIndex(segment, c); err != nil {
			return err
		}
	}
	return nil
}

func (u *upkeep) save(s encodedSnapshot) error {
	err := s.err
	if err == nil {
		err = catalog.Save(u.p.journal.FS(), u.p.opts.DataDir, s.bytes)
	}
	if err == nil {
		u.snapshotAt = s.offset
	}
	return err
}

// retain drops the oldest segments that are too many or too old, below everything that recovery needs.
func (u *upkeep) retain() error {
	p := u.p
	size := journal.Offset(p.journal.SegmentBytes())
	for {
		first := p.journal.First()
		limit := min(u.snapshotAt, p.marker.marked.Load(), u.sealedTo)
		if first+size > limit || !u.expired(first) {
			return nil
		}
		if p.marker.first.Load() < first+size { // said first, so that a segment that is missing can be told from one that was dropped
			to := first + size
			for to+size <= limit && u.expired(to) { // one mark for all of them: it is written at most ten times a second
				to += size
			}
			p.marker.raise(to)
			return nil
		}
		p.raiseLogStarts(first + size) // before the bytes go: a reader is told where the log begins, and finds no gap
		dropped, err := p.journal.DropHead(limit)
		if dropped {
			p.dropped(p.journal.First())
		}
		if err != nil || !dropped {
			return err
		}
	}
}

// expired says whether retention wants the segment gone.
func (u *upkeep) expired(segment journal.Offset) bool {
	p := u.p
	size := journal.Offset(p.journal.SegmentBytes())
	if max := p.opts.RetentionBytes; max > 0 && int64(p.written.Load()-segment) > max {
		return true
	}
	if age := p.opts.RetentionAge; age > 0 {
		// The next segment's first frame is younger than every frame in this one.
		ms, err := p.journal.FrameTime(segment + size)
		return err == nil && p.wallMs()-ms > age.Milliseconds()
	}
	return false
}

// fatalDisk tells the errors that end the process from those that go away when space comes back.
func fatalDisk(err error) bool { return errors.As(err, new(*journal.FatalError)) }

// run does what is due until stop is closed.
func (u *upkeep) run(stop <-chan struct{}) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-u.wake:
		case <-tick.C:
		case <-u.p.dead:
			return
		case <-stop:
			return
		}
		wait := upkeepInterval
		if u.retryAt > u.p.Now() && !u.p.write.blocked.Load() {
			tick.Reset(u.retryAt - u.p.Now())
			continue
		}
		more, err := u.step()
		switch {
		case fatalDisk(err):
			u.p.fatal(err)
			return
		case err != nil:
			u.retryAt = u.p.Now() + spaceRetry
			wait = spaceRetry
			if refusing := u.noSpace.Load(); !u.failing || refusing != u.refusing {
				u.refusing = refusing
				u.p.event(UpkeepFailed{Err: err, Refusing: u.noSpace.Load()})
			}
			u.failing = true
		default:
			if more {
				wait = zeroingPause
			}
			if u.failing {
				u.p.event(UpkeepResumed{})
			}
			u.failing = false
		}
		tick.Reset(wait)
	}
}
