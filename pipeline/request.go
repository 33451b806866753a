package pipeline

import (
	"errors"
	"time"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
	"tidemark/qos"
)

// Request is what goes through the pipeline as one: its records lie in one frame and are answered together. One goroutine owns it at a time: who submits it, then
// the admission queue, the write stage, the pending callbacks, and, with Answer, its owner again.
type Request struct {
	// set before Submit
	Marks    qos.Marks     // what must have passed its end before it is answered
	Level    qos.Level     // for statistics
	Deadline time.Duration // on the pipeline's clock (Now); 0: none
	Bytes    int           // memory that it holds until it is serialized
	Records  []Record
	Owner    Owner
	Labels   *Labels // whose it is; nil: nobody's that a profile would name
	Times    Times

	// set by the pipeline before Answer
	Err error // the whole request came to nothing: ErrBusy, ErrTimedOut, ErrNoSpace, ErrTooLarge, ErrFailed or ErrClosed

	end  journal.Offset // of the frame that its answer waits for
	body int            // room that its records take in a frame; set by Submit
	lent bool           // it waits, and its payloads are the submitter's; guarded by the admission queue's lock
}

// Record is one record of a request, and what came of it.
type Record struct {
	// set before Submit
	Kind      journal.RecordKind
	Partition *catalog.Partition // nil for a command
	Payload   []byte             // the batch (the write goroutine patches it) or the command; the owner's again at Serialized
	Info      batch.Info         // of a batch
	Command   *catalog.Command   // what the payload of a command says

	// set by the pipeline before Answer
	Err    error                 // this record alone was refused, and nothing of it was written
	Base   journal.LogicalOffset // of a batch: its own, or the original's when it is a retry
	Result *catalog.Result       // of a command

	at journal.Offset
}

// Owner takes requests back. Its methods must not block.
type Owner interface {
	// Serialized says that the payloads were copied, so that their buffer is free. It is called once before Answer, by the write stage; not for a request that was refused.
	Serialized(*Request)
	// Answer gives the request back: exactly once for each, from the respond stage, which may run on the flush goroutine. What it returns, if not nil, is woken once at the end of the turn.
	Answer(*Request) Waker
}

// Waker is told that a turn in which it asked for it has ended. Wake must not block.
type Waker interface{ Wake() }

// Why a whole request came to nothing.
var (
	ErrBusy     = errors.New("pipeline: admission is full; nothing was written")
	ErrTimedOut = errors.New("pipeline: the deadline passed; the request was written and may still become durable")
	ErrExpired  = errors.New("pipeline: the deadline passed before the request was written")
	ErrNoSpace  = errors.New("pipeline: no disk space for another segment; nothing was written")
	ErrTooLarge = errors.New("pipeline: the request does not fit a frame; nothing was written")
	ErrFailed   = errors.New("pipeline: the disk failed; nothing is acknowledged any more")
	ErrClosed   = errors.New("pipeline: shutting down; nothing was written")
)

// ErrCommand says that a command was not written, since it could not be read back.
var ErrCommand = errors.New("pipeline: the command cannot be read back; nothing was written")

// ErrDeleted says that a record's partition went away before it was written.
var ErrDeleted = errors.New("pipeline: the partition was deleted")

// bodyBytes is the room that the request's records take in a frame.
func (r *Request) bodyBytes() int {
	n := 0
	for i := range r.Records {
		n += journal.RecordBytes(len(r.Records[i].Payload))
	}
	return n
}
