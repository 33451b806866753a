// Package planted has the bugs that `go run ./scripts/torture planted` plants, one at a time, to see that the other tools find them.
//
// A build without the tag planted has none: Is is false, and the compiler leaves its branches out. A build with it has the one that the environment names.
package planted

// Bug is a way to lose data that somebody has made before.
type Bug string

// The bugs. Each stands beside the line that it spoils.
const (
	AckBeforeSync      Bug = "ack-before-sync"           // a request is answered when it is written, whatever its level asks for
	IgnoreSyncError    Bug = "ignore-sync-error"         // a failed write or sync is taken for one that went well
	NoDirectorySync    Bug = "no-directory-sync"         // a segment's name may be lost
	StaleFrames        Bug = "stale-frames"              // frames of a recycled segment's earlier life are believed
	ZerosAreFrames     Bug = "zeros-are-frames"          // zeros are taken for an empty frame
	CutInMidLog        Bug = "cut-in-mid-log"            // damage to acknowledged bytes is cut away like a torn tail
	CutWithoutZeroing  Bug = "cut-without-zeroing"       // what was cut stays on disk
	TailNotRewritten   Bug = "tail-not-rewritten"        // what recovery found may be in the page cache alone
	RetryBeforeItsTime Bug = "retry-before-its-original" // a duplicate is answered at once
	SequencesForgotten Bug = "sequences-forgotten"       // a restart forgets what producers sent
	AnsweredTwice      Bug = "answered-twice"            // a request's owner is told twice
	BufferReusedEarly  Bug = "buffer-reused-early"       // a request's memory is given back before it was copied
	FlushesShareABlock Bug = "flushes-share-a-block"     // two flushes that share a block land in the wrong order
	IndexAhead         Bug = "index-ahead"               // readers see what is not committed
	CommitBeforeSync   Bug = "commit-before-sync"        // a group's commit is answered before it is durable
	MarkerMissing      Bug = "marker-missing"            // a transaction's end misses a partition
)

// All is every bug, in the order above.
var All = []Bug{AckBeforeSync, IgnoreSyncError, NoDirectorySync, StaleFrames, ZerosAreFrames, CutInMidLog, CutWithoutZeroing, TailNotRewritten,
	RetryBeforeItsTime, SequencesForgotten, AnsweredTwice, BufferReusedEarly, FlushesShareABlock, IndexAhead, CommitBeforeSync, MarkerMissing}

// Variable is the environment variable that names the bug.
const Variable = "PLANTED_BUG"
