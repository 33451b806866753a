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
	return p.SubmitCommand(cmd, labels, timeout).Wait(ctx)
}

// SubmitCommand is Command's first half: it does not block. Commands of one turn are carried out in the order in which they were submitted. Batches come into the same frame, or, if the command is refused, nowhere.
func (p *Pipeline) SubmitCommand(cmd catalog.Command, labels *Labels, timeout time.Duration, batches ...Record) *PendingCommand {
	payload := cmd.Encode()
	if _, err := catalog.DecodeCommand(payload); err != nil { // it would end this process, and every later one, when it is applied
		return &PendingCommand{refused: fmt.Errorf("%w: %w", ErrCommand, err)}
	}
	w := &PendingCommand{done: make(chan struct{})}
	w.req = Request{
		Marks: qos.All.Marks() | qos.Applied, Level: qos.All, Bytes: len(payload),
		Records: append([]Record{{Kind: journal.RecordCommand, Payload: payload, Command: &cmd}}, batches...), Owner: w, Labels: labels,
	}
	for i := range batches {
		w.req.Bytes += len(batches[i].Payload)
	}
	if timeout > 0 {
		w.req.Deadline = p.Now() + timeout
	}
	w.refused = p.Submit([]*Request{&w.req})
	return w
}

// Wait is Command's second half, to be called once.
func (w *PendingCommand) Wait(ctx context.Context) catalog.Result {
	if w.refused != nil {
		return catalog.Result{Err: w.refused}
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

// PendingCommand owns a command's request.
type PendingCommand struct {
	req     Request
	done    chan struct{}
	refused error // it was not submitted
}

// Serialized keeps the payload: nobody uses it again.
func (w *PendingCommand) Serialized(*Request) {}

// Answer ends the wait.
func (w *PendingCommand) Answer(*Request) Waker {
	close(w.done)
	return nil
}
