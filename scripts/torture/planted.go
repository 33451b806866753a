package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tidemark/internal/planted"
)

// plantedBugs builds the tools with the tag planted and runs them with one bug at a time: each must be found. It begins with none, which must pass.
func plantedBugs(f *flag.FlagSet) func(*run) error {
	only := f.String("only", "", "this bug alone")
	return func(r *run) error {
		tool := filepath.Join(r.dir, "torture")
		build := exec.Command("go", "build", "-tags", "planted", "-o", tool, "./scripts/torture")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return err
		}
		for _, t := range plantedTools("") {
			if out, found, err := plantedRun(tool, "none", r.seed, t); err != nil {
				return err
			} else if found {
				r.fail("%s fails without a bug:\n%s", t[0], out)
			}
		}
		for _, bug := range planted.All {
			if *only != "" && string(bug) != *only {
				continue
			}
			caught := ""
			for _, t := range plantedTools(bug) {
				out, found, err := plantedRun(tool, bug, r.seed, t)
				if err != nil {
					return err
				}
				if found {
					caught = fmt.Sprintf("%s by %s: %s", bug, t[0], firstFailure(out))
					break
				}
			}
			if caught == "" {
				r.fail("%s is not found", bug)
				continue
			}
			r.pass()
			fmt.Println("caught", caught)
		}
		return nil
	}
}

// plantedTools are the forms that are to find a bug, as they are called, the likeliest first.
func plantedTools(bug planted.Bug) [][]string {
	points, disk, rot := []string{"crashpoints", "--points", "6000"}, []string{"errors", "--strace=false", "--passes", "3"}, []string{"rot", "--damages", "1000"}
	txn := []string{"txn", "--rounds", "2"}
	groups := []string{"groups", "--cuts", "300", "--rounds", "-1"}
	switch bug {
	case planted.IgnoreSyncError:
		return [][]string{disk, points, rot}
	case planted.CutInMidLog:
		return [][]string{rot, points, disk}
	case planted.CommitBeforeSync:
		return [][]string{groups}
	case planted.MarkerMissing:
		return [][]string{txn}
	case "":
		return [][]string{points, disk, rot, groups, txn}
	}
	return [][]string{points, disk, rot}
}

// plantedRun runs a form with a bug. A form that says FAIL or dies has found it.
func plantedRun(tool string, bug planted.Bug, seed uint64, args []string) (out string, found bool, err error) {
	cmd := exec.Command(tool, append(args, "--seed", fmt.Sprint(seed))...)
	cmd.Env = append(os.Environ(), planted.Variable+"="+string(bug), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -tags=planted")) // a form that builds the server builds it with the bug
	b, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(b), true, nil
	}
	return string(b), false, err
}

// firstFailure is the line that says how a bug was found.
func firstFailure(out string) string {
	for line := range strings.Lines(out) {
		if s, ok := strings.CutPrefix(line, "FAIL "); ok {
			return strings.TrimSpace(s)
		}
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(out)
}
