package pipeline

import (
	"errors"

	"tidemark/journal"
)

// Replicator is what the pipeline needs of replication. A cluster's is Raft over the journal; a single node's is below.
type Replicator interface {
	// Term is the term in which this node writes.
	Term() journal.Term
	// Accept takes a frame into the log at the next index, before it is published. On error the frame is dropped. Write goroutine only.
	Accept(term journal.Term, d journal.Descriptor) (journal.Index, error)
	// Published says that written has moved to end; what a majority holds in memory comes back. Write goroutine only.
	Published(end journal.Offset) (replicated journal.Offset)
	// Synced says that flushed has moved; what a majority has synced comes back. Flush goroutine only.
	Synced(flushed journal.Offset) (committed journal.Offset)
}

// ErrTerm says that a frame was built in a term that is over.
var ErrTerm = errors.New("pipeline: the term is not current")

// single is the Replicator of a node alone: a majority is one, so what is written is replicated, and what is flushed is committed.
type single struct {
	term  journal.Term
	index journal.Index // write goroutine only
}

func (s *single) Term() journal.Term { return s.term }

func (s *single) Accept(term journal.Term, _ journal.Descriptor) (journal.Index, error) {
	if term != s.term {
		return 0, ErrTerm
	}
	s.index++
	return s.index, nil
}

func (s *single) Published(end journal.Offset) journal.Offset { return end }

func (s *single) Synced(flushed journal.Offset) journal.Offset { return flushed }
