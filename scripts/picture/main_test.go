package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func sound(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
}

func TestFlame(t *testing.T) {
	at := func(name string) *profile.Location {
		return &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}}
	}
	p := &profile.Profile{}
	for _, s := range []struct {
		level, stage string
		ns           int64
	}{{"level <all>", "flush", 3e9}, {"level <all>", "respond", 1e9}, {"level receive", "respond", 4e9}} {
		p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{at(s.stage), at(s.level)}, Value: []int64{1, s.ns}})
	}
	var b strings.Builder
	if err := flame(&b, p); err != nil {
		t.Fatal(err)
	}
	sound(t, b.String())
	for _, want := range []string{`width="960.0"`, "level &lt;all&gt; 4s", `width="360.0"`, "flush 3s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if flame(&b, &profile.Profile{}) == nil {
		t.Error("a profile without samples was drawn")
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := text(&b, strings.NewReader(strings.Repeat("old\n", 30)+"a < b\n")); err != nil {
		t.Fatal(err)
	}
	sound(t, b.String())
	if n := strings.Count(b.String(), "<text"); n != lineRows || !strings.Contains(b.String(), "a &lt; b") {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
}
