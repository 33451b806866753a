package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/scripts/node"
)

// diskErrors makes the k-th operation of each kind fail, for every k, under load: first on a file system in memory, then, with strace, in the real binary.
//
// A failed write or sync of the journal, the mark or a directory ends the acknowledging for good; a full disk does not. In each case the power is cut afterwards, and what was acknowledged has to be there.
func diskErrors(f *flag.FlagSet) func(*run) error {
	passes := f.Int("passes", 0, "different histories in which every operation fails once; default 20, long 1000")
	real := f.Bool("strace", true, "also the real binary, under strace")
	return func(r *run) error {
		pick(r, passes, 20, 1000)
		kinds := []struct {
			name string
			kind vfs.OpKind
		}{
			{"write", vfs.OpWrite}, {"synced write", vfs.OpWriteSync}, {"sync", vfs.OpSync}, {"directory sync", vfs.OpSyncDir}, {"open", vfs.OpOpen}, {"create", vfs.OpCreate},
			{"allocate", vfs.OpAllocate}, {"rename", vfs.OpRename}, {"remove", vfs.OpRemove}, {"read", vfs.OpRead}, {"list", vfs.OpList},
		}
		for pass := range *passes {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
				for _, k := range kinds {
					for n := int64(1); ; n++ {
						struck := false
						err := guard(func() (err error) { struck, err = r.errorRound(uint64(pass), k.kind, n, errno); return err })
						if err == nil && !struck {
							break // there are not so many of them
						}
						r.check(err, "pass %d, %v at %s %d", pass, errno, k.name, n)
					}
				}
			}
		}
		if *real {
			if err := r.straceRounds(); err != nil {
				return err
			}
		}
		return nil
	}
}

// errorRound runs a pipeline whose n-th operation of a kind fails.
func (r *run) errorRound(pass uint64, kind vfs.OpKind, n int64, errno syscall.Errno) (struck bool, err error) {
	rng := r.rng(pass<<40 | uint64(kind)<<20 | uint64(n))
	mem, t := vfs.NewMem(), &told{}
	for i := range t.parts {
		t.parts[i].producer.ID = int64(i - 1) // 0 has none
	}
	var at atomic.Pointer[vfs.Op]
	var seen atomic.Int64
	faulty := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind&kind == 0 || seen.Add(1) != n {
			return nil
		}
		at.Store(&op)
		r.count("failed operations", 1)
		r.count("unanswered requests at them", int64(t.now().pending))
		return &fs.PathError{Op: "injected", Path: op.Name, Err: errno}
	})
	p, err := pipeline.Open(torturedOptions(faulty))
	if err == nil {
		running := at.Load() == nil
		var refused atomic.Int64
		werr := t.work(p, rng, 80, nil, func(error) { refused.Add(1) })
		fatal := p.Err()
		cerr := p.Close()
		r.count("requests refused", refused.Load())
		op := at.Load()
		switch {
		case op == nil:
			return false, errors.Join(werr, cerr)
		case running && op.Kind == vfs.OpWriteSync && fatal == nil && cerr == nil:
			return true, fmt.Errorf("a synced write of %s failed, and the pipeline went on as if it had not", op.Name)
		case fatal != nil:
			r.count("stopped", 1)
		}
	} else if at.Load() == nil {
		return false, err
	} else {
		r.count("refused to start", 1)
	}
	disk := mem.Crash(rng)
	if p, err = pipeline.Open(torturedOptions(disk)); err != nil {
		return true, fmt.Errorf("it does not start again: %w", err)
	}
	m := t.now()
	_, err = m.verify(p)
	return true, errors.Join(err, p.Close())
}

// straceRounds injects errors into system calls of the real binary while a client writes: it has to end with the exit code of a failed disk, and to have all that was acknowledged when it is started again.
func (r *run) straceRounds() error {
	if _, err := exec.LookPath("strace"); err != nil {
		return fmt.Errorf("strace is needed (Debian: apt-get install strace), or --strace=false: %w", err)
	}
	binary, err := node.Build(r.dir)
	if err != nil {
		return err
	}
	r.check(r.straceReads(binary), "strace, reads")
	for _, round := range []struct {
		inject string
		code   int // of the exit; 0: it goes on, and stops when it is asked to
	}{
		{"pwritev2:error=EIO:when=40", exitDisk}, {"pwritev2:error=ENOSPC:when=60", exitDisk}, {"pwritev2:error=EIO:when=200", exitDisk}, {"fsync:error=EIO:when=5+", exitDisk},
		{"renameat:error=EIO:when=3", 0}, {"fallocate:error=ENOSPC:when=2+2", 0},
	} {
		r.check(r.straceRound(binary, round.inject, round.code), "strace, %s", round.inject)
	}
	return nil
}

