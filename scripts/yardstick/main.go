// Yardstick measures what the machine allows, for figures to be compared with in the same run. It is the simplest durable server that one would write by hand: no protocol, no offsets, no recovery.
//
//	go run ./scripts/yardstick --mode drop    --connections 64 --in-flight 1 --bytes 1100   read frames and answer them: loopback and scheduler
//	go run ./scripts/yardstick --mode direct  --connections 64 --in-flight 1 --bytes 1100   and write them with O_DIRECT and RWF_DSYNC before that
//	go run ./scripts/yardstick --mode probe   --bytes 4096                                  synced writes of that size, one after the other: the disk alone
//	go run ./scripts/yardstick --mode cold    FILE...                                       files that are not cached, through a loopback connection with read and write
//
// Server and clients are two processes. It prints one JSON object. Linux only.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// options are the flags.
type options struct {
	mode        string
	dir         string
	connections int
	inFlight    int
	bytes       int
	duration    time.Duration
	serve       bool
}

func main() {
	var o options
	flag.StringVar(&o.mode, "mode", "direct", "drop, direct, probe or cold")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "folder for the file that is written; on the disk that is measured")
	flag.IntVar(&o.connections, "connections", 64, "connections, of drop and direct")
	flag.IntVar(&o.inFlight, "in-flight", 1, "frames on each of them without an answer")
	flag.IntVar(&o.bytes, "bytes", 1100, "of a frame, or of a write of probe")
	flag.DurationVar(&o.duration, "duration", 3*time.Second, "how long")
	flag.BoolVar(&o.serve, "serve", false, "be the server process; for the yardstick itself")
	flag.Parse()
	if err := run(o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
}

func run(o options, files []string) error {
	if o.connections < 1 || o.inFlight < 1 || o.bytes < 1 || o.bytes > frameMax || o.duration <= 0 {
		return fmt.Errorf("--connections, --in-flight, --bytes and --duration must be more than 0, and --bytes at most %d", frameMax)
	}
	path := filepath.Join(o.dir, fmt.Sprintf("yardstick-%d.stream", os.Getpid()))
	defer os.Remove(path)
	var result any
	var err error
	switch {
	case o.mode != "drop" && o.mode != "direct" && o.mode != "probe" && o.mode != "cold":
		return fmt.Errorf("--mode %q: drop, direct, probe or cold", o.mode)
	case o.serve && o.mode == "cold":
		return sendFiles(files)
	case o.serve:
		return serve(o, path)
	case o.mode == "probe":
		result, err = probe(path, o)
	case o.mode == "cold":
		result, err = cold(files)
	default:
		result, err = load(o)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
