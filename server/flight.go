package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/trace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"tidemark/pipeline"
)

// Flight keeps the newest seconds of the Go execution trace, so that what led to a slow request can be looked at afterwards: GET /debug/trace/flight hands them out for `go tool trace`, and each SlowRequest event writes a file of them and one line of log. There is one in a process.
type Flight struct {
	rec *trace.FlightRecorder
	dir string // of the files
	log zerolog.Logger

	mu      sync.Mutex // held while the trace is written: one at a time
	pending sync.WaitGroup
}

// Bounds of flight traces.
const (
	// FlightBytes is about how much of a trace is kept, and how large a file becomes.
	FlightBytes = 16 << 20
	// FlightFiles is how many files are kept; the oldest goes for a new one.
	FlightFiles = 10
	flightName  = "slow-"
)

// StartFlight begins to keep the newest trace, of window. Files go to dir, which is made with the first of them.
func StartFlight(window time.Duration, dir string, log zerolog.Logger) (*Flight, error) {
	f := &Flight{rec: trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: window, MaxBytes: FlightBytes}), dir: dir, log: log}
	if err := f.rec.Start(); err != nil {
		return nil, fmt.Errorf("flight recorder: %w", err)
	}
	return f, nil
}

// Close ends the recording, when the files that are being written are done.
func (f *Flight) Close() {
	f.pending.Wait()
	f.rec.Stop()
}

// Slow tells of a slow request. It does not block: the file is written by a goroutine of its own, unless one is being written.
func (f *Flight) Slow(e pipeline.SlowRequest) {
	if !f.mu.TryLock() {
		logSlow(f.log, e).Msg("slow request; a trace is being written already")
		return
	}
	f.pending.Go(func() {
		defer f.mu.Unlock()
		name, err := f.save()
		line := logSlow(f.log, e)
		if err != nil {
			line.AnErr("trace_error", err).Msg("slow request; its trace could not be written")
			return
		}
		line.Str("trace", name).Msg("slow request")
	})
}

// logSlow is a line of log with the time of each stage.
func logSlow(log zerolog.Logger, e pipeline.SlowRequest) *zerolog.Event {
	line := log.Warn().Str("qos_level", e.Level.String()).Str("client_id", e.ClientID).Str("topic", e.Topic).Dur("took_ms", e.Took).Int64("others", e.Others)
	for _, s := range pipeline.Stages() {
		if t := e.Stages[s]; t > 0 {
			line = line.Dur(s.Label()+"_ms", t)
		}
	}
	return line
}

// save writes a file and removes the oldest beyond FlightFiles.
func (f *Flight) save() (name string, err error) {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return "", err
	}
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), flightName) {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old) // their names are times
	for len(old) >= FlightFiles {
		if err := os.Remove(filepath.Join(f.dir, old[0])); err != nil {
			return "", err
		}
		old = old[1:]
	}
	name = filepath.Join(f.dir, flightName+time.Now().UTC().Format("20060102T150405.000000000")+".trace")
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = f.rec.WriteTo(file)
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(name)
		return "", err
	}
	return name, nil
}

// ServeHTTP is GET /debug/trace/flight.
func (f *Flight) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if !f.mu.TryLock() {
		http.Error(w, "a trace is being written already; try again", http.StatusConflict)
		return
	}
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="flight.trace"`)
	_, _ = f.rec.WriteTo(w) // an error is the client's going
}