// straceReads has reads of the journal fail: at start the server says so and does not serve; while it runs, a fetch of what has left the cache is answered with an error, and with the records once reads go well again.
func (r *run) straceReads(binary string) error {
	data := filepath.Join(r.dir, "data-reads")
	small := []string{"journal.segment.bytes=4MiB", "journal.cache.bytes=4MiB"}
	n, err := node.Start(binary, data, small...)
	if err != nil {
		return err
	}
	defer func() { n.Kill() }()
	c := &client{name: "reads", acks: qos.AcksBase + int16(qos.Persistence), producer: kwire.NoProducer, rng: r.rng(2)}
	if err := createTopic(n.Addr, 1); err != nil {
		return err
	}
	for range 40 { // 10 MiB: most of it has left the cache
		if err := c.one(n.Addr); err != nil {
			return err
		}
	}
	n.Kill() // recovery has something to read
	inject := []string{"-f", "-qq", "-o", filepath.Join(r.dir, "strace.out"), "-e", "trace=pread64", "-e", "inject=pread64:error=EIO"}
	under := node.Options{Under: append([]string{"strace", "-D", "--seccomp-bpf"}, inject...)}
	if started, err := node.StartWith(under, binary, data, small...); err == nil {
		started.Kill()
		return errors.New("no read succeeds, and the server starts all the same")
	}
	if n, err = node.Start(binary, data, small...); err != nil {
		return err
	}
	tracer := exec.Command("strace", append(inject, "-p", strconv.Itoa(n.PID()))...)
	if err := tracer.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(clientTimeout); !traced(n.PID()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.Join(errors.New("strace does not attach: is ptrace allowed?"), tracer.Process.Kill())
		}
	}
	_, _, failed := c.check(n.Addr)
	if err := tracer.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = tracer.Wait() // the signal
	if failed == nil {
		return errors.New("no read succeeds, and a fetch is answered all the same")
	}
	if !errors.Is(failed, kerr.KafkaStorageError) {
		return fmt.Errorf("a fetch whose reads fail is answered with: %w (%s)", failed, n.Last())
	}
	r.count("fetches that failed with a read", 1)
	if _, _, err := c.check(n.Addr); err != nil {
		return fmt.Errorf("reads go well again: %w", err)
	}
	if code := n.Stop(); code != 0 {
		return fmt.Errorf("the server stopped with exit code %d: %s", code, n.Last())
	}
	return nil
}

// traced says whether a tracer is attached to every thread of a process.
func traced(pid int) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil || bytes.Contains(b, []byte("TracerPid:\t0\n")) {
			return false
		}
	}
	return len(tasks) > 0
}

// straceSeconds is how long a round lasts in which the server does not end by itself.
const straceSeconds = 3

// exitDisk is the server's exit code after a fatal disk error.
const exitDisk = 7

func (r *run) straceRound(binary, inject string, wantCode int) error {
	data := filepath.Join(r.dir, "data-"+strings.NewReplacer(":", "-", "=", "-").Replace(inject))
	small := []string{"journal.segment.bytes=256KiB", "journal.cache.bytes=1MiB"}
	n, err := node.Start(binary, data, small...) // made before, so that the injected call is one of the running server
	if err != nil {
		return err
	}
	c := &client{name: "strace", acks: qos.AcksBase + int16(qos.Persistence), idempotent: true, patient: true, producer: kwire.NoProducer, rng: r.rng(1)}
	if err := createTopic(n.Addr, 1); err != nil {
		n.Kill()
		return err
	}
	if code := n.Stop(); code != 0 {
		return fmt.Errorf("the server stopped with exit code %d", code)
	}
	call, _, _ := strings.Cut(inject, ":")
	n, err = node.StartWith(node.Options{Under: []string{"strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", filepath.Join(r.dir, "strace.out"), "-e", "trace=" + call, "-e", "inject=" + inject}}, binary, data, small...)
	if err == nil {
		stop := make(chan struct{})
		end := sync.OnceFunc(func() { close(stop) })
		timer := time.AfterFunc(straceSeconds*time.Second, end)
		inFlight := 0
		err := all([]*client{c}, n.Addr, stop, func() {
			select {
			case <-n.Ended():
			case <-stop:
			}
			inFlight = int(c.inFlight.Load())
			end()
		})
		timer.Stop()
		code := n.Stop()
		r.count("unanswered requests at a failed system call", int64(inFlight))
		if code != wantCode || err != nil {
			return errors.Join(fmt.Errorf("exit code %d, wanted %d (%s)", code, wantCode, n.Last()), err)
		}
	}
	r.count("failed system calls", 1)
	n, err = node.Start(binary, data, small...)
	if err != nil {
		return fmt.Errorf("it does not start again: %w", err)
	}
	defer n.Kill()
	_, _, err = c.check(n.Addr)
	return err
}
