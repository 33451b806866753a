package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// TestRepairOfIdentityAndCatalog spoils or takes away the files meta, mark and catalog.snapshot of a directory whose oldest segments retention has dropped: it does not start, and after Repair it does, with all that it had.
func TestRepairOfIdentityAndCatalog(t *testing.T) {
	spoil := func(m *vfs.Mem, name string) error {
		f, err := m.Open(name, vfs.ReadWrite)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{0xff, 0xff}, 40)
		return errors.Join(err, f.Close())
	}
	mark := journal.JournalDir("data", 0) + "/mark"
	for _, c := range []struct {
		name    string
		damaged []string
		removed []string
	}{
		{"meta damaged", []string{"data/meta"}, nil},
		{"meta missing", nil, []string{"data/meta"}},
		{"snapshot damaged", []string{"data/catalog.snapshot"}, nil},
		{"snapshot missing", nil, []string{"data/catalog.snapshot"}},
		{"mark missing", nil, []string{mark}},
		{"all of them", []string{"data/meta"}, []string{"data/catalog.snapshot", mark}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			opts := testOptions(mem)
			opts.RetentionBytes = 512 << 10
			p := open(t, opts)
			part := createTopic(t, p, "t", 1).Partitions[0]
			w := newWaiter()
			for i := range 400 {
				r := produce(qos.Persistence, part, makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), -1, -1, -1))
				if w.wait(t, w.submit(t, p, r)); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			eventually(t, "segments are dropped", func() bool { return part.LogStart() > 0 })
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			opts.RetentionBytes = 0 // what is there stays
			want, start, id := bodiesAfter(t, opts), part.LogStart(), p.Meta().ClusterID

			for _, name := range c.damaged {
				if err := spoil(mem, name); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range c.removed {
				if err := mem.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			if p, err := Open(opts); err == nil {
				p.Close()
				t.Fatal("it starts")
			}
			for _, write := range []bool{false, true} {
				r, err := Repair(mem, "data", write)
				if err != nil || len(r.Mended) != len(c.damaged)+len(c.removed) || len(r.Losses) > 0 {
					t.Fatalf("write %v: %+v, %v", write, r, err)
				}
			}
			if got := bodiesAfter(t, opts); strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("%d batches, wanted %d", len(got), len(want))
			}
			p = open(t, opts)
			defer p.Close()
			if got := p.View().Topics["t"].Partitions[0].LogStart(); got < start || p.Meta().ClusterID != id {
				t.Errorf("log start %d, was %d; cluster %s, was %s", got, start, p.Meta().ClusterID, id)
			}
			if r, err := Repair(mem, "data", false); err != nil || !r.Nothing() {
				t.Errorf("after the repair: %+v, %v", r, err)
			}
		})
	}
}

// bodiesAfter starts a directory, reads its one partition, and stops it.
func bodiesAfter(t *testing.T, opts Options) []string {
	t.Helper()
	p := open(t, opts)
	defer p.Close()
	return bodies(t, p, p.View().Topics["t"].Partitions[0])
}

// TestRepairDoesNotMixPartitions: partitions are numbered in the order in which they are made. One that is made behind lost bytes that no snapshot covers may have had the number of another: that is refused, and
// numbers of which records are left are not given out again.
func TestRepairDoesNotMixPartitions(t *testing.T) {
	for _, second := range []bool{false, true} {
		mem := vfs.NewMem()
		opts := testOptions(mem)
		p := open(t, opts)
		first := createTopic(t, p, "first", 2).Partitions
		w := newWaiter()
		lost := p.Written()
		for i := range 60 {
			r := produce(qos.All, first[1], makeBatch(1, fmt.Sprintf("%d|%s", i, strings.Repeat("x", 4000)), -1, -1, -1))
			if w.wait(t, w.submit(t, p, r)); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if second {
			createTopic(t, p, "second", 1)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"data/catalog.snapshot", "data/catalog.snapshot.copy"} {
			if err := mem.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		f, err := mem.Open(journal.JournalDir("data", 0)+"/00000000000000000000.journal", vfs.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, lost), 0); err != nil { // the topic's making
			t.Fatal(err)
		}
		f.Close()
		for _, write := range []bool{false, true} {
			r, err := Repair(mem, "data", write)
			if refused := errors.As(err, new(*journal.CorruptError)); refused != second || !refused && err != nil {
				t.Fatalf("second topic %v: %+v, %v", second, r, err)
			}
		}
		if second {
			continue
		}
		p = open(t, opts)
		next := createTopic(t, p, "next", 2).Partitions
		for _, part := range next {
			if got := bodies(t, p, part); len(got) > 0 || part.ID <= first[1].ID {
				t.Errorf("partition %d of a new topic has %d records of a lost one", part.ID, len(got))
			}
		}
	}
}
