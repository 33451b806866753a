package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server"
	"tidemark/server/kafka"
)

// ServeCmd is `tidemark serve`.
type ServeCmd struct {
	Config      string            `help:"YAML file with settings." type:"path" env:"TIDEMARK_CONFIG" placeholder:"FILE"`
	DataDir     string            `help:"Directory of the journal; made when missing. Default ./data." placeholder:"DIR"`
	Listen      string            `help:"HOST:PORT for clients; port 0 is chosen by the system. Default 127.0.0.1:9092." placeholder:"HOST:PORT"`
	Advertise   string            `help:"HOST:PORT that clients are told. Default: where it listens." placeholder:"HOST:PORT"`
	AdminListen *string           `help:"HOST:PORT for health, metrics and profiles; empty for none. Default 127.0.0.1:9644." placeholder:"HOST:PORT"`
	NodeID      string            `help:"This node's number. Default 1." placeholder:"N"`
	LogLevel    string            `help:"debug, info, warn or error. Default info." placeholder:"LEVEL"`
	Set         map[string]string `help:"Any setting, as KEY=VALUE; can be given more than once." placeholder:"KEY=VALUE" mapsep:"none"`
	PrintConfig bool              `help:"Print all settings with their effective values, as YAML, and end."`
}

// Help is kong's detailed help.
func (ServeCmd) Help() string {
	return `Runs one node until SIGINT or SIGTERM. Settings come from flags, TIDEMARK_* variables and the --config file, in that order.
It logs one JSON object a line on stderr. What acks means to a client is a level: acks 0 one-way, 1 persistence and -1 all
(both can be set), and 101 to 104 name receive, persistence, replication and all outright.

Examples:

    tidemark serve
    tidemark serve --data-dir /var/lib/tidemark --listen 0.0.0.0:9092 --advertise broker.example:9092
    tidemark serve --set flush.interval=20ms --set qos.acks_1=receive
    tidemark serve --print-config > tidemark.yaml`
}

// flags are the settings that the command line gave, by key.
func (c *ServeCmd) flags() map[string]string {
	over := make(map[string]string)
	for key, v := range c.Set {
		over[key] = v
	}
	for key, v := range map[string]string{
		"data.dir": c.DataDir, "server.listen": c.Listen, "server.advertise": c.Advertise,
		"node.id": c.NodeID, "log.level": c.LogLevel,
	} {
		if v != "" {
			over[key] = v
		}
	}
	if c.AdminListen != nil {
		over["admin.listen"] = *c.AdminListen
	}
	return over
}

// Run serves.
func (c *ServeCmd) Run(e *env) error {
	s, err := loadSettings(c.Config, environ(), c.flags())
	if err != nil {
		return exitWith(exitUsage, err)
	}
	if c.PrintConfig {
		var b strings.Builder
		s.print(&b)
		_, err := fmt.Fprint(e.stdout, b.String())
		return err
	}
	if err := s.adoptDirectory(); err != nil {
		return exitWith(exitUsage, err)
	}
	level, err := zerolog.ParseLevel(s.LogLevel)
	if err != nil || level < zerolog.DebugLevel || level > zerolog.ErrorLevel {
		return usageErrorf("log.level: %q is not debug, info, warn or error", s.LogLevel)
	}
	zerolog.TimeFieldFormat = time.RFC3339Nano
	log := zerolog.New(e.stderr).Level(level).With().Timestamp().Logger()
	return serve(e.ctx, s, log)
}

// diskGoroutines is how many goroutines may block in disk calls at a time: flush, mark, upkeep and a cold read. Each holds a P while it does.
const diskGoroutines = 2

// tuneRuntime gives the Go runtime the settings that fit a process whose cache lies outside of its heap, unless the environment says otherwise.
func tuneRuntime(s *settings) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU() + diskGoroutines)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(s.MemoryMax - s.CacheBytes)
	}
}

