package kafka

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/qos"
)

// DescribeClientQuotas, API key 48, versions 0 to 1, and AlterClientQuotas, API key 49, versions 0 to 1. A quota is the two byte rates of a policy whose match Kafka can say: a user, a client id, both, or their defaults, which is any name. The other settings of such a policy, and all other policies, are left as they are.

// Names of Kafka's quotas and of what they are for.
const (
	quotaProduce  = "producer_byte_rate"
	quotaFetch    = "consumer_byte_rate"
	entityUser    = "user"
	entityClient  = "client-id"
	userPrincipal = "User:"
	anyName       = "*"
)

// quotaEntity is whom a quota is for: for each kind a name, anyName for the default, or nothing.
type quotaEntity struct{ user, client string }

func (b *Broker) describeClientQuotas(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}
	seen := map[string]bool{}
	for _, c := range req.Components {
		var err error
		switch {
		case c.EntityType != entityUser && c.EntityType != entityClient:
			err = fmt.Errorf("entity type %q: quotas are for %s and %s", c.EntityType, entityUser, entityClient)
		case seen[c.EntityType]:
			err = fmt.Errorf("entity type %q is named twice", c.EntityType)
		case c.MatchType == kmsg.QuotasMatchTypeExact && c.Match == nil:
			err = fmt.Errorf("entity type %q: no name to match", c.EntityType)
		case c.MatchType < kmsg.QuotasMatchTypeExact || c.MatchType > kmsg.QuotasMatchTypeAny:
			err = fmt.Errorf("match type %d is unknown", c.MatchType)
		}
		if err != nil {
			resp.ErrorCode, resp.ErrorMessage, resp.Entries = kerr.InvalidRequest.Code, ptr(err.Error()), nil
			return resp
		}
		seen[c.EntityType] = true
	}
	for _, p := range b.Policies().All() {
		entity, ok := quotaOf(p)
		if !ok || !entity.passes(req) {
			continue
		}
		e := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, part := range entity.parts() {
			one := kmsg.NewDescribeClientQuotasResponseEntryEntity()
			one.Type, one.Name = part.kind, part.kafkaName()
			e.Entity = append(e.Entity, one)
		}
		for _, v := range []struct {
			key  string
			rate qos.ByteRate
		}{{quotaProduce, p.ProduceRate}, {quotaFetch, p.FetchRate}} {
			if v.rate > 0 {
				value := kmsg.NewDescribeClientQuotasResponseEntryValue()
				value.Key, value.Value = v.key, float64(v.rate)
				e.Values = append(e.Values, value)
			}
		}
		resp.Entries = append(resp.Entries, e)
	}
	return resp
}

// quotaOf is the entity of a policy that has a byte rate; false when Kafka cannot say whom it is for.
func quotaOf(p *qos.Policy) (quotaEntity, bool) {
	var e quotaEntity
	if p.Topic != "" || p.ProduceRate == 0 && p.FetchRate == 0 {
		return e, false
	}
	user, isUser := strings.CutPrefix(p.Principal, userPrincipal)
	switch {
	case p.Principal == "", p.Principal == anyName:
		e.user = p.Principal
	case isUser && user != "" && !strings.HasSuffix(user, anyName):
		e.user = user
	default:
		return e, false
	}
	e.client = p.Client
	prefix := p.Client != anyName && strings.HasSuffix(p.Client, anyName)
	return e, !prefix && e != quotaEntity{}
}

// entityPart is one kind of an entity and its name.
type entityPart struct{ kind, name string }

func (e quotaEntity) parts() (out []entityPart) {
	if e.user != "" {
		out = append(out, entityPart{entityUser, e.user})
	}
	if e.client != "" {
		out = append(out, entityPart{entityClient, e.client})
	}
	return out
}

// kafkaName is null for the default.
func (p entityPart) kafkaName() *string {
	if p.name == anyName {
		return nil
	}
	return &p.name
}

// passes says whether the filter lets the entity through.
func (e quotaEntity) passes(req *kmsg.DescribeClientQuotasRequest) bool {
	names := map[string]string{}
	for _, part := range e.parts() {
		names[part.kind] = part.name
	}
	for _, c := range req.Components {
		name, has := names[c.EntityType]
		switch {
		case !has,
			c.MatchType == kmsg.QuotasMatchTypeExact && (name == anyName || name != *c.Match),
			c.MatchType == kmsg.QuotasMatchTypeDefault && name != anyName:
			return false
		}
	}
	return !req.Strict || len(names) == len(req.Components)
}

