package journal

import "fmt"

// Offset is a byte position in a journal's stream, counted from the journal's first byte ever. Every end is exclusive.
type Offset int64

// Index numbers frames as Raft numbers entries: 1 is the first; fillers have none of their own.
type Index uint64

// Term is Raft's term: it grows with every start or change of leader and never goes back.
type Term uint64

// LogicalOffset is a record's position in its partition, as Kafka counts it.
type LogicalOffset int64

// Align is the alignment, in bytes, of frames in the stream and of records in a frame.
const Align = 8

func alignUp(n int) int { return (n + Align - 1) &^ (Align - 1) }

func roundDown(o Offset, unit int64) Offset { return o - o%Offset(unit) }

func roundUp(o Offset, unit int64) Offset { return roundDown(o+Offset(unit)-1, unit) }

// CorruptError says that bytes on disk are not what was written there.
type CorruptError struct {
	Segment Offset // start of the segment, or -1 when it is another file
	File    string // set when Segment is -1
	Offset  Offset // where in the stream (or in the file) the first wrong byte may be
	Cause   string
}

func (e *CorruptError) Error() string {
	if e.Segment < 0 {
		return fmt.Sprintf("corrupt %s at %d: %s", e.File, e.Offset, e.Cause)
	}
	return fmt.Sprintf("corrupt segment %020d at offset %d: %s", e.Segment, e.Offset, e.Cause)
}
