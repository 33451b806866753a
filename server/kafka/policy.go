package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/pipeline"
	"tidemark/qos"
)

// What policies (package qos) do to requests. Without any policy none of this costs more than a look at the catalog's view.

// Policies is the newest set; nil when there are none.
func (b *Broker) Policies() *qos.Policies { return b.p.View().Policies }

// QuotaCounts are what the rates of a policy did.
func (b *Broker) QuotaCounts(policy string) *qos.QuotaCounts { return b.quotas.Counts(policy) }

// applyPolicies has what the policies say of a decoded Produce: its marks and deadline, and the time that its client has to wait. A request whose topics differ takes the union of their marks and the shortest of their deadlines. It is charged the batches that it brings to each topic; one that is refused, in part or as a whole, costs all of its bytes.
func (b *Broker) applyPolicies(c *Produce, set *qos.Policies, who *Client, body int, now time.Duration) (marks qos.Marks, deadline time.Duration) {
	var slowest string
	take := func(e *qos.Effective, bytes int) {
		if wait := b.quotas.Take(qos.ProduceBytes, e.Produce, who.Principal, who.ID, bytes, now); wait > c.Throttle {
			c.Throttle, slowest = wait, e.Produce.Policy
		}
	}
	refused := len(c.Request.Records) < len(c.parts)
	if refused || len(c.parts) == 0 {
		take(set.For(who.Principal, who.ID, ""), body)
	}
	next := 0
	for i := range c.topics {
		parts := c.parts[next : next+c.topics[i].parts]
		next += len(parts)
		bytes, topic := 0, ""
		for _, p := range parts {
			if p.record >= 0 {
				topic = p.part.Topic
				bytes += len(c.Request.Records[p.record].Payload)
			}
		}
		if topic == "" { // nothing of it is written
			continue
		}
		e := set.For(who.Principal, who.ID, topic)
		_, m, _ := e.Marks(c.Acks, b.cfg.Acks)
		marks |= m
		if d := time.Duration(e.Deadline); d > 0 && (deadline == 0 || d < deadline) {
			deadline = d
		}
		if !refused {
			take(e, bytes)
		}
	}
	b.quotas.Count(slowest, c.Throttle)
	return marks, deadline
}

// TakeRequest charges a client for a request and returns how long it has to wait.
func (b *Broker) TakeRequest(e *qos.Effective, who *Client, now time.Duration) time.Duration {
	wait := b.quotas.Take(qos.Requests, e.Requests, who.Principal, who.ID, 1, now)
	b.quotas.Count(e.Requests.Policy, wait)
	return wait
}

// Owes is how long a client has to wait before a request of this key may be served: what it had before, on any connection, is not paid for yet.
func (b *Broker) Owes(set *qos.Policies, who *Client, key int16, now time.Duration) time.Duration {
	wait := b.quotas.Owes(qos.Requests, set, who.Principal, who.ID, now)
	switch kmsg.Key(key) {
	case kmsg.Produce:
		wait = max(wait, b.quotas.Owes(qos.ProduceBytes, set, who.Principal, who.ID, now))
	case kmsg.Fetch:
		wait = max(wait, b.quotas.Owes(qos.FetchBytes, set, who.Principal, who.ID, now))
	}
	return wait
}

// chargeFetch charges a client for what a Fetch answer holds, and returns how long it has to wait.
func (b *Broker) chargeFetch(who *Client, parts []fetchPart) (wait time.Duration) {
	set := b.Policies()
	if set.Len() == 0 {
		return 0
	}
	now, slowest := b.p.Now(), ""
	for i := range parts {
		n := len(parts[i].resp.RecordBatches)
		if n == 0 {
			continue
		}
		e := set.For(who.Principal, who.ID, parts[i].part.Topic)
		if w := b.quotas.Take(qos.FetchBytes, e.Fetch, who.Principal, who.ID, n, now); w > wait {
			wait, slowest = w, e.Fetch.Policy
		}
	}
	b.quotas.Count(slowest, wait)
	return wait
}

// fetchAllowance is the most that a Fetch of these partitions may bring: a second of the lowest rate.
func (b *Broker) fetchAllowance(who *Client, parts []fetchPart, limit int) int {
	set := b.Policies()
	if set.Len() == 0 {
		return limit
	}
	for i := range parts {
		if parts[i].part == nil {
			continue
		}
		if rate := set.For(who.Principal, who.ID, parts[i].part.Topic).Fetch.Rate; rate > 0 {
			limit = int(min(int64(limit), rate))
		}
	}
	return limit
}

// SetThrottle tells the client in its response that it has to wait, and returns the longer of that and of what the response said.
func SetThrottle(resp kmsg.Response, wait time.Duration) time.Duration {
	r, ok := resp.(interface {
		kmsg.ThrottleResponse
		kmsg.SetThrottleResponse
	})
	if !ok {
		return wait
	}
	ms, _ := r.Throttle()
	if wait = max(wait, millis(ms)); wait > 0 {
		r.SetThrottle(throttleMillis(wait))
	}
	return wait
}

// throttleMillis rounds up: a client that waits as long as it is told has waited long enough.
func throttleMillis(wait time.Duration) int32 {
	return int32((wait + time.Millisecond - 1) / time.Millisecond)
}

// SetPolicy makes a policy the catalog's, and returns when that is applied. Initially: only if none of its name was ever set; one that was is no error.
func SetPolicy(ctx context.Context, p *pipeline.Pipeline, policy qos.Policy, initially bool, timeout time.Duration) error {
	if err := policy.Validate(); err != nil {
		return err
	}
	err := p.Command(ctx, catalog.Command{SetPolicy: &catalog.SetPolicy{Policy: policy, Initially: initially}}, nil, timeout).Err
	if initially && errors.Is(err, qos.ErrPolicyKnown) {
		return nil
	}
	return err
}

// SetPolicy is the function of that name, for a policy that somebody sets now, if allowed has nothing against it: it is shown the one of that name, or nil.
func (b *Broker) SetPolicy(ctx context.Context, policy qos.Policy, allowed func(have *qos.Policy) error) error {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	if err := allowed(b.Policies().Get(policy.Name)); err != nil {
		return err
	}
	return b.setPolicy(ctx, policy)
}

// UnsetPolicy takes a policy away, and returns when that is applied.
func (b *Broker) UnsetPolicy(ctx context.Context, name string) error {
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	return b.unsetPolicy(ctx, name)
}

// setPolicy and unsetPolicy wait also when nobody waits for them any more: who changes policies next has to see what came of it. policyMu is held.
func (b *Broker) setPolicy(ctx context.Context, policy qos.Policy) error {
	return SetPolicy(context.WithoutCancel(ctx), b.p, policy, false, b.cfg.CommandTimeout)
}

func (b *Broker) unsetPolicy(ctx context.Context, name string) error {
	if _, err := b.Policies().Without(name); err != nil {
		return err
	}
	err := b.p.Command(context.WithoutCancel(ctx), catalog.Command{UnsetPolicy: &catalog.UnsetPolicy{Name: name}}, nil, b.cfg.CommandTimeout).Err
	if err == nil {
		b.quotas.Forget(name)
	}
	return err
}
