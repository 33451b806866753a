package pipeline

import (
	"context"
	"errors"
	"math"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/internal/planted"
	"tidemark/journal"
	"tidemark/qos"
)

// writer is the write stage: requests in, one contiguous stream out.
//
// In: the admission queue. Out: written (and, on one node, replicated), and a pending callback for each request. Invariant: one goroutine at a time runs it and appends, the stage's own or a submitter's (ADR 13); a frame is
// published whole, after its records have their logical offsets and its requests are known to the respond stage; what is refused has left no trace.
type writer struct {
	p      *Pipeline
	wake   signal
	labels context.Context // of a goroutine that runs it

	// blocked is set while the stage waits for another one, so that the others wake it only then.
	blocked atomic.Bool

	running sync.Mutex // held during step: "the write goroutine" is who holds it

	// guarded by running
	reqs   []*Request // of this turn
	undo   []undo
	untxn  []catalog.TxnUndo // undoes what was done to transactions, in order
	placed *placed           // of the frame in the making
	taken  time.Duration     // when the turn began
	passed int               // body bytes of small requests since too much became dirty
}

const (
	toBeWritten journal.Offset = -1            // a record's place before it has one
	pendingEnd  journal.Offset = math.MaxInt64 // the end of a frame that has not been placed: its batches' originals lie in the frame itself
)

// While too much is written and not flushed, requests of at most passBytes are written all the same, until they are passedMax together: a client with little to send does not wait for those with much to be flushed first.
const (
	passBytes = 16 << 10
	passedMax = 128 << 10
)

// undo is what assign changed for one record, for a frame that is dropped.
type undo struct {
	rec   *Record
	next  journal.LogicalOffset
	saved catalog.Saved // the producer, if the batch is idempotent
}

// hold says why step could not go on.
type hold uint8

const (
	holdNone    hold = iota
	holdEmpty        // nothing is queued
	holdDirty        // too much is written and not flushed
	holdRoom         // the cache is full
	holdPinned       // a reader holds the cache
	holdSegment      // the next segment is not there yet
	holdNoSpace      // nor can it be made: what was queued was refused
)

// step makes one frame, or says what it waits for.
func (w *writer) step() hold {
	p := w.p
	if p.admit.empty() {
		return holdEmpty
	}
	// What leaves next is chosen now and not earlier: who comes while the stage is held up has its turn.
	var body, n int
	if p.written.Load()-p.flushed.Load() <= p.dirtyLimit() {
		w.passed = 0
		if body, n = p.admit.peek(p.opts.FrameTarget, p.journal.FrameMax()-journal.FrameHeaderBytes); n == 0 {
			return holdEmpty
		}
	} else {
		p.flush.demandAll()
		if body, n = p.admit.peekSmall(passBytes, passedMax-w.passed); n == 0 {
			return holdDirty
		}
		w.passed += body
	}
	if body > p.journal.FrameMax()-journal.FrameHeaderBytes {
		w.refuse(p.admit.take(w.reqs[:0]), ErrTooLarge)
		return holdNone
	}
	// Room for the largest that the turn can become: a frame that is begun is finished.
	now := max(p.wallMs(), p.journal.Append.LastTimestamp())
	switch h := w.begin(body, now); h {
	case holdNone:
	case holdNoSpace:
		return holdNone // go on with what came meanwhile
	default:
		return h
	}
	w.reqs = p.admit.take(w.reqs[:0])
	w.taken = p.Now()
	body = w.assign(now)
	if body == 0 {
		p.journal.Append.Drop()
		w.hand(0)
		return holdNone
	}
	if h := w.begin(body, now); h != holdNone { // smaller than the one that had room
		panic("pipeline: no room for a frame smaller than one that had room")
	}
	w.fill()
	return holdNone
}

// begin places a frame, and turns the journal's reasons against it into a hold.
func (w *writer) begin(body int, now int64) hold {
	p := w.p
	err := p.journal.Append.Begin(body, now, min(p.flushed.Load(), p.indexed.Load()))
	switch {
	case err == nil:
		return holdNone
	case errors.Is(err, journal.ErrNoSegment):
		if p.upkeep.noSpace.Load() {
			w.refuse(p.admit.takeAll(w.reqs[:0]), ErrNoSpace)
			return holdNoSpace
		}
		p.upkeep.wake.set()
		return holdSegment
	case errors.Is(err, journal.ErrCachePinned):
		return holdPinned
	default:
		p.flush.demandAll()
		return holdRoom
	}
}

