package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
)

// TestStory plays the files in testdata: a pipeline's life told step by step, with no goroutine running. `go test ./pipeline -run Story -rewrite` writes what happens into them; the difference is to be read like code.
//
//	open                      start on the disk; what recovery found
//	topic                     create the topic, with one partition, and see it through
//	submit NAME level=LEVEL   queue a batch of one record (bytes=N long) at a level; pid= and seq= make it idempotent
//	write, flush, follow, respond, mark
//	                          one step of that stage
//	fail                      the next synced write of the journal fails
//	crash keep=all|nothing    the process dies and the page cache lives, or the power goes
//	stop                      what a clean stop does: flush, mark
//	marks                     where the watermarks stand
//	read                      what a reader sees
func TestStory(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{mem: vfs.NewMem()}
		t.Cleanup(s.close)
		datadriven.RunTest(t, path, s.play)
	})
}

type story struct {
	mem    *vfs.Mem
	faulty *vfs.Faulty
	p      *Pipeline
	part   *catalog.Partition
	names  map[*Request]string
	told   []string // answers since the last command
}

func (s *story) Serialized(*Request) {}

func (s *story) Answer(r *Request) Waker {
	err := errors.Join(r.Err, r.Records[0].Err)
	switch {
	case err != nil:
		s.told = append(s.told, fmt.Sprintf("%s failed: %v", s.names[r], err))
	case r.Records[0].Kind == journal.RecordCommand:
		s.told = append(s.told, s.names[r]+" answered")
	default:
		s.told = append(s.told, fmt.Sprintf("%s answered at offset %d", s.names[r], r.Records[0].Base))
	}
	return nil
}

func (s *story) play(t *testing.T, d *datadriven.TestData) string {
	out := s.do(t, d)
	for _, line := range s.told {
		out += line + "\n"
	}
	s.told = nil
	return out
}

func (s *story) do(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "open":
		return s.open()
	case "topic":
		r := command(catalog.Command{CreateTopic: &catalog.CreateTopic{Name: "t", ID: catalog.TopicID{1}, Partitions: 1}})
		s.submit(t, "topic", r)
		s.p.write.step()
		s.p.flush.step()
		s.step(t, "follow")
		s.p.respond.step()
		s.part = s.p.View().Partition("t", 0)
		return ""
	case "submit":
		level, size, pid, seq := "persistence", 100, -1, -1
		scan(t, d, "level", &level)
		scan(t, d, "bytes", &size)
		scan(t, d, "pid", &pid)
		scan(t, d, "seq", &seq)
		l, err := qos.ParseLevel(level)
		if err != nil {
			t.Fatal(err)
		}
		name := d.CmdArgs[0].Key
		body := name + strings.Repeat(".", max(size-len(name), 0))
		s.submit(t, name, produce(l, s.part, makeBatch(1, body, int64(pid), 0, int32(seq))))
		return ""
	case "fail":
		s.faulty.SetHooks(vfs.FailNth(vfs.OpWriteSync, 1, errors.New("input/output error")))
		return ""
	case "crash":
		keep := "nothing"
		scan(t, d, "keep", &keep)
		mem := s.mem.CrashKeepNothing()
		if keep == "all" {
			mem = s.mem.CrashKeepAll()
		}
		s.close()
		s.mem = mem
		return ""
	case "stop":
		for s.p.flushed.Load() < s.p.Written() {
			s.p.flush.step()
		}
		s.p.respond.step()
		s.p.marker.step()
		s.close()
		return ""
	case "marks":
		p := s.p
		return fmt.Sprintf("written %d, flushed %d, committed %d, indexed %d, marked %d\n", p.Written(), p.flushed.Load(), p.committed.Load(), p.indexed.Load(), p.marker.marked.Load())
	case "read":
		var names []string
		for from := s.part.LogStart(); from < s.part.HighWatermark(); from++ {
			b, err := s.p.Read(s.part, from, s.part.HighWatermark(), 1, true, nil)
			if err != nil {
				return err.Error() + "\n"
			}
			names = append(names, strings.TrimRight(string(b[61:]), "."))
		}
		return strings.Join(names, " ") + "\n"
	default:
		return s.step(t, d.Cmd)
	}
}

// scan reads an argument, if it is there.
func scan(t *testing.T, d *datadriven.TestData, key string, to any) {
	if d.HasArg(key) {
		d.ScanArgs(t, key, to)
	}
}

// step is one step of a stage.
func (s *story) step(t *testing.T, stage string) string {
	switch stage {
	case "write":
		h := s.p.write.step()
		return map[hold]string{holdNone: "", holdEmpty: "nothing is queued\n", holdDirty: "too much is unflushed\n", holdSegment: "the next segment is missing\n"}[h]
	case "flush":
		if !s.p.flush.step() {
			return "the disk failed\n"
		}
	case "follow":
		if _, err := s.p.follow.step(); err != nil {
			return err.Error() + "\n"
		}
	case "respond":
		s.p.respond.step()
	case "mark":
		s.p.marker.step()
	default:
		t.Fatalf("%q is no command", stage)
	}
	return ""
}

func (s *story) open() string {
	s.faulty = vfs.NewFaulty(s.mem)
	p, err := openStill(testOptions(s.faulty))
	if err != nil {
		return err.Error() + "\n"
	}
	s.p, s.names, s.part = p, map[*Request]string{}, p.View().Partition("t", 0)
	r := p.Recovered()
	if r.Created {
		return "a new data directory\n"
	}
	return fmt.Sprintf("end %d, proven %d, torn bytes cut %d\n", r.End, r.ProvenF, r.TornBytes)
}

func (s *story) submit(t *testing.T, name string, r *Request) {
	r.Owner = s
	s.names[r] = name
	if err := s.p.Submit([]*Request{r}); err != nil {
		s.told = append(s.told, fmt.Sprintf("%s refused: %v", name, err))
	}
}

// close lets go of what a pipeline holds, without a word to the disk.
func (s *story) close() {
	if s.p == nil {
		return
	}
	s.faulty.SetHooks(func(op vfs.Op) error {
		if op.Kind&vfs.OpMutating != 0 {
			return errors.New("dead")
		}
		return nil
	})
	s.p.index.Close()
	_ = errors.Join(s.p.journal.Close(), s.p.lock.Close())
	s.p = nil
}
