package catalog

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"tidemark/journal"
	"tidemark/qos"
)

// Command is one change of the catalog. Exactly one field is set. It is encoded as CBOR with integer keys, which never change their meaning.
type Command struct {
	CreateTopic      *CreateTopic      `cbor:"1,keyasint,omitempty"`
	DeleteTopic      *DeleteTopic      `cbor:"2,keyasint,omitempty"`
	CreatePartitions *CreatePartitions `cbor:"3,keyasint,omitempty"`
	DeleteRecords    *DeleteRecords    `cbor:"4,keyasint,omitempty"`
	AllotProducerIDs *AllotProducerIDs `cbor:"5,keyasint,omitempty"`
	SetPolicy        *SetPolicy        `cbor:"6,keyasint,omitempty"`
	UnsetPolicy      *UnsetPolicy      `cbor:"7,keyasint,omitempty"`
	AlterTopic       *AlterTopic       `cbor:"8,keyasint,omitempty"`
	CommitOffsets    *CommitOffsets    `cbor:"9,keyasint,omitempty"`
	DeleteOffsets    *DeleteOffsets    `cbor:"10,keyasint,omitempty"`
	DeleteGroup      *DeleteGroup      `cbor:"11,keyasint,omitempty"`
	InitTxn          *InitTxn          `cbor:"12,keyasint,omitempty"`
	AddTxnOffsets    *AddTxnOffsets    `cbor:"13,keyasint,omitempty"`
	EndTxn           *EndTxn           `cbor:"14,keyasint,omitempty"`
	ForgetTxn        *ForgetTxn        `cbor:"15,keyasint,omitempty"`
}

// TopicID is a topic's random UUID. A topic that is created again gets a new one.
type TopicID [16]byte

// CreateTopic makes a topic. The random id comes with the command, so that all who apply it agree.
type CreateTopic struct {
	Name       string            `cbor:"1,keyasint"`
	ID         TopicID           `cbor:"2,keyasint"`
	Partitions int32             `cbor:"3,keyasint"`
	Config     map[string]string `cbor:"4,keyasint,omitempty"`
}

// DeleteTopic removes a topic; its id keeps a later topic of the same name safe.
type DeleteTopic struct {
	ID TopicID `cbor:"1,keyasint"`
}

// CreatePartitions raises a topic's partition count to Count.
type CreatePartitions struct {
	ID    TopicID `cbor:"1,keyasint"`
	Count int32   `cbor:"2,keyasint"`
}

// DeleteRecords raises a partition's log start to Before.
type DeleteRecords struct {
	Partition uint32                `cbor:"1,keyasint"`
	Before    journal.LogicalOffset `cbor:"2,keyasint"`
}

// AllotProducerIDs takes a block of Count producer ids that nobody else will get.
type AllotProducerIDs struct {
	Count int32 `cbor:"1,keyasint"`
}

// SetPolicy puts a QoS policy in place of the one of its name. Initially, it does so only if no policy of that name was ever set: a restart with the same file takes nothing back.
type SetPolicy struct {
	Policy    qos.Policy `cbor:"1,keyasint"`
	Initially bool       `cbor:"2,keyasint,omitempty"`
}

// UnsetPolicy takes a QoS policy away.
type UnsetPolicy struct {
	Name string `cbor:"1,keyasint"`
}

// AlterTopic changes a topic's settings: those of Set get a value, those of Unset fall back to the server's.
type AlterTopic struct {
	ID    TopicID           `cbor:"1,keyasint"`
	Set   map[string]string `cbor:"2,keyasint,omitempty"`
	Unset []string          `cbor:"3,keyasint,omitempty"`
}

// CommitOffsets notes how far a consumer group has read. Topics that are gone when it is applied are left out.
type CommitOffsets struct {
	Group  string         `cbor:"1,keyasint"`
	AtMs   int64          `cbor:"2,keyasint"`
	Topics []TopicOffsets `cbor:"3,keyasint"`
}

