// Torture tries to break Tidemark, and checks that nothing that was acknowledged is lost.
//
//	go run ./scripts/torture NAME [--long] [--seed N] [flags]
//
// Each form lies in its own file and has a short form, for CI, and a long one. Servers get ports of the system's choice, data lies in temporary folders, and only processes that were started here are ended. A run
// prints its seed, its commit, what it did and how much was unanswered when it did it, and ends with "N passed, N failed". docs/reliability.md has the ledger of long runs.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// form is one way to torture.
type form struct {
	name, about string
	// prepare adds the form's own flags and returns what it does once they are parsed.
	prepare func(*flag.FlagSet) func(*run) error
}

var forms []form

func init() {
	forms = []form{
		{"kill9", "kill -9 under mixed load; what was acknowledged is read back", kill9},
		{"powerloss", "the same with the power: a file system in a loop device forgets what was not synced", powerLoss},
		{"crashpoints", "a crash at every step of the disk, in memory: torn, reordered and forgotten writes, and crashes in recovery", crashpoints},
		{"rot", "flips a bit or cuts a file anywhere in the data directory; nothing wrong is served and nothing is lost in silence", rot},
		{"enospc", "fills a small file system: refused in time, read all the while, and on again when there is space", enospc},
		{"slowdisk", "stalls of 10 ms to 5 s: deadlines, bounds, and nothing forgotten afterwards", slowDisk},
		{"errors", "EIO and ENOSPC at every k-th operation on the disk, in memory and, with strace, in the real binary", diskErrors},
		{"groups", "power failures and kill -9 while consumer groups commit and members come and go", groups},
		{"txn", "kill -9 of the server and of an application that reads, transforms and writes in transactions: each record exactly once", transactions},
		{"soak", "mixed load with restarts, for an hour in its long form: memory and goroutines stay flat, every record is accounted for", soak},
		{"hostile", "ten thousand idle connections, clients that never read, noise, giants and floods beside a good client", hostile},
		{"planted", "plants known bugs, one at a time, and wants each to be found by the other forms", plantedBugs},
	}
}

func main() {
	if len(os.Args) >= 2 {
		for _, f := range forms {
			if f.name == os.Args[1] {
				torture(f, os.Args[2:])
				return
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: torture NAME [--long] [--seed N] [flags]; torture NAME -h shows a form's flags")
	for _, f := range forms {
		fmt.Fprintf(os.Stderr, "  %-12s %s\n", f.name, f.about)
	}
	os.Exit(2)
}

// torture runs a form and ends the process with its verdict.
func torture(f form, args []string) {
	r := &run{form: f.name, tally: make(map[string]int64)}
	flags := flag.NewFlagSet("torture "+f.name, flag.ExitOnError)
	flags.Uint64Var(&r.seed, "seed", uint64(time.Now().UnixNano()), "of everything that is chosen at random")
	flags.BoolVar(&r.long, "long", false, "the long form")
	do := f.prepare(flags)
	_ = flags.Parse(args) // it ends the process itself
	passed, failed, err := 0, 0, r.begin()
	if err == nil {
		r.endOnSignal()
		err = do(r)
		if r.interrupted.Load() {
			select {} // what is under way is undone, and then the process ends
		}
		passed, failed = r.report()
		r.end()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		failed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}
