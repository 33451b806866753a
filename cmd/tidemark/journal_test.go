package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidemark/catalog"
	"tidemark/pipeline"
)

// TestJournalCommands verifies a data directory, takes its meta and its mark away, and has both made again.
func TestJournalCommands(t *testing.T) {
	dir := t.TempDir()
	p, err := pipeline.Open(pipeline.Options{DataDir: dir, SegmentBytes: 1 << 20, CacheBytes: 1 << 20, Spares: -1})
	if err != nil {
		t.Fatal(err)
	}
	r := p.Command(t.Context(), catalog.Command{CreateTopic: &catalog.CreateTopic{Name: "t", ID: catalog.TopicID{1}, Partitions: 3}}, nil, 0)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	run := func(code int, has string, args ...string) {
		t.Helper()
		r := tidemark(t, t.Context(), nil, nil, append([]string{"journal"}, args...)...)
		if r.code != code || !strings.Contains(r.stdout+r.stderr, has) {
			t.Fatalf("%v: exit code %d, wanted %d with %q:\n%s%s", args, r.code, code, has, r.stdout, r.stderr)
		}
	}
	remove := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(0, "topics 1\nsound\n", "verify", dir)
	run(0, "nothing to repair", "repair", dir)
	run(exitDataDir, "no data directory", "repair", t.TempDir())

	remove("meta", "journal/0/mark")
	run(exitDamaged, "journal repair", "verify", dir)
	for range 2 {
		run(exitDamaged, "2 places are damaged; nothing was changed", "repair", dir)
	}
	run(0, "repaired 2 places", "repair", dir, "--yes")
	run(0, "topics 1\nsound\n", "verify", dir)

	remove("meta.copy", "catalog.snapshot.copy")
	run(0, "the copy of meta is not sound", "verify", dir)
	run(0, "the copy of catalog.snapshot is not sound", "verify", dir)
	remove("meta")
	run(exitDamaged, "meta.copy", "repair", dir, "--yes")
}
