package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
)

// run is one call of a form: its seed, what it counted, and its verdict.
type run struct {
	form string
	long bool
	seed uint64
	dir  string // temporary, on the real disk; removed at the end

	clients []*client // of a soak

	mu     sync.Mutex
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

func (r *run) end() { os.RemoveAll(r.dir) }

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
