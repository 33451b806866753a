package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"tidemark/catalog"
	recordbatch "tidemark/internal/batch"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/journal/index"
)

// JournalCmd is `tidemark journal`.
type JournalCmd struct {
	Verify JournalVerifyCmd `cmd:"" help:"Check every byte of a stopped node's journal."`
	Repair JournalRepairCmd `cmd:"" help:"Give up damaged bytes of a stopped node's journal, and keep the rest."`
	Dump   JournalDumpCmd   `cmd:"" help:"Print the frames and records of a stopped node's journal."`
}

// JournalVerifyCmd is `tidemark journal verify`.
type JournalVerifyCmd struct {
	Dir string `arg:"" help:"Data directory." type:"path"`
}

// JournalDumpCmd is `tidemark journal dump`.
type JournalDumpCmd struct {
	Dir   string `arg:"" help:"Data directory." type:"path"`
	From  int64  `help:"First offset, in bytes of the stream."`
	Limit int    `help:"Frames to print; 0: all."`
}

// Help is kong's detailed help.
func (JournalVerifyCmd) Help() string {
	return `Reads the whole journal and changes nothing: frame headers, their chain, bodies, record batches, index files and the catalog's snapshot.
It ends with exit code 6 if bytes that had been acknowledged are damaged. The records that it counts are batches of messages, and commands of the catalog.

    tidemark journal verify ./data`
}

// Help is kong's detailed help.
func (JournalDumpCmd) Help() string {
	return `Prints a line for each frame and for each record in it, and changes nothing. A record is a batch of messages, or a command of the catalog.
What is not sound on the way is a line that begins with DAMAGE, and then it ends with exit code 6, or with torn, for a tail that the next start cuts.

    tidemark journal dump ./data --limit 10
    tidemark journal dump ./data --from 268435456`
}

// offline is a stopped node's data directory.
type offline struct {
	fsys vfs.FS
	dir  string // of the journal
	meta journal.JournalMeta
	lock io.Closer
}

// openOffline takes the directory's lock, so that no server writes meanwhile.
func openOffline(dataDir string) (*offline, error) {
	o := &offline{fsys: vfs.OS{}}
	meta, err := journal.LoadMeta(o.fsys, dataDir)
	if errors.Is(err, os.ErrNotExist) {
		if used, uerr := journal.Used(o.fsys, journal.JournalDir(dataDir, 0)); uerr == nil && used {
			return nil, exitWith(exitDamaged, fmt.Errorf("%s holds a journal and its meta is missing: `tidemark journal repair %s` takes its copy", dataDir, dataDir))
		}
		return nil, exitWith(exitDataDir, fmt.Errorf("%s is no data directory: it has no file named meta", dataDir))
	}
	if errors.As(err, new(*journal.CorruptError)) {
		return nil, exitWith(exitDamaged, fmt.Errorf("%w: `tidemark journal repair %s` says what can be done", err, dataDir))
	}
	if err != nil {
		return nil, exitWith(exitDataDir, err)
	}
	if len(meta.Journals) != 1 {
		return nil, exitWith(exitDataDir, fmt.Errorf("%s holds %d journals; this build reads one", dataDir, len(meta.Journals)))
	}
	if o.lock, err = lockOffline(o.fsys, dataDir); err != nil {
		return nil, err
	}
	o.meta = meta.Journals[0]
	o.dir = journal.JournalDir(dataDir, o.meta.ID)
	return o, nil
}

// lockOffline takes a data directory's lock.
func lockOffline(fsys vfs.FS, dataDir string) (io.Closer, error) {
	lock, err := fsys.Lock(dataDir + "/lock")
	if errors.Is(err, vfs.ErrLocked) {
		err = fmt.Errorf("%s is in use by a server: stop it first", dataDir)
	}
	if err != nil {
		return nil, exitWith(exitDataDir, err)
	}
	return lock, nil
}

