package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	envprovider "github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"tidemark/catalog"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/qos"
	"tidemark/server"
	"tidemark/server/kafka"
)

// settings is everything that serve can be told, with its value. Flags win over TIDEMARK_* variables, those over the YAML file, and that over the defaults.
type settings struct {
	DataDir, Listen, Advertise, AdminListen, LogLevel, Transport string
	NodeID                                                       int64

	SegmentBytes, CacheBytes, Spares, RetentionBytes int64
	RetentionAge, FlushInterval, ProducerExpiry      time.Duration
	GroupHeartbeat, GroupSession                     time.Duration
	GroupDelay, GroupSessionMin, GroupSessionMax     time.Duration
	OffsetRetention, TxnTimeoutMax, TxnExpiry        time.Duration
	GroupMembers, GroupMemory                        int64
	SendTimeout, SlowRequest, Flight                 time.Duration
	FrameTarget, FlushBytes, DirtyBytes              int64
	AdmissionBytes, MemoryMax                        int64

	RequestMax, MaxMessageBytes, FetchMaxBytes, FetchMemoryBytes int64
	Connections, InFlightBytes, UnsentBytes, Loops               int64
	DefaultPartitions                                            int64
	AutoCreate                                                   bool
	AcksOne, AcksAll                                             qos.Level
	Policies                                                     []qos.Policy // that a new data directory begins with

	explicit map[string]bool // keys that somebody set
}

const (
	kib = int64(1 << 10)
	mib = int64(1 << 20)
	gib = int64(1 << 30)
)

// settingRow describes one setting: where its value goes, its default and its range.
type settingRow struct {
	key      string
	to       any
	fallback string
	min, max int64 // of sizes (bytes), numbers and durations (ns)
	doc      string
}

