package server

import (
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tidemark/pipeline"
	"tidemark/server/kafka"
)

// Admin is the operator's HTTP listener, with its own mux: /healthz, /readyz, /status, /metrics, /qos (qos.go) and /debug/pprof/, with /debug/pprof/pipeline (profile.go) among them; /debug/trace/flight (flight.go). It has no authentication, so it is on loopback unless told otherwise.
type Admin struct {
	http  http.Server
	l     net.Listener
	ready atomic.Pointer[func() error]

	server atomic.Pointer[Server]
	flight atomic.Pointer[Flight]
}

// ErrStarting is what /readyz says before recovery is done.
var ErrStarting = errors.New("starting: recovery is not done")

// StartAdmin listens. Until Ready is called /readyz answers 503.
func StartAdmin(listen string, reg *prometheus.Registry) (*Admin, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	a := &Admin{l: l}
	a.Ready(func() error { return ErrStarting })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := (*a.ready.Load())(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ready\n"))
	})
	mux.HandleFunc("GET /status", a.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/pipeline", a.pipelineProfile)
	mux.HandleFunc("GET /debug/trace/flight", func(w http.ResponseWriter, r *http.Request) {
		if f := a.flight.Load(); f != nil {
			f.ServeHTTP(w, r)
			return
		}
		http.Error(w, "no flight is recorded: set profile.flight, or profile.slow_request", http.StatusNotFound)
	})
	a.qosRoutes(mux)
	a.http = http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = a.http.Serve(l) }() // ends with Close
	return a, nil
}

// Addr is where it listens.
func (a *Admin) Addr() string { return a.l.Addr().String() }

// Ready sets what /readyz asks: nil means ready.
func (a *Admin) Ready(check func() error) { a.ready.Store(&check) }

// Records sets the flight recorder that /debug/trace/flight hands out.
func (a *Admin) Records(f *Flight) { a.flight.Store(f) }

// Serves sets the server whose status and profiles are asked for.
func (a *Admin) Serves(s *Server) { a.server.Store(s) }

// status is GET /status: a picture of the stages and of the connections, as JSON.
func (a *Admin) status(w http.ResponseWriter, _ *http.Request) {
	s := a.server.Load()
	if s == nil {
		http.Error(w, ErrStarting.Error(), http.StatusServiceUnavailable)
		return
	}
	behind, groups := s.broker.GroupLags(maxStatusGroups)
	err := writeJSON(w, struct {
		pipeline.Status
		Connections int                     `json:"connections"`
		FetchMemory kafka.FetchMemory       `json:"fetch_memory"`
		Policies    map[string]PolicyCounts `json:"policies"`
		Groups      int                     `json:"groups"`
		Behind      []kafka.GroupLag        `json:"groups_most_behind"`
	}{s.pipeline.Status(), s.Connections(), s.broker.FetchMemory(), s.policyCounts(), groups, behind})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// maxStatusGroups is how many consumer groups /status shows, those that are most behind.
const maxStatusGroups = 20

// Close ends the listener and its connections.
func (a *Admin) Close() error { return a.http.Close() }
