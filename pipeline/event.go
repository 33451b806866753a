package pipeline

import (
	"tidemark/catalog"
	"tidemark/journal"
	"tidemark/qos"
)

// Event is something that an operator may want to know. The server turns events into log lines; stages know no logger. It is called from
// any stage's goroutine and must not block.
type Event interface{ event() }

// SegmentReady says that a segment was named, so that frames can go up to End.
type SegmentReady struct{ End journal.Offset }

// SegmentsDropped says that retention moved log start to First.
type SegmentsDropped struct{ First journal.Offset }

// UpkeepFailed says that segments, index files or snapshots could not be written; it is tried again. Refusing: appends are refused until then.
type UpkeepFailed struct {
	Err      error
	Refusing bool
}

// UpkeepResumed says that the trouble is over.
type UpkeepResumed struct{}

// ReadMismatch says that the journal does not hold what the index says it should.
type ReadMismatch struct{ Err *MismatchError }

// ReadFailed says that the disk could not be read. What was acknowledged may still be there: the reader is told to try again.
type ReadFailed struct {
	Partition *catalog.Partition
	Err       error
}

// IndexRebuilt says that a segment's index file was missing or damaged and was made anew.
type IndexRebuilt struct {
	Segment journal.Offset
	Cause   error
}

// PolicyChanged says that a policy was set, or, with nil, taken away.
type PolicyChanged struct {
	Name   string
	Policy *qos.Policy
}

// Failed says that the disk failed: nothing is acknowledged any more.
type Failed struct{ Err error }

func (SegmentReady) event()    {}
func (SegmentsDropped) event() {}
func (UpkeepFailed) event()    {}
func (UpkeepResumed) event()   {}
func (ReadMismatch) event()    {}
func (ReadFailed) event()      {}
func (IndexRebuilt) event()    {}
func (PolicyChanged) event()   {}
func (Failed) event()          {}
