package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"testing"

	"tidemark/qos"
)

func (c *Catalog) set(name, client string, initially bool) error {
	return c.Apply(Command{SetPolicy: &SetPolicy{Policy: qos.Policy{Name: name, Client: client, Weight: 2}, Initially: initially}}).Err
}

func TestPoliciesAreInTheSnapshot(t *testing.T) {
	c := filled(t)
	b, err := c.Encode(0)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := back.View().Policies.All(), c.View().Policies.All(); len(want) != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v came back as %+v", want, got)
	}
	if topic := back.View().Topics["a"]; topic.MaxMessageBytes != 6000 || len(topic.Config) != 1 {
		t.Errorf("topic a has settings %v", topic.Config)
	}
	for _, c := range []*Catalog{c, back} {
		if err := c.set("gone", "x", true); !errors.Is(err, qos.ErrPolicyKnown) {
			t.Errorf("a policy that was taken away came back: %v", err)
		}
		if err := c.set("p", "x", true); !errors.Is(err, qos.ErrPolicyKnown) || c.View().Policies.Get("p").Client != "orders-*" {
			t.Errorf("a policy that is there was replaced: %v", err)
		}
		if err := c.set("new", "x", true); err != nil {
			t.Error(err)
		}
		if err := c.set("gone", "gone", false); err != nil {
			t.Errorf("set by hand: %v", err)
		}
		if err := c.set("tie", "x", false); !errors.Is(err, qos.ErrPolicyTie) {
			t.Errorf("a tie: %v", err)
		}
	}
}

// A snapshot of before there were policies is read.
func TestSnapshotVersion1(t *testing.T) {
	b, err := New().Encode(0)
	if err != nil {
		t.Fatal(err)
	}
	version := func(v uint32) []byte {
		binary.LittleEndian.PutUint32(b[4:], v)
		binary.LittleEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
		return b
	}
	if c, err := Decode(version(1)); err != nil || c.View().Policies != nil {
		t.Errorf("version 1: %v", err)
	}
	for _, v := range []uint32{0, snapshotVersion + 1} {
		if _, err := Decode(version(v)); err == nil {
			t.Errorf("version %d was read", v)
		}
	}
}

func TestNamesOfPoliciesAreBounded(t *testing.T) {
	c := New()
	if err := c.set("stays", "stays", true); err != nil {
		t.Fatal(err)
	}
	for i := range maxPolicyNames + qos.MaxPolicies + 10 {
		name := fmt.Sprint(i)
		if err := c.set(name, "x", false); err != nil {
			t.Fatal(err)
		}
		if r := c.Apply(Command{UnsetPolicy: &UnsetPolicy{Name: name}}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if names := c.View().policyNames; len(names) != maxPolicyNames+qos.MaxPolicies || names[0] != "stays" {
		t.Errorf("%d names are remembered, the first %q", len(names), names[0])
	}
}