// rows is the table of all settings. The YAML file has their keys, nested or dotted; the variable of flush.interval is TIDEMARK_FLUSH_INTERVAL.
func (s *settings) rows() []settingRow {
	return []settingRow{
		{"data.dir", &s.DataDir, "./data", 0, 0, "directory of the journal and everything else; made when missing"},
		{"node.id", &s.NodeID, "1", 1, math.MaxInt32, "this node's number; a data directory keeps the one that it was made with"},
		{"server.listen", &s.Listen, "127.0.0.1:9092", 0, 0, "host:port for clients; port 0 is chosen by the system"},
		{"server.advertise", &s.Advertise, "", 0, 0, "host:port that clients are told; empty: where it listens"},
		{"admin.listen", &s.AdminListen, "127.0.0.1:9644", 0, 0, "host:port for /healthz, /readyz, /metrics and /debug/pprof/; empty: none"},
		{"log.level", &s.LogLevel, "info", 0, 0, "debug, info, warn or error"},
		{"server.transport", &s.Transport, "gnet", 0, 0, "gnet or net"},
		{"server.loops", &s.Loops, "0", 0, 256, "gnet's event loops; 0: one for two cores"},
		{"server.connections.max", &s.Connections, "10000", 1, 1_000_000, "open client connections"},

		{"journal.segment.bytes", &s.SegmentBytes, "256MiB", journal.MinSegmentBytes, journal.MaxSegmentBytes, "size of a segment file, a power of two; fixed when the data directory is made"},
		{"journal.cache.bytes", &s.CacheBytes, "256MiB", mib, 64 * gib, "size of the JournalCache, a multiple of 64 KiB"},
		{"journal.spares", &s.Spares, "2", 0, 64, "zeroed segments kept ahead of need; of those that retention lets go of twice as many"},
		{"journal.retention.bytes", &s.RetentionBytes, "0", 0, math.MaxInt64, "drop the oldest segments when the journal is larger; 0: never"},
		{"journal.retention.age", &s.RetentionAge, "0s", 0, math.MaxInt64, "drop the oldest segments when their frames are older; 0: never"},

		{"frame.target", &s.FrameTarget, "128KiB", 4 * kib, 64 * mib, "where a turn of the write stage stops adding requests"},
		{"flush.interval", &s.FlushInterval, "50ms", int64(time.Millisecond), int64(time.Minute), "how long bytes that nobody waits for may stay unflushed"},
		{"flush.bytes", &s.FlushBytes, "2MiB", 4 * kib, gib, "how many such bytes are flushed at once"},
		{"dirty.bytes", &s.DirtyBytes, "2MiB", 64 * kib, gib, "how much may be unflushed while somebody waits for a flush"},
		{"admission.bytes", &s.AdmissionBytes, "64MiB", mib, 16 * gib, "requests that wait for the write stage"},
		{"memory.max", &s.MemoryMax, "1GiB", 64 * mib, 1024 * gib, "the budget that the cache, the queues and the Go heap live in"},

		{"request.max", &s.RequestMax, "0", 0, gib, "the largest request; 0: the smaller of 16 MiB and half of frame.max"},
		{"max.message.bytes", &s.MaxMessageBytes, "1048588", 61, gib, "the largest record batch of a topic that says nothing else"},
		{"fetch.max.bytes", &s.FetchMaxBytes, "16MiB", kib, gib, "the largest Fetch answer, if fetch.memory.bytes allows it; one whole batch is sent in any case"},
		{"fetch.memory.bytes", &s.FetchMemoryBytes, "64MiB", mib, 16 * gib, "all Fetch answers that are being made or sent; one gets a sixteenth of what is free, at least a batch"},
		{"connection.inflight.bytes", &s.InFlightBytes, "16MiB", 64 * kib, gib, "requests of one connection that are not answered; past it the connection is not read"},
		{"connection.unsent.bytes", &s.UnsentBytes, "1MiB", 64 * kib, gib, "responses of one connection that its client has not taken; past it the connection is not read"},

		{"connection.send.timeout", &s.SendTimeout, "15s", int64(time.Second), int64(24 * time.Hour), "how long a client may take nothing of what was sent to it before its connection is closed"},

		{"topics.auto_create", &s.AutoCreate, "true", 0, 0, "whether asking for a topic makes it"},
		{"topics.partitions", &s.DefaultPartitions, "4", 1, catalog.MaxPartitions, "partitions of a topic that is made without a number"},
		{"group.initial_delay", &s.GroupDelay, "100ms", 0, int64(time.Minute), "how long a consumer group's first generation waits for more members, from the newest on"},
		{"group.session.min", &s.GroupSessionMin, "6s", int64(time.Millisecond), int64(time.Hour), "the shortest session timeout that a consumer may ask for"},
		{"group.session.max", &s.GroupSessionMax, "30m", int64(time.Second), int64(24 * time.Hour), "the longest"},
		{"group.consumer.heartbeat", &s.GroupHeartbeat, "5s", int64(10 * time.Millisecond), int64(time.Minute), "how often a consumer of the protocol of KIP-848 is to send a heartbeat"},
		{"group.consumer.session", &s.GroupSession, "45s", int64(100 * time.Millisecond), int64(time.Hour), "how long it may send none before its partitions are given to others"},
		{"group.members.max", &s.GroupMembers, "2000", 1, 100_000, "members of one consumer group"},
		{"group.memory.bytes", &s.GroupMemory, "64MiB", mib, 16 * gib, "what the members of all consumer groups say and are told, together"},
		{"offsets.retention", &s.OffsetRetention, "168h", 0, math.MaxInt64, "when committed offsets are forgotten: so long after the last member left, or after the commit if that was later; 0: never"},
		{"transaction.timeout.max", &s.TxnTimeoutMax, "15m", int64(time.Second), int64(24 * time.Hour), "the longest that a producer may ask its transactions to take; one that takes longer than its producer said is aborted"},
		{"transaction.expiry", &s.TxnExpiry, "168h", int64(time.Minute), math.MaxInt64, "when a transactional id that nobody used is forgotten"},
		{"producer.expiry", &s.ProducerExpiry, "24h", int64(time.Minute), math.MaxInt64, "when an idempotent producer that wrote nothing is forgotten"},
		{"profile.slow_request", &s.SlowRequest, "0s", 0, int64(time.Hour), "a request that takes longer is logged with its time in each stage, and a trace of what led to it is written to traces/ in the data directory, at most one a second, ten files of about 16 MiB; 0: none is"},
		{"profile.flight", &s.Flight, "0s", 0, int64(time.Minute), "how much of the Go execution trace is kept for /debug/trace/flight; 0: none, or 5 s if there is a profile.slow_request"},
		{"qos.acks_1", &s.AcksOne, "persistence", 0, 0, "the level that acks=1 asks for"},
		{"qos.acks_all", &s.AcksAll, "all", 0, 0, "the level that acks=-1 asks for"},
	}
}

// envPrefix begins the variables; these are not settings.
const envPrefix = "TIDEMARK_"

var otherVariables = []string{"TIDEMARK_ADMIN", "TIDEMARK_BOOTSTRAP", "TIDEMARK_CLIENT_ID", "TIDEMARK_CONFIG"}

