package catalog

import (
	"fmt"
	"slices"

	"tidemark/qos"
)

// policyNames are the names that policies were ever given, oldest first. Those whose policy is gone are remembered, so that a start does not bring an initial policy back that somebody took away; of those at most maxPolicyNames.
type policyNames []string

const maxPolicyNames = 10_000

func (n *policyNames) add(name string, set *qos.Policies) {
	if slices.Contains(*n, name) {
		return
	}
	*n = append(*n, name)
	if len(*n) > maxPolicyNames+qos.MaxPolicies {
		i := slices.IndexFunc(*n, func(old string) bool { return set.Get(old) == nil })
		*n = slices.Delete(*n, i, i+1)
	}
}

func (c *Catalog) setPolicy(cmd *SetPolicy) Result {
	p := cmd.Policy
	if cmd.Initially && slices.Contains(c.policyNames, p.Name) {
		return Result{Err: fmt.Errorf("%w: %q", qos.ErrPolicyKnown, p.Name)}
	}
	set, err := c.View().Policies.With(p)
	if err != nil {
		return Result{Err: err}
	}
	c.policyNames.add(p.Name, set)
	c.putPolicies(set)
	return Result{}
}

func (c *Catalog) unsetPolicy(name string) Result {
	set, err := c.View().Policies.Without(name)
	if err != nil {
		return Result{Err: err}
	}
	c.putPolicies(set)
	return Result{}
}

func (c *Catalog) putPolicies(set *qos.Policies) {
	v := c.change()
	v.Policies = set
	c.view.Store(v)
}