// Run verifies.
func (c *JournalVerifyCmd) Run(e *env) error {
	o, err := openOffline(c.Dir)
	if err != nil {
		return err
	}
	defer o.lock.Close()
	progress := func(int64, int64) {}
	if e.stderrIsTerminal() {
		bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(e.stderr), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription("verify"))
		defer bar.Finish()
		progress = func(done, total int64) {
			bar.ChangeMax64(total)
			bar.Set64(done)
		}
	}
	v, err := journal.Verify(o.fsys, o.dir, o.meta, checkBatches, progress)
	if errors.As(err, new(*journal.CorruptError)) {
		return exitWith(exitDamaged, err)
	}
	if err != nil {
		return exitWith(exitDataDir, err)
	}
	fmt.Fprintf(e.stdout, "segments %d  frames %d  records %d  bytes %d  first %d  end %d  proven %d\n", v.Segments, v.Frames, v.Records, v.Bytes, v.First, v.End, v.ProvenF)
	if v.Gaps > 0 {
		fmt.Fprintf(e.stdout, "gaps %d, where journal repair gave up damaged bytes\n", v.Gaps)
	}
	for _, f := range v.Findings {
		kind := "torn tail (cut at the next start)"
		if f.Damage {
			kind = "DAMAGE to acknowledged bytes"
		}
		if f.Segment < 0 {
			fmt.Fprintf(e.stdout, "%s: %s\n", kind, f.Cause)
			continue
		}
		fmt.Fprintf(e.stdout, "%s: segment %020d, offset %d to %d: %s\n", kind, f.Segment, f.From, f.To, f.Cause)
	}
	damaged := v.Damaged()
	entries, bad := o.checkIndexes(e.stdout, v)
	fmt.Fprintf(e.stdout, "index entries %d\n", entries)
	cat, err := catalog.Load(o.fsys, c.Dir)
	if err != nil {
		damaged++
		fmt.Fprintf(e.stdout, "DAMAGE: %v\n", err)
	} else if cat.Offset() < v.First {
		damaged++
		fmt.Fprintf(e.stdout, "DAMAGE: the catalog's snapshot stands at %d, and the journal begins at %d: what lies between is lost\n", cat.Offset(), v.First)
	} else {
		fmt.Fprintf(e.stdout, "catalog at %d, topics %d\n", cat.Offset(), len(cat.View().Topics))
	}
	if _, err := journal.LoadMetaCopy(o.fsys, c.Dir); err != nil {
		fmt.Fprintf(e.stdout, "the copy of meta is not sound, the next start makes it anew: %v\n", err)
	}
	if err := catalog.CheckCopy(o.fsys, c.Dir); err != nil && cat != nil && cat.Offset() > 0 {
		fmt.Fprintf(e.stdout, "the copy of catalog.snapshot is not sound, the next snapshot makes it anew: %v\n", err)
	}
	if damaged > 0 {
		return exitWith(exitDamaged, fmt.Errorf("%d places are damaged", damaged))
	}
	if bad > 0 {
		fmt.Fprintf(e.stdout, "sound, but for %d index files, which a running server makes anew when it finds them\n", bad)
		return nil
	}
	fmt.Fprintln(e.stdout, "sound")
	return nil
}

// checkBatches compares every batch's own checksum.
func checkBatches(f journal.Frame) error {
	return f.EachRecord(func(r journal.Record) error {
		if r.Kind == journal.RecordCommand {
			_, err := catalog.DecodeCommand(r.Payload)
			return err
		}
		_, err := recordbatch.Parse(r.Payload)
		return err
	})
}

func (o *offline) checkIndexes(w io.Writer, v journal.Verification) (entries, bad int) {
	for start := v.First; start+journal.Offset(o.meta.SegmentBytes) <= v.End; start += journal.Offset(o.meta.SegmentBytes) {
		n, err := index.Check(o.fsys, o.dir, start)
		entries += n
		if err != nil {
			bad++
			fmt.Fprintf(w, "index of segment %020d: %v\n", start, err)
		}
	}
	return entries, bad
}

