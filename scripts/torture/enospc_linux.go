package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sys/unix"

	"tidemark/internal/kwire"
	"tidemark/scripts/node"
)

// enospc fills a file system of 256 MiB. Writes are refused with an error that clients retry while there is still a reserve; reads go on, also when something else fills the disk to the last byte; writes go on within a
// second of space coming back; and with retention they go on all the time. It needs root and losetup.
func enospc(*flag.FlagSet) func(*run) error {
	return func(r *run) error {
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		rounds := 1
		if r.long {
			rounds = 20
		}
		for i := range rounds {
			if err = r.fillUp(binary, i); err != nil {
				break
			}
		}
		return err
	}
}

const (
	enospcDisk    = 256 << 20
	enospcBallast = 48 << 20
	// enospcResume is the second in which writes have to go on, and what a round trip and a busy machine add.
	enospcResume = 1500 * time.Millisecond
)

func (r *run) fillUp(binary string, round int) error {
	disk, err := newLoopDisk(r.dir, "ext4", enospcDisk)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Join(r.dir, "ext4"))
	defer os.Remove(filepath.Join(r.dir, "ext4.img"))
	r.atEnd(disk.close)
	defer disk.close()
	ballast := filepath.Join(disk.mount, "ballast")
	if err := fill(ballast, enospcBallast); err != nil {
		return err
	}
	n, err := node.Start(binary, filepath.Join(disk.mount, "data"), smallServer...)
	if err != nil {
		return err
	}
	defer func() { n.Kill() }()
	if err := createTopic(n.Addr, 1); err != nil {
		return err
	}
	w := &client{name: "filler", acks: 102, producer: kwire.NoProducer, rng: r.rng(uint64(round))}

	free, refusal := w.fillUntilRefused(n.Addr, disk.mount)
	r.check(wantRetriable(refusal), "round %d: the refusal of a full disk", round)
	r.check(wantAtLeast(free, 1<<20), "round %d: bytes left when appends are refused", round)
	r.count("bytes left when appends are refused", free)
	records := len(w.acked)
	r.count("records acknowledged before", int64(records))
	_, _, err = w.check(n.Addr)
	r.check(err, "round %d: reading while appends are refused", round)

	junk := filepath.Join(disk.mount, "junk")
	_ = fill(junk, enospcDisk) // to the last byte: it ends with ENOSPC
	_, _, err = w.check(n.Addr)
	r.check(err, "round %d: reading from a disk without a byte left", round)
	if err := errors.Join(os.Remove(junk), os.Remove(ballast)); err != nil {
		return err
	}
	begin := time.Now()
	for w.one(n.Addr) != nil && time.Since(begin) < 10*enospcResume {
	}
	took := time.Since(begin)
	r.count("ms until writes went on", took.Milliseconds())
	if took > enospcResume {
		r.fail("round %d: writes went on %v after space had come back", round, took)
	} else {
		r.pass()
	}
	if code := n.Stop(); code != 0 {
		return fmt.Errorf("the server stopped with exit code %d: %s", code, n.Last())
	}

	// With retention the same disk takes more than it holds.
	n, err = node.Start(binary, filepath.Join(disk.mount, "data"), append([]string{"journal.retention.bytes=64MiB"}, smallServer...)...)
	if err != nil {
		return err
	}
	written, refusals := 0, 0
	for written < 2*enospcDisk && refusals < 50 {
		if err := w.one(n.Addr); err != nil {
			refusals++ // the segments of before are dropped one after the other
			time.Sleep(100 * time.Millisecond)
			continue
		}
		written += fillBatch
	}
	r.count("refusals until retention had made room", int64(refusals))
	if written < 2*enospcDisk {
		r.fail("round %d: with retention %d bytes were written, %d were wanted (%s)", round, written, 2*enospcDisk, n.Last())
	} else {
		r.pass()
	}
	if code := n.Stop(); code != 0 {
		return fmt.Errorf("the server stopped with exit code %d: %s", code, n.Last())
	}
	return nil
}

// fill writes a file of n bytes, as many as there is room for.
func fill(name string, n int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	b := make([]byte, 1<<20)
	for ; n > 0 && err == nil; n -= len(b) {
		_, err = f.Write(b)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// fillUntilRefused writes until it is told to stop, and says how much was free then.
func (c *client) fillUntilRefused(addr, mount string) (free int64, refusal error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	conn, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: c.name})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	for refusal == nil {
		refusal = c.oneOn(ctx, conn)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, refusal
}

func wantRetriable(err error) error {
	if kerr.IsRetriable(err) {
		return nil
	}
	return fmt.Errorf("it is not one that clients retry: %w", err)
}

func wantAtLeast(have, want int64) error {
	if have < want {
		return fmt.Errorf("%d, wanted %d at least", have, want)
	}
	return nil
}
