// Floor compares the server with a yardstick: a durable server without protocol, offsets or recovery, whose folder is named. Both run in turns, since a machine's speed moves within minutes: what counts is the ratio of the medians.
//
//	go run ./scripts/floor --yardstick DIR [--rounds 5] [--duration 3s] [--limit 0.9]
//
// The yardstick is a Go program that takes -mode direct -c CONNECTIONS -w IN_FLIGHT -d DURATION -dir DIR and prints an object with frames_per_s.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tidemark/scripts/node"
)

func main() {
	yardstick := flag.String("yardstick", "", "folder of the yardstick's Go program")
	rounds := flag.Int("rounds", 5, "turns")
	duration := flag.Duration("duration", 3*time.Second, "of each run")
	limit := flag.Float64("limit", 0.9, "the ratio of medians that is to be reached")
	flag.Parse()
	if *yardstick == "" {
		fmt.Fprintln(os.Stderr, "floor: --yardstick DIR is missing")
		os.Exit(2)
	}
	passed, failed, err := run(*yardstick, *rounds, *duration, *limit)
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		failed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func run(yardstick string, rounds int, duration time.Duration, limit float64) (passed, failed int, err error) {
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-floor-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	binary, err := node.Build(dir)
	if err != nil {
		return 0, 0, err
	}
	yard := filepath.Join(dir, "yardstick")
	build := exec.Command("go", "build", "-o", yard, ".")
	build.Dir, build.Stderr = yardstick, os.Stderr
	if err := build.Run(); err != nil {
		return 0, 0, err
	}
	for _, load := range [][2]int{{64, 1}, {8, 64}} {
		// Segments are used again, as the yardstick's file is: the first round only fills the pool and is not counted.
		n, err := node.Start(binary, filepath.Join(dir, fmt.Sprintf("data-%dx%d", load[0], load[1])), "journal.retention.bytes=512MiB")
		if err != nil {
			return passed, failed, err
		}
		var ours, theirs []float64
		for round := range rounds + 1 {
			y, err := rate(yard, "frames_per_s", "-mode", "direct", "-dir", dir, "-c", strconv.Itoa(load[0]), "-w", strconv.Itoa(load[1]), "-d", duration.String())
			if err != nil {
				return passed, failed, err
			}
			t, err := rate(binary, "requests_per_s", "bench", "produce", "--bootstrap", n.Addr, "--connections", strconv.Itoa(load[0]), "--in-flight", strconv.Itoa(load[1]),
				"--record-bytes", "1024", "--qos", "persistence", "--duration", duration.String(), "--warmup", "500ms", "--json")
			if err != nil {
				return passed, failed, err
			}
			fmt.Printf("%d x %d round %d: tidemark %.0f/s, yardstick %.0f/s, ratio %.2f\n", load[0], load[1], round, t, y, t/y)
			if round > 0 {
				ours, theirs = append(ours, t), append(theirs, y)
			}
		}
		n.Stop()
		ratio := median(ours) / median(theirs)
		verdict := "ok"
		if ratio < limit {
			verdict = "FAIL"
			failed++
		} else {
			passed++
		}
		fmt.Printf("%s %d connections x %d in flight: median %.0f/s, yardstick direct %.0f/s, ratio %.2f, limit %.2f\n", verdict, load[0], load[1], median(ours), median(theirs), ratio, limit)
	}
	return passed, failed, nil
}

// rate runs a program and takes one number from the object that it prints.
func rate(program, field string, args ...string) (float64, error) {
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	// What a run leaves for the disk to do, such as the yardstick's deleted file, is not for the next one to wait for.
	unix.Sync()
	time.Sleep(time.Second)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	var values map[string]any
	if err := json.Unmarshal(out, &values); err != nil {
		return 0, err
	}
	v, ok := values[field].(float64)
	if !ok || v == 0 {
		return 0, fmt.Errorf("%s printed no %s", filepath.Base(program), field)
	}
	return v, nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
