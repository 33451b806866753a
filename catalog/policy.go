package catalog

import (
	"fmt"
	"slices"

	"tidemark/qos"
)

// policyNames are the names that policies were ever given, oldest first. Those whose policy is gone are remembered, so that a start does not bring an initial policy back that somebody took away; of those at most maxPolicyNames.
type policyNames []string

const maxPolicyNames = 10_000

// with is the names and one more.
func (n policyNames) with(name string, set *qos.Policies) policyNames {
	if slices.Contains(n, name) {
		return n
	}
	n = append(slices.Clone(n), name)
	if len(n) > maxPolicyNames+qos.MaxPolicies {
		i := slices.IndexFunc(n, func(old string) bool { return set.Get(old) == nil })
		n = slices.Delete(n, i, i+1)
	}
	return n
}

func (c *Catalog) setPolicy(cmd *SetPolicy) Result {
	v, p := c.change(), cmd.Policy
	if cmd.Initially && v.PolicyKnown(p.Name) {
		return Result{Err: fmt.Errorf("%w: %q", qos.ErrPolicyKnown, p.Name)}
	}
	set, err := v.Policies.With(p)
	if err != nil {
		return Result{Err: err}
	}
	v.Policies, v.policyNames = set, v.policyNames.with(p.Name, set)
	c.view.Store(v)
	return Result{}
}

func (c *Catalog) unsetPolicy(name string) Result {
	v := c.change()
	set, err := v.Policies.Without(name)
	if err != nil {
		return Result{Err: err}
	}
	v.Policies = set
	c.view.Store(v)
	return Result{}
}
