package qos

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// DecodePolicy reads a policy from the fields of a JSON object or a YAML map, by the names of Policy's JSON form. A bare number is a number of bytes, or a second. Its errors name the field. The policy is not validated.
func DecodePolicy(fields map[string]any) (Policy, error) {
	var p Policy
	texts := map[string]*string{"name": &p.Name, "principal": &p.Principal, "client": &p.Client, "topic": &p.Topic}
	levels := map[string]**Level{"acks_1": &p.AcksOne, "acks_all": &p.AcksAll, "floor": &p.Floor, "ceiling": &p.Ceiling}
	units := map[string]encoding.TextUnmarshaler{"deadline": &p.Deadline, "produce_rate": &p.ProduceRate, "fetch_rate": &p.FetchRate, "request_rate": &p.RequestRate, "in_flight": &p.InFlight, "weight": &p.Weight}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value := fields[key]
		if value == nil { // the key stands there for nothing
			continue
		}
		text, isText := value.(string)
		switch v := value.(type) {
		case string:
		case json.Number, int, int64, uint64:
			text = fmt.Sprint(v)
		default:
			return p, fmt.Errorf("%w: %s: %v is neither a text nor a whole number", ErrPolicy, key, value)
		}
		var err error
		switch {
		case texts[key] != nil && !isText:
			err = fmt.Errorf("%s is no text: put it in quotes", text)
		case texts[key] != nil:
			*texts[key] = text
		case levels[key] != nil:
			var l Level
			l, err = ParseLevel(text)
			*levels[key] = &l
		case units[key] != nil:
			err = units[key].UnmarshalText([]byte(text))
		default:
			err = fmt.Errorf("there is no such setting; there are name, principal, client, topic, %s", settingNames())
		}
		if err != nil {
			return p, fmt.Errorf("%w: %s: %w", ErrPolicy, key, err)
		}
	}
	return p, nil
}

func settingNames() string {
	text := ""
	for i, s := range settings {
		if i > 0 {
			text += ", "
		}
		text += s.name
	}
	return text
}

// UnmarshalText reads a share.
func (w *Weight) UnmarshalText(text []byte) error {
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || n < 1 || n > MaxWeight {
		return fmt.Errorf("%q is no whole number from 1 to %d", text, MaxWeight)
	}
	*w = Weight(n)
	return nil
}

// UnmarshalJSON reads a share as the number that it is.
func (w *Weight) UnmarshalJSON(text []byte) error { return w.UnmarshalText(text) }
