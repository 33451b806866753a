package main

import (
	"bytes"
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

// A dump says what it passes over, goes on behind it, and ends with the exit code for damage.
func TestJournalDumpOfADamagedJournal(t *testing.T) {
	dir := t.TempDir()
	p, err := pipeline.Open(pipeline.Options{DataDir: dir, SegmentBytes: 1 << 20, CacheBytes: 1 << 20, Spares: -1})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"first", "second", "third"} {
		if r := p.Command(t.Context(), catalog.Command{CreateTopic: &catalog.CreateTopic{Name: name, ID: catalog.TopicID{byte(i)}, Partitions: 1}}, nil, 0); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	dump := func(args ...string) result {
		return tidemark(t, t.Context(), nil, nil, append([]string{"journal", "dump", dir}, args...)...)
	}
	if r := dump(); r.code != 0 || strings.Count(r.stdout, "\nframe ")+1 != 3 || strings.Contains(r.stdout, "DAMAGE") || strings.Contains(r.stdout, "torn") {
		t.Fatalf("a sound journal: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	name := filepath.Join(dir, "journal/0/00000000000000000000.journal")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("second"))
	b[at] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := dump()
	if r.code != exitDamaged || !strings.Contains(r.stdout, "\nDAMAGE offset=") || !strings.Contains(r.stdout, "name=first") || !strings.Contains(r.stdout, "name=third") || strings.Contains(r.stdout, "name=second") {
		t.Errorf("a damaged frame: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if r := dump("--limit", "1"); r.code != 0 || strings.Contains(r.stdout, "DAMAGE") {
		t.Errorf("the frame before it: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
