package pipeline

import (
	"context"
	"fmt"
	"time"

	"tidemark/catalog"
	"tidemark/journal"
	"tidemark/qos"
)

// Command has the catalog carry cmd out, at level ALL and behind what the labels' turn has queued before, and waits until it is applied. When ctx ends first the command goes on, and the result is ErrTimedOut. A timeout of 0 is none.
func (p *Pipeline) Command(ctx context.Context, cmd catalog.Command, labels *Labels, timeout time.Duration) catalog.Result {
	payload := cmd.Encode()
	if _, err := catalog.DecodeCommand(payload); err != nil { // it would end this process, and every later one, when it is applied
		return catalog.Result{Err: fmt.Errorf("%w: %w", ErrCommand, err)}
	}
	w := &commandWait{done: make(chan struct{})}
	w.req = Request{
		Marks: qos.All.Marks() | qos.Applied, Level: qos.All, Bytes: len(payload),
		Records: []Record{{Kind: journal.RecordCommand, Payload: payload}}, Owner: w, Labels: labels,
	}
	if timeout > 0 {
		w.req.Deadline = p.Now() + timeout
	}
	if err := p.Submit([]*Request{&w.req}); err != nil {
		return catalog.Result{Err: err}
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return catalog.Result{Err: ErrTimedOut}
	}
	if w.req.Err != nil {
		return catalog.Result{Err: w.req.Err}
	}
	if err := w.req.Records[0].Err; err != nil {
		return catalog.Result{Err: err}
	}
	return *w.req.Records[0].Result
}

// commandWait owns a command's request.
type commandWait struct {
	req  Request
	done chan struct{}
}

// Serialized keeps the payload: nobody uses it again.
func (w *commandWait) Serialized(*Request) {}

// Answer ends the wait.
func (w *commandWait) Answer(*Request) Waker {
	close(w.done)
	return nil
}
