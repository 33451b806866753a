// Beside shows what policies and turns do for clients beside each other, on a real server.
//
//	go run ./scripts/beside [--seconds 20] [--only rates,changes,fairness,memory]
//
//	changes   a policy that is set while a producer runs: in force within a second, with no reconnect and no error, and there after kill -9
//	rates     a client limited to 5 MiB/s gets that, 5 % more or less, once its burst is spent: kcat, franz-go, and a client that ignores throttle_time_ms; another client is not slowed
//	fairness  one client at full speed with batches of 1 MiB beside one with 100 messages a second, whose p99 is at most twice what it is alone with the flush of 1 MiB, in the median of five turns
//	memory    ten clients that offer twice what the disk takes, which a control group limits (wants root): resident memory stays flat
//
// It prints what it measured and ends with "N passed, N failed".
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tidemark/scripts/node"
)

// bench is one run: a server of its own in a temporary folder.
type bench struct {
	dir, binary string
	n           *node.Node
	seconds     time.Duration

	passed, failed int
}

var forms = []struct {
	name string
	run  func(*bench) error
}{{"changes", changes}, {"rates", rates}, {"fairness", fairness}, {"memory", memory}}

func main() {
	seconds := flag.Int("seconds", 20, "how long each measurement lasts")
	only := flag.String("only", "", "forms, comma-separated; all by default")
	flag.Parse()
	b := &bench{seconds: time.Duration(*seconds) * time.Second}
	if err := b.run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "beside:", err)
		b.failed++
	}
	fmt.Printf("%d passed, %d failed\n", b.passed, b.failed)
	if b.failed > 0 || b.passed == 0 {
		os.Exit(1)
	}
}

func (b *bench) run(only string) (err error) {
	if b.dir, err = os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-beside-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.binary, err = node.Build(b.dir); err != nil {
		return err
	}
	for _, f := range forms {
		if only != "" && !slices.Contains(strings.Split(only, ","), f.name) {
			continue
		}
		if err := b.start(f.name); err != nil {
			return err
		}
		err := f.run(b)
		b.n.Kill()
		os.RemoveAll(filepath.Join(b.dir, f.name))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// start runs the server on a data directory of this name.
func (b *bench) start(data string) (err error) {
	b.n, err = node.StartWith(node.Options{Admin: true}, b.binary, filepath.Join(b.dir, data),
		"journal.segment.bytes=64MiB", "journal.cache.bytes=64MiB", "journal.retention.bytes=512MiB", "topics.partitions=1")
	if err != nil {
		return err
	}
	return b.createTopic()
}

// check prints a line and counts it.
func (b *bench) check(ok bool, format string, args ...any) {
	verdict := "ok  "
	if ok {
		b.passed++
	} else {
		verdict = "FAIL"
		b.failed++
	}
	fmt.Printf("%s "+format+"\n", append([]any{verdict}, args...)...)
}