// TopicOffsets is how far a group has read of one topic.
type TopicOffsets struct {
	ID         TopicID           `cbor:"1,keyasint"`
	Partitions []PartitionOffset `cbor:"2,keyasint"`
}

// PartitionOffset is how far a group has read of one partition: the offset that it reads next.
type PartitionOffset struct {
	Index       int32  `cbor:"1,keyasint"`
	Offset      int64  `cbor:"2,keyasint"`
	LeaderEpoch int32  `cbor:"3,keyasint"` // −1: not said
	Metadata    string `cbor:"4,keyasint,omitempty"`
}

// DeleteOffsets takes offsets away that a group committed, those that are no newer than UntilMs; 0: however new.
type DeleteOffsets struct {
	Group   string            `cbor:"1,keyasint"`
	UntilMs int64             `cbor:"2,keyasint,omitempty"`
	Topics  []TopicPartitions `cbor:"3,keyasint"`
}

// TopicPartitions names partitions of one topic.
type TopicPartitions struct {
	ID         TopicID `cbor:"1,keyasint"`
	Partitions []int32 `cbor:"2,keyasint"`
}

// DeleteGroup takes all that a group committed away.
type DeleteGroup struct {
	Group string `cbor:"1,keyasint"`
}

// Result is what a command came to.
type Result struct {
	Err             error  // one of the errors below, or of package qos
	Topic           *Topic // CreateTopic, CreatePartitions
	FirstProducerID int64  // AllotProducerIDs
}

// Why a command came to nothing.
var (
	ErrTopicExists      = errors.New("topic exists already")
	ErrUnknownTopic     = errors.New("no such topic")
	ErrUnknownPartition = errors.New("no such partition")
	ErrPartitionCount   = errors.New("a topic's partition count can only grow")
	ErrOffsetRange      = errors.New("offset is outside of the partition's log start and high watermark")
	ErrTooMany          = errors.New("partition limit reached")
	ErrUnknownGroup     = errors.New("no such consumer group")
	ErrUnknownProducer  = errors.New("no transactional producer has this id")
	ErrTxnState         = errors.New("the transaction has ended the other way")
	ErrTxnChanged       = errors.New("the transaction has changed meanwhile")
	ErrTxnBytes         = errors.New("transactions hold all the memory that they may")
	ErrOffsetsBytes     = errors.New("committed offsets hold all the memory that they may")
)

var decoder = func() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 24, MaxNestedLevels: 16}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// Encode lays the command out as a journal record's payload.
func (c Command) Encode() []byte {
	b, err := cbor.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("catalog: command %+v: %v", c, err)) // plain structs always encode
	}
	return b
}

// DecodeCommand reads a payload and refuses one that is not exactly one known command.
func DecodeCommand(b []byte) (Command, error) {
	var c Command
	if err := decoder.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("catalog command: %w", err)
	}
	n := 0
	for _, set := range []bool{c.CreateTopic != nil, c.DeleteTopic != nil, c.CreatePartitions != nil, c.DeleteRecords != nil, c.AllotProducerIDs != nil,
		c.SetPolicy != nil, c.UnsetPolicy != nil, c.AlterTopic != nil,
		c.CommitOffsets != nil, c.DeleteOffsets != nil, c.DeleteGroup != nil, c.InitTxn != nil, c.AddTxnOffsets != nil, c.EndTxn != nil, c.ForgetTxn != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return c, fmt.Errorf("catalog command: %d known commands in one record", n)
	}
	if t := c.CreateTopic; t != nil && (t.Partitions < 1 || t.Partitions > MaxPartitions || t.Name == "") {
		return c, fmt.Errorf("catalog command: topic %q with %d partitions", t.Name, t.Partitions)
	}
	if x := c.InitTxn; x != nil && (x.ID == "" || x.ProducerID < 0 || x.Epoch < 0) {
		return c, fmt.Errorf("catalog command: transactional id %q with producer %d, epoch %d", x.ID, x.ProducerID, x.Epoch)
	}
	if x := c.EndTxn; x != nil && (x.NewProducerID < 0 || x.NewEpoch < 0) {
		return c, fmt.Errorf("catalog command: producer %d goes on as %d, epoch %d", x.ProducerID, x.NewProducerID, x.NewEpoch)
	}
	o := c.CommitOffsets
	if c.AddTxnOffsets != nil {
		o = &c.AddTxnOffsets.Offsets
	}
	if o != nil {
		for _, t := range o.Topics {
			for _, p := range t.Partitions {
				if p.Offset < 0 || p.Index < 0 {
					return c, fmt.Errorf("catalog command: group %q commits offset %d of partition %d", o.Group, p.Offset, p.Index)
				}
			}
		}
	}
	if a := c.AllotProducerIDs; a != nil && a.Count < 1 {
		return c, fmt.Errorf("catalog command: %d producer ids", a.Count)
	}
	return c, nil
}

