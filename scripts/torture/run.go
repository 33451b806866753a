package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"tidemark/scripts/node"
)

// run is one call of a form: its seed, what it counted, and its verdict.
type run struct {
	form string
	long bool
	seed uint64
	dir  string // temporary, on the real disk; removed at the end

	clients []*client // of a soak

	interrupted atomic.Bool // endOnSignal ends the process, and nobody else

	mu     sync.Mutex
	undo   []func()         // guarded by mu: what is to be done at the end, or when the run is interrupted; the last first
	tally  map[string]int64 // guarded by mu: faults, and what came of them
	passed int              // guarded by mu
	failed int              // guarded by mu
}

// begin prints what the run is, and makes its directory.
func (r *run) begin() error {
	size := "short"
	if r.long {
		size = "long"
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	fmt.Printf("%s: %s form, seed %d, commit %s\n", r.form, size, r.seed, strings.TrimSpace(string(commit)))
	r.dir, err = os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-"+r.form+"-")
	return err
}

// pick sets what a flag left at zero by the run's form.
func pick[T comparable](r *run, v *T, short, long T) {
	var zero T
	if *v != zero {
		return
	}
	if *v = short; r.long {
		*v = long
	}
}

// atEnd has fn called when the run ends, or is interrupted. fn may be called twice.
func (r *run) atEnd(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.undo = append(r.undo, fn)
}

func (r *run) end() {
	r.mu.Lock()
	undo := r.undo
	r.undo = nil
	r.mu.Unlock()
	for _, fn := range slices.Backward(undo) {
		fn()
	}
	os.RemoveAll(r.dir)
}

// endOnSignal ends the process at SIGINT and SIGTERM: servers are killed, loop devices let go, the directory is removed, and what was found so far is printed.
func (r *run) endOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		<-signals
		r.interrupted.Store(true)
		passed, failed := r.report()
		node.KillAll()
		r.end()
		fmt.Printf("interrupted: %d passed, %d failed\n", passed, failed)
		os.Exit(130)
	}()
}

// rng is a source of its own for one part of the run.
func (r *run) rng(part uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, part)) }

func (r *run) count(what string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tally[what] += n
}

func (r *run) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed++
}

// maxSaid bounds the failures that are printed.
const maxSaid = 10

func (r *run) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if r.failed <= maxSaid {
		fmt.Printf("FAIL "+format+"\n", args...)
	}
}

// check passes if err is nil, and fails with it otherwise.
func (r *run) check(err error, format string, args ...any) bool {
	if err != nil {
		r.fail("%s: %v", fmt.Sprintf(format, args...), err)
		return false
	}
	r.pass()
	return true
}

func (r *run) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// report prints the tally.
func (r *run) report() (passed, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(r.tally)) {
		parts = append(parts, fmt.Sprintf("%s %d", what, r.tally[what]))
	}
	fmt.Printf("%s: %s\n", r.form, strings.Join(parts, ", "))
	return r.passed, r.failed
}

// guard turns a panic of fn into an error: a planted bug may end in one.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(err, fmt.Errorf("panic: %v", p))
		}
	}()
	return fn()
}
