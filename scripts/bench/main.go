// Bench runs the scenarios that docs/bench/RESULTS.md has: Tidemark, its own null (the same endpoint, which answers at once), and the yardstick, in turns, since a machine's speed moves within minutes.
//
//	go run ./scripts/bench [--rounds 5] [--duration 3s] [--only S1,S6] [--write]
//
// What counts is a ratio of medians of one run, and of it the worse end of a bootstrapped 95 % interval. All rounds go into the JSON, none is left out. --write puts bench.json and its part of RESULTS.md into docs/bench.
// --brief runs everything on little data, for function: no figure of it means anything, and none is judged.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"tidemark/scripts/node"
)

func main() {
	var b bench
	flag.IntVar(&b.rounds, "rounds", 5, "turns of each scenario")
	flag.DurationVar(&b.duration, "duration", 3*time.Second, "of each measurement")
	only := flag.String("only", "", "scenarios, comma-separated; all by default")
	write := flag.Bool("write", false, "write the run into docs/bench")
	flag.BoolVar(&b.brief, "brief", false, "little data and time, for function")
	flag.Parse()
	if b.brief {
		b.rounds, b.duration = 1, 200*time.Millisecond
	}
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		node.KillAll()
		os.RemoveAll(b.dir)
		os.Exit(130)
	}()
	err := b.run()
	if err == nil && *write {
		err = b.results.write("docs/bench")
	}
	met, missed := b.results.count()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		missed++
	}
	fmt.Printf("%d passed, %d failed\n", met, missed)
	if missed > 0 {
		os.Exit(1)
	}
}
