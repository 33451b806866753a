package pipeline

import (
	"context"
	"sync"

	"tidemark/catalog"
)

// asks are functions that want to look at what only the follow goroutine may touch. In: ask, from any goroutine. Out: answer, by the follow goroutine.
type asks struct {
	mu  sync.Mutex
	fns []func() // guarded by mu
}

func (a *asks) ask(fn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fns = append(a.fns, fn)
}

func (a *asks) answer() {
	a.mu.Lock()
	fns := a.fns
	a.fns = nil
	a.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Producers are the idempotent producers that a partition knows, as of applied. Not ok: ctx ended, or the pipeline did.
func (p *Pipeline) Producers(ctx context.Context, part *catalog.Partition) (known []catalog.Known, ok bool) {
	found := make(chan []catalog.Known, 1)
	p.follow.asks.ask(func() { found <- part.Producers() })
	p.follow.wake.set()
	select {
	case known = <-found:
		return known, true
	case <-ctx.Done():
	case <-p.dead:
	}
	return nil, false
}