// Run dumps.
func (c *JournalDumpCmd) Run(e *env) error {
	if c.From < 0 || c.Limit < 0 {
		return usageErrorf("--from and --limit are not negative")
	}
	o, err := openOffline(c.Dir)
	if err != nil {
		return err
	}
	defer o.lock.Close()
	names, err := o.partitionNames(c.Dir)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(e.stdout, 1<<16)
	defer out.Flush()
	damaged := 0
	end, err := journal.Dump(o.fsys, o.dir, o.meta, journal.Offset(c.From), c.Limit, func(f journal.Frame) error {
		if e.ctx.Err() != nil {
			return errInterrupted
		}
		fmt.Fprintf(out, "frame offset=%d bytes=%d type=%s term=%d index=%d records=%d time=%s flushed=%d\n", f.Start, int64(f.End()-f.Start),
			frameTypes[f.Type], f.Term, f.Index, f.Records, time.UnixMilli(f.TimestampMs).UTC().Format("2006-01-02T15:04:05.000Z"), f.Flushed)
		return f.EachRecord(func(r journal.Record) error { return dumpRecord(out, r, names) })
	}, func(f journal.Finding) {
		kind := "torn"
		if f.Damage {
			kind = "DAMAGE"
			damaged++
		}
		fmt.Fprintf(out, "%s offset=%d to=%d cause=%q\n", kind, f.From, f.To, f.Cause)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "end offset=%d\n", end)
	if damaged > 0 {
		return exitWith(exitDamaged, fmt.Errorf("acknowledged bytes are damaged in %d places: `tidemark journal verify %s` says more", damaged, c.Dir))
	}
	return nil
}

var frameTypes = map[journal.FrameType]string{journal.FrameData: "data", journal.FrameEmpty: "empty", journal.FrameMembership: "membership", journal.FrameFiller: "filler", journal.FrameGap: "gap"}

func dumpRecord(w io.Writer, r journal.Record, names map[uint32]string) error {
	if r.Kind == journal.RecordCommand {
		cmd, err := catalog.DecodeCommand(r.Payload)
		if err != nil {
			_, err = fmt.Fprintf(w, "  record offset=%d kind=command bytes=%d error=%q\n", r.At, len(r.Payload), err)
			return err
		}
		_, err = fmt.Fprintf(w, "  record offset=%d kind=command bytes=%d %s\n", r.At, len(r.Payload), cmd)
		return err
	}
	name := names[r.Partition]
	if name == "" {
		name = fmt.Sprintf("#%d", r.Partition)
	}
	i, err := recordbatch.Parse(r.Payload)
	if err != nil {
		_, err = fmt.Fprintf(w, "  record offset=%d kind=batch partition=%s bytes=%d error=%q\n", r.At, name, len(r.Payload), err)
		return err
	}
	_, err = fmt.Fprintf(w, "  record offset=%d kind=batch partition=%s base=%d count=%d bytes=%d codec=%s epoch=%d producer=%d sequence=%d\n", r.At, name,
		i.Base, i.Count, len(r.Payload), recordbatch.Codecs[min(i.Codec(), len(recordbatch.Codecs)-1)], i.LeaderEpoch, i.ProducerID, i.BaseSequence)
	return err
}

// partitionNames brings the catalog to the journal's end and names its partitions TOPIC-INDEX.
func (o *offline) partitionNames(dataDir string) (map[uint32]string, error) {
	cat, err := catalog.Load(o.fsys, dataDir)
	if err != nil {
		return nil, exitWith(exitDamaged, err)
	}
	names := make(map[uint32]string)
	note := func() {
		cat.Partitions(func(p *catalog.Partition) { names[p.ID] = fmt.Sprintf("%s-%d", p.Topic, p.Index) })
	}
	note()
	_, err = journal.Dump(o.fsys, o.dir, o.meta, cat.Offset(), 0, func(f journal.Frame) error {
		return f.EachRecord(func(r journal.Record) error {
			if r.Kind != journal.RecordCommand {
				return nil
			}
			cmd, err := catalog.DecodeCommand(r.Payload)
			if err != nil {
				return err
			}
			if cat.Apply(cmd); cmd.CreateTopic != nil || cmd.CreatePartitions != nil {
				note()
			}
			return nil
		})
	}, nil)
	return names, err
}