// assign gives every record its logical offset, or its error, or its original's place, and returns the body bytes of those to be written.
func (w *writer) assign(nowMs int64) (body int) {
	clear(w.untxn) // it holds what was
	w.undo, w.untxn = w.undo[:0], w.untxn[:0]
	epoch := int32(w.p.replicator.Term())
	for _, r := range w.reqs {
		r.end = 0
		var refused error // the request's command, and so all that comes with it
		for i := range r.Records {
			rec := &r.Records[i]
			rec.at = 0
			if refused == nil && rec.Command != nil && rec.Command.OfTxn() {
				refused = w.assignTxn(rec.Command)
			}
			if refused != nil {
				rec.Err = refused
				continue
			}
			if rec.Kind == journal.RecordBatch && !w.assignBatch(r, rec, epoch, nowMs) {
				continue
			}
			rec.at = toBeWritten
			body += journal.RecordBytes(len(rec.Payload))
		}
	}
	return body
}

// assignTxn has the transactions, as they are at written, take a command, or says why not.
func (w *writer) assignTxn(cmd *catalog.Command) error {
	txns := w.p.catalog.Writing()
	if err := txns.Check(cmd); err != nil {
		return err
	}
	w.untxn = append(w.untxn, txns.Save(cmd))
	txns.Apply(cmd)
	return nil
}

// assignBatch returns false if the batch is not to be written: refused, or a retry of one that was.
func (w *writer) assignBatch(r *Request, rec *Record, epoch int32, nowMs int64) bool {
	part := rec.Partition
	if part.Deleted() {
		rec.Err = ErrDeleted
		return false
	}
	transactional := rec.Info.Transactional() && !rec.Info.Control()
	txns := w.p.catalog.Writing()
	if transactional {
		if err := txns.CheckBatch(part, &rec.Info); err != nil {
			rec.Err = err
			return false
		}
	}
	if rec.Info.Idempotent() {
		original, err := part.Seq.Check(&rec.Info)
		if err != nil {
			rec.Err = err
			return false
		}
		if original != nil {
			rec.Base = original.Base
			if !planted.Is(planted.RetryBeforeItsTime) {
				r.end = max(r.end, original.End)
			}
			return false
		}
	}
	w.undo = append(w.undo, undo{}) // filled in where it lies: see docs/bench/NOTES.md, stores
	u := &w.undo[len(w.undo)-1]
	u.rec, u.next = rec, part.Next
	if rec.Info.Idempotent() {
		u.saved = part.Seq.Save(rec.Info.ProducerID)
		part.Seq.Record(&rec.Info, catalog.Placed{
			Sequence: rec.Info.BaseSequence, Count: rec.Info.Count, Base: part.Next, End: pendingEnd,
		}, nowMs)
	}
	if transactional {
		w.untxn = append(w.untxn, txns.Batch(part, &rec.Info, nowMs))
	}
	rec.Base = part.Next
	part.Next += journal.LogicalOffset(rec.Info.Count)
	batch.Patch(rec.Payload, int64(rec.Base), epoch)
	return true
}

// fill copies the records into the frame, has it accepted, publishes it, and hands the requests to the respond stage.
func (w *writer) fill() {
	p := w.p
	a := &p.journal.Append
	w.placed = p.placed.fresh()
	for _, r := range w.reqs {
		if planted.Is(planted.BufferReusedEarly) {
			r.Owner.Serialized(r)
		}
		for i := range r.Records {
			rec := &r.Records[i]
			if rec.at != toBeWritten {
				continue
			}
			var id uint32
			if rec.Partition != nil {
				id = rec.Partition.ID
			}
			rec.at = a.Add(rec.Kind, 0, id, rec.Base, rec.Payload)
			w.placed.add(rec)
		}
	}
	term := p.replicator.Term()
	index, err := p.replicator.Accept(term, a.Sum())
	if err != nil {
		w.drop(err)
		return
	}
	end := a.Seal(term, index, p.flushed.Load())
	w.placed.end, w.placed.ms, w.placed.epoch = end, a.LastTimestamp(), int32(term)
	for i := range w.undo {
		if rec := w.undo[i].rec; rec.Info.Idempotent() {
			rec.Partition.Seq.Settle(&rec.Info, end)
		}
	}
	for _, r := range w.reqs {
		for i := range r.Records {
			rec := &r.Records[i]
			if rec.Kind == journal.RecordCommand && rec.Err == nil {
				p.commands.add(rec)
			}
		}
	}
	w.hand(end)
}