// MaxPartitions bounds the partitions of all topics together: each costs memory in every stage.
const MaxPartitions = 200_000

// String names the command and what it is about, for people.
func (c Command) String() string {
	switch {
	case c.CreateTopic != nil:
		return fmt.Sprintf("create-topic name=%s partitions=%d id=%x", c.CreateTopic.Name, c.CreateTopic.Partitions, c.CreateTopic.ID)
	case c.DeleteTopic != nil:
		return fmt.Sprintf("delete-topic id=%x", c.DeleteTopic.ID)
	case c.CreatePartitions != nil:
		return fmt.Sprintf("create-partitions id=%x count=%d", c.CreatePartitions.ID, c.CreatePartitions.Count)
	case c.DeleteRecords != nil:
		return fmt.Sprintf("delete-records partition=%d before=%d", c.DeleteRecords.Partition, c.DeleteRecords.Before)
	case c.AllotProducerIDs != nil:
		return fmt.Sprintf("allot-producer-ids count=%d", c.AllotProducerIDs.Count)
	case c.SetPolicy != nil:
		p := &c.SetPolicy.Policy
		return fmt.Sprintf("set-policy name=%q for %s: %s", p.Name, p.Match(), strings.Join(p.Said(), " "))
	case c.UnsetPolicy != nil:
		return fmt.Sprintf("unset-policy name=%q", c.UnsetPolicy.Name)
	case c.AlterTopic != nil:
		return fmt.Sprintf("alter-topic id=%x set=%v unset=%v", c.AlterTopic.ID, c.AlterTopic.Set, c.AlterTopic.Unset)
	case c.CommitOffsets != nil:
		return fmt.Sprintf("commit-offsets group=%q at=%d %v", c.CommitOffsets.Group, c.CommitOffsets.AtMs, c.CommitOffsets.Topics)
	case c.DeleteOffsets != nil:
		return fmt.Sprintf("delete-offsets group=%q until=%d %v", c.DeleteOffsets.Group, c.DeleteOffsets.UntilMs, c.DeleteOffsets.Topics)
	case c.DeleteGroup != nil:
		return fmt.Sprintf("delete-group group=%q", c.DeleteGroup.Group)
	case c.InitTxn != nil:
		return fmt.Sprintf("init-txn id=%q producer=%d epoch=%d", c.InitTxn.ID, c.InitTxn.ProducerID, c.InitTxn.Epoch)
	case c.AddTxnOffsets != nil:
		return fmt.Sprintf("add-txn-offsets producer=%d epoch=%d group=%q %v", c.AddTxnOffsets.ProducerID, c.AddTxnOffsets.Epoch, c.AddTxnOffsets.Offsets.Group, c.AddTxnOffsets.Offsets.Topics)
	case c.EndTxn != nil:
		return fmt.Sprintf("end-txn producer=%d epoch=%d commit=%v partitions=%v", c.EndTxn.ProducerID, c.EndTxn.Epoch, c.EndTxn.Commit, c.EndTxn.Partitions)
	case c.ForgetTxn != nil:
		return fmt.Sprintf("forget-txn id=%q", c.ForgetTxn.ID)
	}
	return "no command"
}
