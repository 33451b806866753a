// Package qos says what an acknowledgement means: which watermarks each level waits for, and which level a request asks for. It knows marks and never an offset.
package qos

import (
	"fmt"
	"strings"
)

// Marks is a set of watermarks that must have passed a request's end before it is answered.
type Marks uint8

const (
	Written    Marks = 1 << iota // in the leader's memory, in order
	Flushed                      // synced on the leader's disk
	Replicated                   // a majority holds it in memory
	Committed                    // a majority, the leader among them, has synced it
	Applied                      // the catalog has acted on it; commands only, no level has it
)

// Level is a named set of marks. Codes are JMQ4's and are never compared: levels are a lattice, not a ladder.
type Level uint8

const (
	OneWay      Level = 0 // not answered
	Receive     Level = 1
	Persistence Level = 2
	Replication Level = 3
	All         Level = 4
)

// levels has everything about a level in one place.
var levels = [...]struct {
	name  string
	marks Marks
}{
	OneWay:      {"one-way", 0},
	Receive:     {"receive", Written},
	Persistence: {"persistence", Written | Flushed},
	Replication: {"replication", Written | Replicated},
	All:         {"all", Written | Flushed | Replicated | Committed},
}

// Levels lists all levels by code.
func Levels() []Level { return []Level{OneWay, Receive, Persistence, Replication, All} }

// Marks is the set that the level waits for.
func (l Level) Marks() Marks { return levels[l].marks }

func (l Level) String() string {
	if int(l) >= len(levels) {
		return fmt.Sprintf("level %d", uint8(l))
	}
	return levels[l].name
}

// ParseLevel reads a level's name.
func ParseLevel(s string) (Level, error) {
	var names []string
	for l, v := range levels {
		if strings.EqualFold(v.name, s) {
			return Level(l), nil
		}
		names = append(names, v.name)
	}
	return 0, fmt.Errorf("%q is no level; the levels are %s", s, strings.Join(names, ", "))
}

// MarshalText and UnmarshalText let settings carry a level by its name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a level's name.
func (l *Level) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLevel(string(b))
	return err
}