// drop undoes a frame that was not accepted, newest record first.
func (w *writer) drop(err error) {
	for i := len(w.undo) - 1; i >= 0; i-- {
		u := &w.undo[i]
		u.rec.Partition.Next = u.next
		if u.rec.Info.Idempotent() {
			u.rec.Partition.Seq.Restore(u.saved)
		}
	}
	for _, undo := range slices.Backward(w.untxn) {
		w.p.catalog.Writing().Undo(undo)
	}
	w.p.journal.Append.Drop()
	w.refuse(w.reqs, err)
}

// hand makes the turn's requests pending callbacks, publishes end (0: nothing was written), and wakes who has work now.
func (w *writer) hand(end journal.Offset) {
	p := w.p
	var marks qos.Marks
	now := p.Now()
	for _, r := range w.reqs {
		r.Times.taken, r.Times.placed = w.taken, now
		if r.wrote() || r.end == pendingEnd {
			r.end = end
		}
		if !planted.Is(planted.BufferReusedEarly) || end == 0 {
			r.Owner.Serialized(r)
		}
		marks |= r.Marks
	}
	p.stats.observeTurn(w.reqs)
	due := p.respond.add(w.reqs)
	if end > 0 {
		p.placed.put(w.placed)
		p.written.Advance(end)
		p.replicated.Advance(p.replicator.Published(end))
		p.flush.written(end, marks&(qos.Flushed|qos.Committed|qos.Applied) != 0)
	}
	if due || end == 0 {
		p.respond.wake.set()
	}
}

// wrote says that at least one record of the request lies in the frame that was just made.
func (r *Request) wrote() bool {
	for i := range r.Records {
		if rec := &r.Records[i]; rec.at > 0 && rec.Err == nil {
			return true
		}
	}
	return false
}

// refuse answers requests of which nothing was written.
func (w *writer) refuse(reqs []*Request, err error) {
	w.p.respond.refuse(reqs, err)
}

// run loops over step and waits for what it asks for. It ends when stop is closed and the queue is empty, or at once after a disk error.
func (w *writer) run(stop <-chan struct{}) {
	p := w.p
	for {
		h := w.lockedStep()
		if h == holdNone {
			continue
		}
		if h == holdEmpty {
			select {
			case <-w.wake:
			case <-p.dead:
				return
			case <-stop:
				if p.admit.empty() {
					return
				}
			}
			continue
		}
		// Held up by another stage. The flag is raised first and then step looks again, so that a move in between is not missed.
		w.blocked.Store(true)
		if h = w.lockedStep(); h != holdNone && h != holdEmpty {
			p.respond.watchAdmission()
			select {
			case <-w.wake:
			case <-p.journal.Cache().Unpinned():
			case <-p.dead:
				return
			}
		}
		w.blocked.Store(false)
	}
}

func (w *writer) lockedStep() hold {
	w.running.Lock()
	defer w.running.Unlock()
	return w.step()
}

const (
	// onSubmitBytes is how much has to come at once for its submitter to write it: less would make a frame, and a wake-up of the flush goroutine, of every few requests.
	onSubmitBytes = 16 << 10
	// onSubmitTurns is how many turns a submitter runs at most, so that others who queue all the time do not keep it from its connections.
	onSubmitTurns = 16
)

// onSubmit queues requests whose payloads are lent, and runs turns on the submitter's goroutine, whose labels are ctx's, if enough has come and nobody else is at it. keep is called with those that are not written when it returns.
func (w *writer) onSubmit(ctx context.Context, reqs []*Request, keep func(*Request)) error {
	p, n := w.p, 0
	for _, r := range reqs {
		n += r.Bytes
	}
	if n < onSubmitBytes || w.blocked.Load() || !w.running.TryLock() {
		for _, r := range reqs {
			keep(r)
		}
		return p.Submit(reqs)
	}
	err := p.admit.push(reqs, true)
	if err == nil {
		pprof.SetGoroutineLabels(w.labels)
		w.submitterTurns()
		pprof.SetGoroutineLabels(ctx)
		p.admit.keepLent(reqs, keep)
	}
	w.running.Unlock()
	if !p.admit.empty() { // the stage is held up, or others' requests are left
		w.wake.set()
	}
	return err
}

// submitterTurns runs turns until nothing that was lent waits.
func (w *writer) submitterTurns() {
	for turns := 0; turns < onSubmitTurns && w.p.admit.lent.Load() > 0; turns++ {
		if w.step() != holdNone {
			return
		}
	}
}

// awaitSubmitter returns when none runs turns. The queue is closed, so that no other begins.
func (w *writer) awaitSubmitter() {
	w.running.Lock()
	defer w.running.Unlock()
}

// moved wakes the write goroutine if it is waiting for another stage.
func (w *writer) moved() {
	if w.blocked.Load() {
		w.wake.set()
	}
}