func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// loadSettings reads defaults, file, environment and flags (by key), and refuses what is unknown, malformed or impossible, by name.
func loadSettings(path string, environ []string, flags map[string]string) (*settings, error) {
	s := &settings{explicit: make(map[string]bool)}
	rows := s.rows()
	known := make(map[string]string, len(rows)) // variable → key
	for _, r := range rows {
		known[variable(r.key)] = r.key
	}
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return nil, fmt.Errorf("config file %s: %w", path, err)
		}
	}
	var unknown error
	err := k.Load(envprovider.Provider(".", envprovider.Opt{Prefix: envPrefix, EnvironFunc: func() []string { return environ }, TransformFunc: func(name, value string) (string, any) {
		key, ok := known[name]
		if !ok && !slices.Contains(otherVariables, name) {
			unknown = fmt.Errorf("variable %s is no setting; `tidemark serve --print-config` lists them", name)
		}
		return key, value
	}}), nil)
	if err == nil {
		err = unknown
	}
	if err != nil {
		return nil, err
	}
	over := make(map[string]any, len(flags))
	for key, v := range flags {
		over[key] = v
	}
	if err := k.Load(confmap.Provider(over, "."), nil); err != nil {
		return nil, err
	}
	if s.Policies, err = initialPolicies(k.Get(policiesKey)); err != nil {
		return nil, err
	}
	values := k.All()
	delete(values, policiesKey)
	for _, r := range rows {
		text := r.fallback
		if v, ok := values[r.key]; ok {
			if v == nil { // "key:" in the file, with nothing behind it
				return nil, fmt.Errorf("%s: no value; leave the line out for its default, %q", r.key, r.fallback)
			}
			text = fmt.Sprint(v)
			s.explicit[r.key] = true
			delete(values, r.key)
		}
		if err := r.set(text); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		return nil, fmt.Errorf("setting %q is unknown; `tidemark serve --print-config` lists them", key)
	}
	return s, s.relations()
}

// set parses text and checks its range.
func (r *settingRow) set(text string) error {
	bad := func(what string) error {
		return fmt.Errorf("%s: %q is not %s", r.key, text, what)
	}
	switch to := r.to.(type) {
	case *string:
		*to = text
	case *bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return bad("true or false")
		}
		*to = v
	case *qos.Level:
		v, err := qos.ParseLevel(text)
		if err != nil {
			return fmt.Errorf("%s: %w", r.key, err)
		}
		*to = v
	case *time.Duration:
		v, err := time.ParseDuration(text)
		if err != nil || int64(v) < r.min || int64(v) > r.max {
			return bad(fmt.Sprintf("a duration from %v to %v, like 50ms or 24h", time.Duration(r.min), time.Duration(r.max)))
		}
		*to = v
	case *int64:
		unit := "number of bytes, like 1048576 or 1MiB,"
		v, err := humanize.ParseBytes(text)
		if !r.isBytes() {
			unit = "whole number"
			v, err = strconv.ParseUint(text, 10, 63)
		}
		if err != nil || v > math.MaxInt64 || int64(v) < r.min || int64(v) > r.max {
			return bad(fmt.Sprintf("a %s from %d to %d", unit, r.min, r.max))
		}
		*to = int64(v)
	}
	return nil
}

func (r *settingRow) isBytes() bool {
	return strings.HasSuffix(r.key, "bytes") || r.key == "frame.target" || r.key == "memory.max" || r.key == "request.max"
}

