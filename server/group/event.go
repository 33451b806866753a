package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Ref says whom an answer is for: the event that it answers. 0 is nobody.
type Ref uint64

// Event is what happens to a group: one of the types below.
type Event interface{ event() }

// Answer is what an event came to, at once or later: of Join a JoinReply, of Sync a SyncReply, of Leave a LeaveReply, of the others a Reply; Tick and Gone have none.
type Answer struct {
	To   Ref
	Body any
}

// Protocol is one way to share partitions that a member knows, and what it says for it.
type Protocol struct {
	Name     string
	Metadata []byte
}

// Who names a member. Instance is empty for a dynamic one.
type Who struct {
	Member     string
	Instance   string
	Generation int32
}

// Join asks to be part of the next generation. It is answered when that begins.
type Join struct {
	Who
	NewID        string // for a member that has no id yet
	NeedsID      bool   // such a one gets its id first, and asks again with it (KIP-394)
	CanSkip      bool   // the client knows that a leader may have nothing to assign (KIP-814)
	ClientID     string
	Host         string
	ProtocolType string
	Protocols    []Protocol // the best first
	Session      time.Duration
	Rebalance    time.Duration // how long the others may take to join again
}

// JoinReply answers Join.
type JoinReply struct {
	Err            *kerr.Error // nil: it is part of Generation
	Generation     int32
	ProtocolType   string
	Protocol       string
	Leader         string
	Member         string
	SkipAssignment bool
	Members        []Joined // for the leader
}

// Joined is a member as the leader sees it.
type Joined struct {
	Member   string
	Instance string
	Metadata []byte
}

// Sync asks for the member's part; the leader's brings everybody's.
type Sync struct {
	Who
	ProtocolType *string // nil: it does not say
	Protocol     *string
	Assignments  map[string][]byte
}

// SyncReply answers Sync.
type SyncReply struct {
	Err          *kerr.Error
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// Heartbeat says that a member lives.
type Heartbeat struct{ Who }

// Leave takes members out.
type Leave struct{ Members []Who }

// LeaveReply answers Leave: one error for each member, in order.
type LeaveReply struct{ Errs []*kerr.Error }

// Commit asks whether a member may commit offsets now. One that names neither member nor generation is no member, and may only while there are none. Of is what it commits, as far as a Consumer group has to know.
type Commit struct {
	Who
	Of []Partition
}

// CommitTxn is Commit for offsets of a transaction: from outside they may come while there are members, since the producer is checked by its epoch.
type CommitTxn struct {
	Who
	Of []Partition
}

// Delete asks whether the group may go; it may while it has no members.
type Delete struct{}

// Tick has the group look at its timeouts.
type Tick struct{}

// Gone says that nobody waits for the answer to an event any more: the connection ended.
type Gone struct{ Ref Ref }

// Reply answers the other events.
type Reply struct{ Err *kerr.Error }

func (Join) event()      {}
func (Sync) event()      {}
func (Heartbeat) event() {}
func (Leave) event()     {}
func (Commit) event()    {}
func (CommitTxn) event() {}
func (Delete) event()    {}
func (Tick) event()      {}
func (Gone) event()      {}
