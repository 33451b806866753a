package main

import (
	"bufio"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tidemark/scripts/node"
)

// soak runs clients at all levels against a server that is stopped or killed from time to time, and looks at its memory and its goroutines at the end of each stretch: both stay flat, and every record is accounted for.
func soak(f *flag.FlagSet) func(*run) error {
	total := f.Duration("duration", 0, "how long; default 30 s, long 1 h")
	return func(r *run) error {
		stretch := 30 * time.Second
		pick(r, total, 30*time.Second, time.Hour)
		stretch = min(stretch, *total/6)
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		var first soakSample
		for i := 0; i < int(*total/stretch); i++ {
			data := filepath.Join(r.dir, fmt.Sprintf("data-%d", i/3)) // three stretches on one directory
			if i%3 == 0 {
				if err = os.RemoveAll(filepath.Join(r.dir, fmt.Sprintf("data-%d", i/3-1))); err != nil {
					break
				}
				r.clients = r.crowd()
			}
			var s soakSample
			if s, err = r.stretch(binary, data, stretch, i); err != nil {
				err = fmt.Errorf("stretch %d: %w", i, err)
				break
			}
			fmt.Printf("stretch %d: %d MiB resident, %d goroutines\n", i, s.resident>>20, s.goroutines)
			if i == 0 {
				first = s
			}
			if s.resident > first.resident*3/2+32<<20 || s.goroutines > first.goroutines+10 {
				r.fail("stretch %d: %d MiB and %d goroutines, and after the first %d MiB and %d", i, s.resident>>20, s.goroutines, first.resident>>20, first.goroutines)
				continue
			}
			r.pass()
		}
		return err
	}
}

// soakSample is a server at the end of a stretch, after its clients have gone.
type soakSample struct{ resident, goroutines int64 }

func (r *run) stretch(binary, data string, d time.Duration, i int) (s soakSample, err error) {
	n, err := node.StartWith(node.Options{Admin: true}, binary, data, smallServer...)
	if err != nil {
		return s, err
	}
	defer n.Kill()
	if i%3 == 0 {
		if err := createTopic(n.Addr, int32(len(r.clients))); err != nil {
			return s, err
		}
	}
	stop := make(chan struct{})
	if err := all(r.clients, n.Addr, stop, func() {
		time.Sleep(d) // the stretch itself
		close(stop)
	}); err != nil {
		return s, err
	}
	for _, c := range r.clients {
		_, lost, err := c.check(n.Addr)
		if err != nil {
			return s, err
		}
		if lost > 0 && i%3 > 0 {
			r.count("lost at levels that may", int64(lost))
		}
		r.count("records read back", int64(len(c.acked)))
	}
	if s.goroutines, err = goroutines(n.Admin); err != nil {
		return s, err
	}
	s.resident = n.Resident()
	if i%2 == 0 {
		if code := n.Stop(); code != 0 {
			return s, fmt.Errorf("it stopped with exit code %d: %s", code, n.Last())
		}
		r.count("stops", 1)
		return s, nil
	}
	r.count("kills", 1)
	return s, nil // the deferred Kill
}

// goroutines asks a server for their number.
func goroutines(admin string) (int64, error) {
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			f, err := strconv.ParseFloat(v, 64)
			return int64(f), err
		}
	}
	return 0, fmt.Errorf("%s has no go_goroutines", admin)
}
