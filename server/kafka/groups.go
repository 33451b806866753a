package kafka

import (
	"context"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/catalog"
	"tidemark/pipeline"
	"tidemark/server/group"
)

// GroupConfig is what consumer groups are told.
type GroupConfig struct {
	InitialDelay    time.Duration // how long a group's first generation waits for more members
	Heartbeat       time.Duration // how often members of groups of KIP-848 are to send one
	Session         time.Duration // and how long they may send none
	MinSession      time.Duration // session timeouts that clients may ask for
	MaxSession      time.Duration
	Members         int           // of one group
	MemoryBytes     int64         // of all members
	OffsetRetention time.Duration // offsets are forgotten so long after their group has no members, or after they were committed if that was later; 0: never
}

func (b *Broker) newCoordinator() *group.Coordinator {
	return group.NewCoordinator(group.Config{
		Limits: group.Limits{InitialDelay: b.cfg.Group.InitialDelay, Members: b.cfg.Group.Members, Session: b.cfg.Group.Session},
		Bytes:  b.cfg.Group.MemoryBytes, Now: b.p.Now, Keeps: b.p.Groups().Has,
	})
}

// errCode is 0 for nil.
func errCode(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}

// groupIDMax is what a group's name may have, bytes: old versions of ListGroups cannot name a longer one than 32,767.
const groupIDMax = 1024

// groupIDError: a group that has members has a name, which is UTF-8.
func groupIDError(name string) *kerr.Error {
	if name == "" || len(name) > groupIDMax || !utf8.ValidString(name) {
		return kerr.InvalidGroupID
	}
	return nil
}

// instance is a static member's name; empty for a dynamic one.
func instance(id *string) string {
	if id == nil {
		return ""
	}
	return *id
}

// submitGroup hands in a command of a group. All of a group take turns at admission under one name, so they are carried out in the order in which they were submitted.
func (b *Broker) submitGroup(c *Client, name string, cmd catalog.Command) *pipeline.PendingCommand {
	return b.p.SubmitCommand(cmd, &pipeline.Labels{ClientID: c.ID, Turn: "group\x00" + name}, b.cfg.CommandTimeout)
}

// groupCode is what a group's client is told of a command that came to nothing: clients look for a coordinator anew, and try again.
func groupCode(err error) int16 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, pipeline.ErrClosed), errors.Is(err, pipeline.ErrTerm):
		return kerr.NotCoordinator.Code
	case errors.Is(err, pipeline.ErrBusy), errors.Is(err, pipeline.ErrExpired), errors.Is(err, pipeline.ErrTimedOut), errors.Is(err, pipeline.ErrNoSpace), errors.Is(err, pipeline.ErrFailed):
		return kerr.CoordinatorNotAvailable.Code
	case errors.Is(err, pipeline.ErrTooLarge):
		return kerr.InvalidCommitOffsetSize.Code
	}
	return Code(err)
}

// expireEvery is how often offsets are looked at that may have expired.
const expireEvery = 10 * time.Minute

// ExpireOffsets forgets, until ctx ends, the offsets of groups that have had no members for the retention, as Kafka does: those that are older than it themselves. A start of the node begins the time of a group anew that has no members since.
func (b *Broker) ExpireOffsets(ctx context.Context) {
	every := expireEvery
	if keep := b.cfg.Group.OffsetRetention; keep > 0 {
		every = min(every, keep)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	started := b.p.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.groups.Sweep()
		if b.cfg.Group.OffsetRetention == 0 {
			continue
		}
		for _, name := range b.p.Groups().Names() {
			since, empty := b.groups.EmptySince(name)
			if idle := b.p.Now() - max(since, started); empty && idle >= b.cfg.Group.OffsetRetention {
				b.expire(ctx, name, time.Now().Add(-b.cfg.Group.OffsetRetention).UnixMilli())
			}
		}
	}
}

// expire forgets a group's offsets that were committed at untilMs or before.
func (b *Broker) expire(ctx context.Context, name string, untilMs int64) {
	cmd := &catalog.DeleteOffsets{Group: name, UntilMs: untilMs}
	for id, parts := range b.p.Groups().All(name) {
		t := catalog.TopicPartitions{ID: id}
		for index, at := range parts {
			if at.AtMs <= untilMs {
				t.Partitions = append(t.Partitions, index)
			}
		}
		if len(t.Partitions) > 0 {
			slices.Sort(t.Partitions)
			cmd.Topics = append(cmd.Topics, t)
		}
	}
	if len(cmd.Topics) == 0 {
		return
	}
	var pending *pipeline.PendingCommand
	if err := b.groups.Commit(name, group.Who{Generation: -1}, nil, func() { // refused if it has members by now
		pending = b.submitGroup(&Client{}, name, catalog.Command{DeleteOffsets: cmd})
	}); err != nil {
		return
	}
	pending.Wait(ctx)
	b.groups.Forget(name)
}
