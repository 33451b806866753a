package main

import (
	"fmt"

	"tidemark/qos"
)

// policiesKey is where the YAML file has policies: a list of maps with the fields of qos.Policy.
const policiesKey = "qos.policies"

// initialPolicies reads them, and refuses what cannot be, by name and field.
func initialPolicies(v any) ([]qos.Policy, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: it is a list of policies in the config file", policiesKey)
	}
	var out []qos.Policy
	var set *qos.Policies
	for i, item := range list {
		fields, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: item %d is no map of a policy's fields", policiesKey, i+1)
		}
		p, err := qos.DecodePolicy(fields)
		if err != nil {
			return nil, fmt.Errorf("%s: item %d (%v): %w", policiesKey, i+1, fields["name"], err)
		}
		if set.Get(p.Name) != nil {
			return nil, fmt.Errorf("%s: two policies are called %q", policiesKey, p.Name)
		}
		if set, err = set.With(p); err != nil {
			return nil, fmt.Errorf("%s: item %d: %w", policiesKey, i+1, err)
		}
		out = append(out, p)
	}
	return out, nil
}