// serve runs a node until ctx ends or the disk or the endpoint fails.
func serve(ctx context.Context, s *settings, log zerolog.Logger) error {
	cores := runtime.NumCPU()
	tuneRuntime(s)
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: gcTime})), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var admin *server.Admin
	if s.AdminListen != "" {
		var err error
		if admin, err = server.StartAdmin(s.AdminListen, reg); err != nil {
			return exitWith(exitFailure, fmt.Errorf("admin.listen %s: %w (another server? choose another with --admin-listen, or \"\" for none)", s.AdminListen, err))
		}
		defer admin.Close()
	}
	// Before anything is written: a server that cannot listen leaves no data directory behind.
	l, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return exitWith(exitFailure, fmt.Errorf("server.listen %s: %w (another server? choose another with --listen)", s.Listen, err))
	}
	l.Close()
	failed := make(chan error, 2)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	flight, err := startFlight(s, log)
	if err != nil {
		return exitWith(exitFailure, err)
	}
	if flight != nil {
		defer flight.Close()
	}
	p, err := pipeline.Open(pipelineOptions(s, log, flight, fail))
	if err != nil {
		return openError(s, err)
	}
	logRecovered(log, s, p)
	p.Metrics(reg)
	if err := setInitial(ctx, s, p, log); err != nil {
		return initialError(ctx, err, p.Close())
	}
	srv, err := server.Start(serverOptions(s, log, cores, fail), p)
	if err != nil {
		return exitWith(exitFailure, errors.Join(fmt.Errorf("server.listen %s: %w", s.Listen, err), p.Close()))
	}
	srv.Metrics(reg)
	if admin != nil {
		admin.Serves(srv)
		admin.Records(flight)
		admin.Ready(p.Err)
	}
	logListening(log, s, srv, admin)

	var cause error
	select {
	case <-ctx.Done():
		log.Info().Msg("stopping: answering what is pending")
	case cause = <-failed:
	}
	if admin != nil {
		admin.Ready(func() error { return errStopping })
	}
	srv.Drain()
	err = p.Close()
	srv.Close()
	switch {
	case errors.As(cause, new(*journal.FatalError)) || errors.As(err, new(*journal.FatalError)):
		return exitWith(exitDisk, errors.Join(cause, notTwice(err, cause)))
	case cause != nil || err != nil:
		return errors.Join(cause, err)
	}
	log.Info().Msg("stopped")
	return nil
}

// gcTime is what of the Go runtime's metrics says how much processor time the garbage collector takes.
var gcTime = regexp.MustCompile("^/cpu/classes/gc/")

// setInitial sets the policies of the file whose name was never set, and says which of the others are not as the file has them.
func setInitial(ctx context.Context, s *settings, p *pipeline.Pipeline, log zerolog.Logger) error {
	for _, policy := range s.Policies {
		v := p.View()
		if !v.PolicyKnown(policy.Name) {
			if err := kafka.SetPolicy(ctx, p, policy, true, commandTimeout); err != nil {
				return fmt.Errorf("%s: %q: %w", policiesKey, policy.Name, err)
			}
			continue
		}
		switch have := v.Policies.Get(policy.Name); {
		case have == nil:
			log.Info().Str("policy", policy.Name).Msg("policy of the file was taken away at run time and stays so")
		case !slices.Equal(have.Said(), policy.Said()) || have.Match() != policy.Match():
			log.Info().Str("policy", policy.Name).Str("for", have.Match()).Strs("says", have.Said()).Msg("policy of the file is set already with other content and stays so")
		}
	}
	return nil
}

// initialError is why a node does not start without a policy of its file: its clients might rely on it. closed is what became of the pipeline.
func initialError(ctx context.Context, err, closed error) error {
	if ctx.Err() != nil {
		return closed // it was stopped
	}
	code := exitFailure
	switch {
	case errors.As(closed, new(*journal.FatalError)):
		code = exitDisk
	case errors.Is(err, qos.ErrPolicy), errors.Is(err, qos.ErrPolicyTie), errors.Is(err, qos.ErrPolicies):
		code = exitUsage
	}
	return exitWith(code, errors.Join(err, closed))
}

var errStopping = errors.New("stopping")

// notTwice drops the error that Close repeats.
func notTwice(err, cause error) error {
	if cause != nil && errors.Is(err, cause) {
		return nil
	}
	return err
}

// flightDefault is what is kept of the trace when only slow requests were asked for.
const flightDefault = 5 * time.Second

// startFlight begins the recording if somebody wants it.
func startFlight(s *settings, log zerolog.Logger) (*server.Flight, error) {
	window := s.Flight
	if window == 0 && s.SlowRequest > 0 {
		window = flightDefault
	}
	if window == 0 {
		return nil, nil
	}
	return server.StartFlight(window, filepath.Join(s.DataDir, "traces"), log)
}

func pipelineOptions(s *settings, log zerolog.Logger, flight *server.Flight, fail func(error)) pipeline.Options {
	spares := int(s.Spares)
	if spares == 0 {
		spares = -1
	}
	return pipeline.Options{
		DataDir: s.DataDir, NodeID: int32(s.NodeID),
		SegmentBytes: s.SegmentBytes, CacheBytes: s.CacheBytes, Spares: spares,
		FrameTarget: int(s.FrameTarget), AdmissionBytes: s.AdmissionBytes, DirtyBytes: s.DirtyBytes,
		FlushInterval: s.FlushInterval, FlushBytes: s.FlushBytes,
		RetentionBytes: s.RetentionBytes, RetentionAge: s.RetentionAge, ProducerExpiry: s.ProducerExpiry,
		SlowRequest: s.SlowRequest, OnEvent: server.LogEvents(log, flight), OnFatal: fail,
	}
}

