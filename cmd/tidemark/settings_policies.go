package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

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
		text := make(map[string]any, len(fields))
		for key, value := range fields {
			switch _, isText := value.(string); {
			case value == nil: // the key stands there for nothing
			case slices.Contains([]string{"name", "principal", "client", "topic"}, key) && !isText:
				return nil, fmt.Errorf("%s: item %d: %s: %v is no text: put it in quotes", policiesKey, i+1, key, value)
			case key == "weight":
				text[key] = value
			default:
				text[key] = fmt.Sprint(value) // numbers of bytes are sizes, too
			}
		}
		b, err := json.Marshal(text)
		if err != nil {
			return nil, fmt.Errorf("%s: item %d: %w", policiesKey, i+1, err)
		}
		var p qos.Policy
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("%s: item %d (%v): %w", policiesKey, i+1, fields["name"], err)
		}
		if set.Get(p.Name) != nil {
			return nil, fmt.Errorf("%s: two policies are called %q", policiesKey, p.Name)
		}
		if set, err = set.With(p); err != nil {
			return nil, fmt.Errorf("%s: %w", policiesKey, err)
		}
		out = append(out, p)
	}
	return out, nil
}
