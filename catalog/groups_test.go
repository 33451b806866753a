package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func commitOf(group string, atMs int64, topic TopicID, offsets ...int64) Command {
	c := &CommitOffsets{Group: group, AtMs: atMs, Topics: []TopicOffsets{{ID: topic}}}
	for i, o := range offsets {
		c.Topics[0].Partitions = append(c.Topics[0].Partitions, PartitionOffset{Index: int32(i), Offset: o, LeaderEpoch: -1, Metadata: strings.Repeat("m", int(o))})
	}
	return Command{CommitOffsets: c}
}

// TestCommittedOffsets commits, overwrites, deletes and keeps them over a snapshot; what they hold is counted, and nothing is left of it in the end.
func TestCommittedOffsets(t *testing.T) {
	c := New()
	for id, name := range map[byte]string{1: "a", 2: "b"} {
		c.Apply(Command{CreateTopic: &CreateTopic{Name: name, ID: TopicID{id}, Partitions: 2}})
	}
	do := func(cmd Command) error {
		decoded, err := DecodeCommand(cmd.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return c.Apply(decoded).Err
	}
	at := func(group string, topic byte, index int32) string {
		o, ok := c.Groups().Of(group, TopicID{topic}, index)
		return fmt.Sprint(o.Offset, o.AtMs, len(o.Metadata), ok)
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	for _, cmd := range []Command{commitOf("g", 5, TopicID{1}, 7, 8), commitOf("g", 6, TopicID{2}, 1), commitOf("h", 7, TopicID{1}, 3), commitOf("g", 8, TopicID{1}, 9), commitOf("g", 9, TopicID{3}, 1), commitOf("g", 9, TopicID{2}, 2, 2, 2)} {
		if err := do(cmd); err != nil {
			t.Fatal(err)
		}
	}
	want("overwritten", at("g", 1, 0), "9 8 9 true")
	want("kept", at("g", 1, 1), "8 5 8 true")
	want("of no topic", at("g", 3, 0), "0 0 0 false")
	want("of no partition", at("g", 2, 2), "0 0 0 false")
	encoded, err := c.Encode(0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"g", "h"} {
		if !reflect.DeepEqual(again.Groups().All(group), c.Groups().All(group)) {
			t.Errorf("%s over a snapshot: %v, want %v", group, again.Groups().All(group), c.Groups().All(group))
		}
	}
	if again.groups.bytes != c.groups.bytes || c.groups.bytes <= 0 {
		t.Errorf("%d bytes over a snapshot, %d before", again.groups.bytes, c.groups.bytes)
	}
	do(Command{DeleteOffsets: &DeleteOffsets{Group: "g", UntilMs: 5, Topics: []TopicPartitions{{ID: TopicID{1}, Partitions: []int32{0, 1, 5}}}}})
	want("newer than that", at("g", 1, 0), "9 8 9 true")
	want("no newer", at("g", 1, 1), "0 0 0 false")
	do(Command{DeleteTopic: &DeleteTopic{ID: TopicID{1}}})
	want("with its topic", at("g", 1, 0), "0 0 0 false")
	want("groups", fmt.Sprint(c.Groups().Names()), "[g]")
	if err := do(Command{DeleteGroup: &DeleteGroup{Group: "h"}}); !errors.Is(err, ErrUnknownGroup) {
		t.Errorf("a group that is gone with its topic: %v", err)
	}
	if err := do(Command{DeleteGroup: &DeleteGroup{Group: "g"}}); err != nil || c.groups.bytes != 0 || c.Groups().Has("g") {
		t.Errorf("%v; %d bytes are left", err, c.groups.bytes)
	}
	c.groups.bytes = MaxOffsetsBytes + 1
	if err := do(commitOf("g", 5, TopicID{2}, 7)); !errors.Is(err, ErrOffsetsBytes) {
		t.Errorf("past the limit: %v", err)
	}
}
