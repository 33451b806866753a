package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
)

// partition is the queue of one partition.
type partition struct {
	id       int32
	leader   int32 // node id, -1 while unknown
	open     *batch
	sequence int32 // of the next batch to be closed

	queue  []*batch // closed and not acknowledged, oldest first
	sent   int      // queue[:sent] went out since the last rewind
	flying int      // requests without an answer
	proven bool     // the broker acknowledged a batch on the present connection, so it checks sequences
	rewind bool     // a batch was refused: wait until flying is 0, then sent = 0

	backoff   time.Duration
	notBefore time.Time
	lastErr   error // why the last attempt failed
}

func (p *partition) unsent() int { return len(p.queue) - p.sent }

// ready is the batch to send now, or nil.
func (p *partition) ready(now time.Time, oneWay bool) *batch {
	if p.rewind && p.flying == 0 {
		p.rewind, p.sent = false, 0
	}
	if p.rewind || p.unsent() == 0 || now.Before(p.notBefore) {
		return nil
	}
	if !p.proven && p.flying > 0 && !oneWay {
		return nil
	}
	return p.queue[p.sent]
}

// refuse makes the partition start over after a pause.
func (p *partition) refuse(now time.Time, err error) {
	p.lastErr = err
	p.rewind = true
	p.backoff = min(max(2*p.backoff, backoffMin), backoffMax)
	p.notBefore = now.Add(p.backoff)
}

// link is one connection to one leader.
type link struct {
	node   int32
	conn   *kwire.Conn
	flying []flight // in the order of the requests, which is that of the responses
}

type flight struct {
	id  int32
	req *kmsg.ProduceRequest
	b   *batch
}

// linkEvent is a response or the end of a connection.
type linkEvent struct {
	link *link
	resp kwire.Response
	err  error
	at   time.Time
}

// linkTo is the connection to a partition's leader, dialled if there is none; nil when there is no leader or it does not answer.
func (p *producer) linkTo(part *partition, now time.Time) *link {
	addr, known := p.brokers[part.leader]
	if !known {
		p.stale = true
		if part.lastErr == nil {
			part.lastErr = fmt.Errorf("no leader: %w", kerr.LeaderNotAvailable)
		}
		return nil
	}
	if l := p.links[part.leader]; l != nil {
		return l
	}
	conn, err := p.flags.dialOne(context.Background(), addr)
	if err != nil {
		p.stale = true
		part.refuse(now, err)
		return nil
	}
	l := &link{node: part.leader, conn: conn}
	p.links[part.leader] = l
	p.readers.Go(func() { p.read(l) })
	return l
}

// read passes responses on until the connection ends.
func (p *producer) read(l *link) {
	for {
		resp, err := l.conn.Receive(context.Background())
		select {
		case p.events <- linkEvent{link: l, resp: resp, err: err, at: time.Now()}:
		case <-p.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// lost forgets a connection; what was in flight on it may have been stored, and goes out again under its old sequence.
func (p *producer) lost(l *link, now time.Time, err error) {
	l.conn.Close()
	delete(p.links, l.node)
	p.stale = true
	for _, f := range l.flying {
		f.b.part.flying--
		f.b.maybeStored = true
		if p.err != nil || p.stopping { // it will not be sent again, so nobody finds out
			p.uncertain += int64(f.b.records)
		}
	}
	for _, part := range p.parts {
		if part.leader == l.node {
			part.proven = false
			if len(part.queue) > 0 && !part.rewind {
				part.refuse(now, err)
			}
		}
	}
	l.flying = nil
}

// close ends the connections and waits for their readers.
func (p *producer) close() {
	close(p.done)
	for _, l := range p.links {
		l.conn.Close()
	}
	p.readers.Wait()
	if p.control != nil {
		p.control.Close()
	}
}