func (b *Broker) alterClientQuotas(ctx context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.AlterClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	for _, re := range req.Entries {
		if ctx.Err() != nil { // nobody waits for it any more
			return resp
		}
		e := kmsg.NewAlterClientQuotasResponseEntry()
		for _, part := range re.Entity {
			one := kmsg.NewAlterClientQuotasResponseEntryEntity()
			one.Type, one.Name = part.Type, part.Name
			e.Entity = append(e.Entity, one)
		}
		if err := b.alterQuota(ctx, re, req.ValidateOnly); err != nil {
			e.ErrorCode, e.ErrorMessage = Code(err), ptr(err.Error())
		}
		resp.Entries = append(resp.Entries, e)
	}
	return resp
}

// alterQuota changes the byte rates of one entity's policy, which is made when there is none and goes when it says nothing any more.
func (b *Broker) alterQuota(ctx context.Context, re kmsg.AlterClientQuotasRequestEntry, validateOnly bool) error {
	entity, err := parseEntity(re.Entity)
	if err != nil {
		return err
	}
	b.policyMu.Lock()
	defer b.policyMu.Unlock()
	p := qos.Policy{Name: entity.policyName(), Client: entity.client}
	switch entity.user {
	case "", anyName:
		p.Principal = entity.user
	default:
		p.Principal = userPrincipal + entity.user
	}
	set, found := b.Policies(), false
	for _, have := range set.All() {
		if have.Principal == p.Principal && have.Client == p.Client && have.Topic == "" {
			p, found = *have, true
		}
	}
	if !found && set.Get(p.Name) != nil {
		return fmt.Errorf("%w: a policy %q is there, for %s: give it another name", qos.ErrPolicy, p.Name, set.Get(p.Name).Match())
	}
	for _, op := range re.Ops {
		if err := alterRate(&p, op); err != nil {
			return err
		}
	}
	gone := len(p.Said()) == 0
	switch {
	case gone && !found, gone && validateOnly:
		return nil
	case gone:
		return b.unsetPolicy(ctx, p.Name)
	case validateOnly:
		_, err := set.With(p)
		return err
	}
	return b.setPolicy(ctx, p)
}

// parseEntity reads whom a quota is for.
func parseEntity(parts []kmsg.AlterClientQuotasRequestEntryEntity) (e quotaEntity, err error) {
	for _, part := range parts {
		to := &e.user
		switch part.Type {
		case entityUser:
		case entityClient:
			to = &e.client
		default:
			return e, fmt.Errorf("%w: entity type %q: quotas are for %s and %s", qos.ErrPolicy, part.Type, entityUser, entityClient)
		}
		switch {
		case *to != "":
			return e, fmt.Errorf("%w: entity type %q is named twice", qos.ErrPolicy, part.Type)
		case part.Name == nil:
			*to = anyName
		case *part.Name == "":
			return e, fmt.Errorf("%w: %s: an empty name", qos.ErrPolicy, part.Type)
		case strings.Contains(*part.Name, anyName):
			return e, fmt.Errorf("%w: %s %q: a name with a * is a prefix here: use tidemark qos set", qos.ErrPolicy, part.Type, *part.Name)
		default:
			*to = *part.Name
		}
	}
	if e == (quotaEntity{}) {
		return e, fmt.Errorf("%w: it names neither a %s nor a %s", qos.ErrPolicy, entityUser, entityClient)
	}
	return e, nil
}

// policyName is how a policy that a quota makes is called.
func (e quotaEntity) policyName() string {
	var names []string
	for _, part := range e.parts() {
		if part.name == anyName {
			part.name = "<default>"
		}
		names = append(names, part.kind+"="+part.name)
	}
	return strings.Join(names, ",")
}

func alterRate(p *qos.Policy, op kmsg.AlterClientQuotasRequestEntryOp) error {
	var rate *qos.ByteRate
	switch op.Key {
	case quotaProduce:
		rate = &p.ProduceRate
	case quotaFetch:
		rate = &p.FetchRate
	case "request_percentage":
		return fmt.Errorf("%w: request_percentage is a share of threads, of which there are none for a client: tidemark qos set --request-rate limits requests a second", qos.ErrPolicy)
	default:
		return fmt.Errorf("%w: quota %q: there are %s and %s", qos.ErrPolicy, op.Key, quotaProduce, quotaFetch)
	}
	switch {
	case op.Remove:
		*rate = 0
	case !(op.Value >= 1 && op.Value < 1<<62):
		return fmt.Errorf("%w: %s of %g: it is at least 1 byte a second", qos.ErrPolicy, op.Key, op.Value)
	default:
		*rate = qos.ByteRate(op.Value)
	}
	return nil
}
