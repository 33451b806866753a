package pipeline

import (
	"sync"

	"tidemark/catalog"
	"tidemark/journal"
)

// apply carries a committed command out and gives its result to the request that waits for it, if it came from here. A command that does not decode was written by a newer
// version or is a bug; going on without it would make this node's catalog another one, so it is fatal.
func (f *follower) apply(r journal.Record) error {
	cmd, err := catalog.DecodeCommand(r.Payload)
	if err != nil {
		return err
	}
	result := f.p.catalog.Apply(cmd)
	if f.live && result.Err == nil {
		switch {
		case cmd.SetPolicy != nil:
			f.p.event(PolicyChanged{Name: cmd.SetPolicy.Policy.Name, Policy: &cmd.SetPolicy.Policy})
		case cmd.UnsetPolicy != nil:
			f.p.event(PolicyChanged{Name: cmd.UnsetPolicy.Name})
		}
	}
	if cmd.DeleteTopic != nil && result.Err == nil {
		for _, part := range result.Topic.Partitions {
			f.p.index.Forget(part.ID)
			delete(f.known, part.ID)
		}
	}
	f.p.commands.done(r.At, result)
	return nil
}

// commands are those that were written here and are not yet applied, by their place in the stream. The write goroutine adds one before it is published, the follow goroutine takes it.
type commands struct {
	mu sync.Mutex
	m  map[journal.Offset]*Record // guarded by mu
}

func (c *commands) add(rec *Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[journal.Offset]*Record)
	}
	c.m[rec.at] = rec
}

// done hands a result over. The record is its request's until applied has moved past it, unless the request's deadline came first: forget takes it out then.
func (c *commands) done(at journal.Offset, result catalog.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rec := c.m[at]; rec != nil {
		rec.Result = &result
		delete(c.m, at)
	}
}

// forget takes a request's commands out: it is about to be answered.
func (c *commands) forget(r *Request) {
	for i := range r.Records {
		if r.Records[i].Kind != journal.RecordCommand {
			continue
		}
		c.mu.Lock()
		delete(c.m, r.Records[i].at)
		c.mu.Unlock()
	}
}