// commandTimeout bounds a change of the catalog whose client names no timeout.
const commandTimeout = 30 * time.Second

// descriptorReserve is kept for segments, index files and the process itself.
const descriptorReserve = 256

func serverOptions(s *settings, log zerolog.Logger, cores int, fail func(error)) server.Options {
	loops := int(s.Loops)
	if loops == 0 {
		loops = max(1, cores/2) // the stages need processors as well
	}
	connections := int(s.Connections)
	if limit := descriptorLimit() - descriptorReserve; connections > limit {
		log.Warn().Int("connections_max", max(limit, 1)).Int("descriptors", limit+descriptorReserve).Msg("fewer connections than server.connections.max: raise the limit of open files")
		connections = max(limit, 1)
	}
	return server.Options{
		Listen: s.Listen, Advertise: s.Advertise, Transport: s.Transport, Loops: loops,
		Kafka: kafka.Config{
			Acks: qos.AcksMap{One: s.AcksOne, All: s.AcksAll}, AutoCreate: s.AutoCreate, DefaultPartitions: int32(s.DefaultPartitions),
			MaxMessageBytes: int(s.MaxMessageBytes), RequestMaxBytes: int(s.RequestMax),
			FetchMaxBytes: int(s.FetchMaxBytes), FetchMemoryBytes: s.FetchMemoryBytes, CommandTimeout: commandTimeout,
			Group: kafka.GroupConfig{InitialDelay: s.GroupDelay, Heartbeat: s.GroupHeartbeat, Session: s.GroupSession, MinSession: s.GroupSessionMin, MaxSession: s.GroupSessionMax,
				Members: int(s.GroupMembers), MemoryBytes: s.GroupMemory, OffsetRetention: s.OffsetRetention},
			Txn: kafka.TxnConfig{MaxTimeout: s.TxnTimeoutMax, Expiry: s.TxnExpiry},
		},
		RequestMaxBytes: int(s.RequestMax), ConnectionInFlightBytes: s.InFlightBytes, ConnectionUnsentBytes: int(s.UnsentBytes), SendTimeout: s.SendTimeout,
		MaxConnections: connections, Log: log, OnFailed: fail,
	}
}

// openError gives the reasons against starting their exit codes, and says the way out.
func openError(s *settings, err error) error {
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return exitWith(exitDataDir, fmt.Errorf("data directory %s is in use by another server: stop it, or choose another with --data-dir", s.DataDir))
	case errors.As(err, new(*journal.DamageError)): // says the way out itself
		return exitWith(exitDamaged, err)
	case errors.As(err, new(*journal.CorruptError)):
		return exitWith(exitDamaged, fmt.Errorf("%w; nothing was changed: `tidemark journal repair %s` says what can be done", err, s.DataDir))
	case errors.As(err, new(*journal.FatalError)):
		return exitWith(exitDisk, err)
	}
	return exitWith(exitDataDir, fmt.Errorf("data directory %s: %w", s.DataDir, err))
}

func logRecovered(log zerolog.Logger, s *settings, p *pipeline.Pipeline) {
	r := p.Recovered()
	if r.Created {
		log.Info().Str("data_dir", s.DataDir).Str("cluster_id", p.Meta().ClusterID).Msg("data directory created")
	}
	if r.DirectIOErr != nil {
		log.Warn().Err(r.DirectIOErr).Msg("no direct I/O: flushing with pwrite and fdatasync")
	}
	log.Info().Int("segments", r.Segments).Int64("frames_checked", r.Frames).Int64("bytes_checked", r.Bytes).Int64("torn_bytes_cut", r.TornBytes).
		Int64("records_replayed", r.Replayed).Int64("first_offset", int64(r.Checkpoint)).Int64("end_offset", int64(r.End)).Int64("proven_offset", int64(r.ProvenF)).Dur("took_ms", r.Took).
		Int32("leader_epoch", p.LeaderEpoch()).Msg("journal recovered")
}

func logListening(log zerolog.Logger, s *settings, srv *server.Server, admin *server.Admin) {
	if !loopback(s.Listen) {
		log.Warn().Str("listen", s.Listen).Msg("listening beyond loopback without authentication: whoever reaches the port can read and write everything")
	}
	if s.AdminListen != "" && !loopback(s.AdminListen) {
		log.Warn().Str("admin_listen", s.AdminListen).Msg("admin listener beyond loopback without authentication")
	}
	e := log.Info().Str("listen", srv.Addr()).Str("advertised", srv.Advertised())
	if admin != nil {
		e = e.Str("admin_listen", admin.Addr())
	}
	e.Str("acks_0", qos.OneWay.String()).Str("acks_1", s.AcksOne.String()).Str("acks_all", s.AcksAll.String()).
		Str("single_node", "a majority is one: replication waits for memory alone and survives no more than receive").Msg("listening")
}
