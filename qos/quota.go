package qos

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a quota counts.
type Kind uint8

// What quotas count.
const (
	ProduceBytes Kind = iota // of record batches that a client sends
	FetchBytes               // of record batches that it is sent
	Requests
)

// Quotas are the token buckets of all clients: one for each kind, policy, principal and client id. A bucket holds at most a second of its rate. A request is served first and paid for then, so a bucket may be in debt; who is in debt waits. Any goroutine.
type Quotas struct {
	mu      sync.Mutex
	buckets map[bucketKey]*bucket // guarded by mu
	debts   map[debtor][]string   // policies whose bucket was in debt when it was looked at last; guarded by mu
	counts  sync.Map              // policy name to *QuotaCounts

	sweepAt int // guarded by mu: how many buckets there may be before the full ones are dropped
}

type bucketKey struct {
	kind                      Kind
	policy, principal, client string
}

type debtor struct {
	kind              Kind
	principal, client string
}

type bucket struct {
	tokens float64 // below 0: debt
	rate   int64   // a second
	at     time.Duration
}

// QuotaCounts are what a policy's rates did since the start.
type QuotaCounts struct {
	Throttled atomic.Int64 // requests after which their client had to wait
	Waits     atomic.Int64 // nanoseconds that they had to wait, together
}

// maxWait is the longest that a client is told to wait at once; what it still owes then it waits for again.
const maxWait = time.Hour

// sweepLeast is how many buckets are kept before full ones are looked for. A full bucket is the same as none.
const sweepLeast = 4096

// NewQuotas is a set of full buckets.
func NewQuotas() *Quotas {
	return &Quotas{buckets: make(map[bucketKey]*bucket), debts: make(map[debtor][]string), sweepAt: sweepLeast}
}

// Take takes n from a client's bucket and returns how long the client must wait until it is out of debt, 0 when it is not. now is a clock that never goes back.
func (q *Quotas) Take(kind Kind, limit Limit, principal, client string, n int, now time.Duration) time.Duration {
	if limit.Rate <= 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.bucket(bucketKey{kind, limit.Policy, principal, client}, limit.Rate, now)
	b.tokens -= float64(n)
	wait := b.wait()
	if who := (debtor{kind, principal, client}); wait > 0 && !slices.Contains(q.debts[who], limit.Policy) {
		q.debts[who] = append(q.debts[who], limit.Policy)
	}
	return wait
}

// Owes is how long a client has to wait before it is out of debt, by the rates that policies have now; what it owes to one that is gone is forgiven.
func (q *Quotas) Owes(kind Kind, set *Policies, principal, client string, now time.Duration) (wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	who := debtor{kind, principal, client}
	for _, policy := range slices.Clone(q.debts[who]) {
		key, w := bucketKey{kind, policy, principal, client}, time.Duration(0)
		if rate := set.Get(policy).rate(kind); rate > 0 {
			w = q.bucket(key, rate, now).wait()
		} else {
			delete(q.buckets, key)
		}
		if w == 0 {
			q.paid(who, policy)
		}
		wait = max(wait, w)
	}
	return wait
}

// rate is the policy's of a kind; 0: none.
func (p *Policy) rate(kind Kind) int64 {
	switch {
	case p == nil:
		return 0
	case kind == ProduceBytes:
		return int64(p.ProduceRate)
	case kind == FetchBytes:
		return int64(p.FetchRate)
	}
	return int64(p.RequestRate)
}

// Count notes that after a request its client had to wait for a policy's rate.
func (q *Quotas) Count(policy string, wait time.Duration) {
	if wait > 0 {
		c := q.Counts(policy)
		c.Throttled.Add(1)
		c.Waits.Add(int64(wait))
	}
}

// bucket finds a bucket, filled up to now.
func (q *Quotas) bucket(key bucketKey, rate int64, now time.Duration) *bucket {
	b := q.buckets[key]
	if b == nil {
		if len(q.buckets) >= q.sweepAt {
			q.sweep(now)
		}
		b = &bucket{tokens: float64(rate), rate: rate, at: now}
		q.buckets[key] = b
	}
	b.rate = rate
	b.fill(now)
	return b
}

func (q *Quotas) sweep(now time.Duration) {
	for key, b := range q.buckets {
		if b.fill(now); b.tokens >= float64(b.rate) {
			delete(q.buckets, key)
			q.paid(debtor{key.kind, key.principal, key.client}, key.policy)
		}
	}
	q.sweepAt = max(sweepLeast, 2*len(q.buckets))
}

// paid takes a policy off a client's debts.
func (q *Quotas) paid(who debtor, policy string) {
	left := slices.DeleteFunc(q.debts[who], func(p string) bool { return p == policy })
	if len(left) == 0 {
		delete(q.debts, who)
	} else {
		q.debts[who] = left
	}
}

func (b *bucket) fill(now time.Duration) {
	if now > b.at {
		b.tokens += float64(b.rate) * (now - b.at).Seconds()
		b.at = now
	}
	b.tokens = min(b.tokens, float64(b.rate))
}

func (b *bucket) wait() time.Duration {
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(min(-b.tokens/float64(b.rate), maxWait.Seconds()) * float64(time.Second))
}

// Forget drops the counts of a policy that is gone.
func (q *Quotas) Forget(policy string) { q.counts.Delete(policy) }

// Counts are a policy's.
func (q *Quotas) Counts(policy string) *QuotaCounts {
	if c, ok := q.counts.Load(policy); ok {
		return c.(*QuotaCounts)
	}
	c, _ := q.counts.LoadOrStore(policy, new(QuotaCounts))
	return c.(*QuotaCounts)
}