// relations settles what depends on something else. Only values that somebody set are refused for breaking a relation.
func (s *settings) relations() error {
	if s.SegmentBytes&(s.SegmentBytes-1) != 0 {
		return fmt.Errorf("journal.segment.bytes: %d is not a power of two", s.SegmentBytes)
	}
	if s.CacheBytes%journal.MinSegmentBytes != 0 {
		return fmt.Errorf("journal.cache.bytes: %d is not a multiple of %d", s.CacheBytes, journal.MinSegmentBytes)
	}
	frameMax := min(s.SegmentBytes, s.CacheBytes) / 4
	fits := func(key string, v *int64, limit int64, limitName string) error {
		if *v <= limit {
			return nil
		}
		if s.explicit[key] {
			return fmt.Errorf("%s: %d bytes is more than %s, %d bytes", key, *v, limitName, limit)
		}
		*v = limit
		return nil
	}
	const frameName = "half of frame.max (a quarter of the smaller of journal.segment.bytes and journal.cache.bytes)"
	if s.RequestMax == 0 {
		s.RequestMax = min(16*mib, frameMax/2)
	}
	if s.RequestMax < 2*kafka.RequestRoom {
		return fmt.Errorf("request.max: %d bytes is less than %d: no batch would fit beside the rest of a request", s.RequestMax, 2*kafka.RequestRoom)
	}
	used := s.CacheBytes + s.AdmissionBytes + s.FetchMemoryBytes
	for _, err := range []error{
		fits("request.max", &s.RequestMax, frameMax/2, frameName),
		fits("max.message.bytes", &s.MaxMessageBytes, s.RequestMax-kafka.RequestRoom, "request.max less the rest of a request"),
		fits("frame.target", &s.FrameTarget, frameMax, "frame.max (a quarter of the smaller of journal.segment.bytes and journal.cache.bytes)"),
		fits("dirty.bytes", &s.DirtyBytes, s.CacheBytes/2, "half of journal.cache.bytes"),
		fits("flush.bytes", &s.FlushBytes, s.CacheBytes/4, "a quarter of journal.cache.bytes"),
		qos.AcksMap{One: s.AcksOne, All: s.AcksAll}.Validate(),
	} {
		if err != nil {
			return err
		}
	}
	if used > s.MemoryMax {
		if s.explicit["memory.max"] {
			return fmt.Errorf("memory.max: %d bytes is less than journal.cache.bytes, admission.bytes and fetch.memory.bytes together, %d bytes", s.MemoryMax, used)
		}
		s.MemoryMax = used + 512*mib
	}
	if s.Transport != server.TransportGnet && s.Transport != server.TransportNet {
		return fmt.Errorf("server.transport: %q is neither %s nor %s", s.Transport, server.TransportGnet, server.TransportNet)
	}
	return s.addresses()
}

// adoptDirectory takes the segment size that an existing data directory was made with: what depends on it has to fit that.
func (s *settings) adoptDirectory() error {
	meta, err := journal.LoadMeta(vfs.OS{}, s.DataDir)
	known := err == nil && len(meta.Journals) == 1 // else opening the directory says what is wrong
	if !known || meta.Journals[0].SegmentBytes == s.SegmentBytes {
		return nil
	}
	if s.explicit["journal.segment.bytes"] {
		return fmt.Errorf("journal.segment.bytes: %d, and %s was made with %d, which it keeps", s.SegmentBytes, s.DataDir, meta.Journals[0].SegmentBytes)
	}
	s.SegmentBytes = meta.Journals[0].SegmentBytes
	if !s.explicit["request.max"] {
		s.RequestMax = 0
	}
	return s.relations()
}

func (s *settings) addresses() error {
	for _, a := range []struct {
		key, addr string
		optional  bool
	}{{"server.listen", s.Listen, false}, {"server.advertise", s.Advertise, true}, {"admin.listen", s.AdminListen, true}} {
		if a.addr == "" && a.optional {
			continue
		}
		_, port, err := net.SplitHostPort(a.addr)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("%s: %q is not HOST:PORT", a.key, a.addr)
		}
	}
	if s.Advertise != "" && wildcard(s.Advertise) {
		return fmt.Errorf("server.advertise: %s is no address that clients can connect to", s.Advertise)
	}
	if s.Advertise == "" && wildcard(s.Listen) {
		return fmt.Errorf("server.listen: %s is all addresses, which clients cannot connect to: say which one they are told with --advertise HOST:PORT", s.Listen)
	}
	return nil
}

func wildcard(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "" || ip != nil && ip.IsUnspecified())
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// print writes every setting with its effective value, as a YAML file that can be given to --config.
func (s *settings) print(f *strings.Builder) {
	for _, r := range s.rows() {
		var v string
		switch to := r.to.(type) {
		case *string:
			v = strconv.Quote(*to)
		case *bool:
			v = strconv.FormatBool(*to)
		case *qos.Level:
			v = to.String()
		case *time.Duration:
			v = to.String()
		case *int64:
			v = strconv.FormatInt(*to, 10)
		}
		note := "default"
		if s.explicit[r.key] {
			note = "set"
		}
		fmt.Fprintf(f, "# %s (%s; %s)\n%s: %s\n", r.doc, note, variable(r.key), r.key, v)
	}
	policies, err := json.Marshal(s.Policies)
	if err != nil {
		panic(err) // plain structs always encode
	}
	if s.Policies == nil {
		policies = []byte("[]")
	}
	fmt.Fprintf(f, "# policies that are set if none of their name ever was: `tidemark qos set --help` says what they can have (file only)\n%s: %s\n", policiesKey, policies)
}

func environ() []string { return os.Environ() }
