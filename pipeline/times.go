package pipeline

import (
	"errors"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tidemark/journal"
	"tidemark/qos"
)

// Where the time of a request goes. A request carries when each stage had it; each stage reads its clock once a turn. The respond stage adds the parts up, taking together the requests of a turn that have the same times, and
// the connection adds the last part.

// Stage is a part of a request's way to its acknowledgement.
type Stage uint8

const (
	Decode      Stage = iota // from the turn in which it was read, until it is queued
	Admission                // queued for the write stage
	Serialize                // in a turn of the write stage
	CacheWait                // written; the flush that takes it has not begun
	Flush                    // in the flush that takes it
	Replicate                // flushed here, and not yet by a majority; on one node nothing
	Respond                  // its watermarks have passed; it is laid out for its connection
	SocketWrite              // laid out, until it was handed to the socket
	stageCount
)

// LevelFetch stands beside the levels for answers to Fetch requests: Respond is the time in which one is read, SocketWrite the time until its client has taken it. How long a fetch waits for something to come is nobody's fault and not counted.
const LevelFetch = qos.All + 1

// levelCount is the number of levels that times are kept of.
const levelCount = LevelFetch + 1

func levelName(l qos.Level) string {
	if l == LevelFetch {
		return "fetch"
	}
	return l.String()
}

var stageNames = [stageCount]string{"decode", "admission", "serialize", "cache wait", "flush", "replicate", "respond", "socket write"}

func (s Stage) String() string { return stageNames[s] }

// Label is the stage's name as a metric's label.
func (s Stage) Label() string { return strings.ReplaceAll(stageNames[s], " ", "_") }

// Stages lists all stages in the order of the path.
func Stages() []Stage {
	return []Stage{Decode, Admission, Serialize, CacheWait, Flush, Replicate, Respond, SocketWrite}
}

// Labels say whose a request is. Requests of one client to one topic share one.
type Labels struct {
	ClientID string
	Topic    string // of its first partition
	Turn     string // whose turn it takes at admission: one for all requests of a connection, so that their order is kept
	Weight   int    // how much more than others it may send in a round; 0: as before, or 1

	latency  *clientLatency // respond stage only
	lookedUp time.Duration  // when latency was looked up. Respond stage only
}

// Times are when a request came to each stage, on the pipeline's clock.
type Times struct {
	Read      time.Duration // set before Submit: when its bytes were read; 0: unknown, and no times are kept
	submitted time.Duration
	taken     time.Duration
	placed    time.Duration
}

// flushTime is when the flush was at work that moved flushed to end.
type flushTime struct {
	end          journal.Offset
	began, ended time.Duration
}

// flushTimes are the newest flushes, for the respond stage. The flush goroutine adds one before flushed passes its end.
type flushTimes struct {
	mu     sync.Mutex
	recent []flushTime // guarded by mu; ascending, not yet taken
}

// keptFlushes is how many flushes are remembered. Those that were not taken by then are nobody's any more, or a stalled respond stage's.
const keptFlushes = 256

func (f *flushTimes) add(t flushTime) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.recent) == keptFlushes {
		f.recent = append(f.recent[:0], f.recent[keptFlushes/2:]...)
	}
	f.recent = append(f.recent, t)
}

// moveTo appends what is new to known, which keeps the newest.
func (f *flushTimes) moveTo(known []flushTime) []flushTime {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(known) > keptFlushes {
		known = append(known[:0], known[len(known)-keptFlushes/2:]...)
	}
	known = append(known, f.recent...)
	f.recent = f.recent[:0]
	return known
}

// timeRun is requests with the same times.
type timeRun struct {
	times  Times
	end    journal.Offset
	level  qos.Level
	labels *Labels
	n      int64
}

// timer adds up where the time of requests goes. Respond stage, but for observe.
type timer struct {
	p       *Pipeline
	run     timeRun
	flushes []flushTime // ascending

	hist    [levelCount][stageCount]latency
	total   [qos.All + 1]latency // from reading to having the answer ready
	clients clientLatencies
	slow    slowRequests

	profile atomic.Pointer[profile] // one is being taken
}

// answered takes a request that is about to be answered with success.
func (t *timer) answered(r *Request) {
	if r.Times.Read == 0 {
		return
	}
	k := &t.run
	if k.n > 0 && k.times == r.Times && k.end == r.end && k.level == r.Level && k.labels == r.Labels {
		k.n++
		return
	}
	t.endRun()
	*k = timeRun{times: r.Times, end: r.end, level: r.Level, labels: r.Labels, n: 1}
}

// endRun observes the run that is open.
func (t *timer) endRun() {
	k := &t.run
	if k.n == 0 {
		return
	}
	now, at := t.p.Now(), &k.times
	var parts [stageCount]time.Duration
	take := func(s Stage, took time.Duration) {
		t.observe(k, s, took)
		parts[s] = took
	}
	take(Decode, at.submitted-at.Read)
	take(Admission, at.taken-at.submitted)
	take(Serialize, at.placed-at.taken)
	since, marks := at.placed, k.level.Marks()
	if marks&(qos.Flushed|qos.Committed) != 0 {
		if f, ok := t.flushOf(k.end); ok && f.ended >= since { // not a retry of one that was flushed before
			began := max(f.began, since)
			take(CacheWait, began-since)
			take(Flush, f.ended-began)
			since = f.ended
		}
	}
	if marks&(qos.Replicated|qos.Committed) != 0 {
		take(Replicate, 0)
	}
	take(Respond, now-since)
	took := now - at.Read
	t.total[k.level].add(took, k.n)
	t.clients.add(k.labels, took, now, k.n)
	if limit := t.p.opts.SlowRequest; limit > 0 && took > limit {
		t.slow.saw(t.p, k, took, now, parts)
	}
	k.n, k.labels = 0, nil
}

// flushOf finds the flush that moved flushed to end or past it.
func (t *timer) flushOf(end journal.Offset) (flushTime, bool) {
	if n := len(t.flushes); n == 0 || t.flushes[n-1].end < end {
		t.flushes = t.p.flushes.moveTo(t.flushes)
	}
	i := sort.Search(len(t.flushes), func(i int) bool { return t.flushes[i].end >= end })
	if i == len(t.flushes) {
		return flushTime{}, false
	}
	return t.flushes[i], true
}

func (t *timer) observe(k *timeRun, s Stage, took time.Duration) {
	t.hist[k.level][s].add(took, k.n)
	if p := t.profile.Load(); p != nil {
		p.add(k.level, s, k.labels, took, k.n)
	}
}

// Observe takes a part of n requests' way that the pipeline does not see. Any goroutine.
func (p *Pipeline) Observe(level qos.Level, labels *Labels, s Stage, n int64, took time.Duration) {
	p.respond.times.observe(&timeRun{level: level, labels: labels, n: n}, s, took)
}

// Profile is where the time of the requests went that were answered while it was taken.
type Profile struct {
	Took    time.Duration
	Samples []ProfileSample
	Table   []ProfileRow // by level and then by stage
}

// ProfileSample is the requests of one client to one topic at one level, in one stage.
type ProfileSample struct {
	Level    qos.Level // or LevelFetch
	Stage    Stage
	ClientID string
	Topic    string
	Requests int64
	Time     time.Duration // of all of them
}

// LevelName is the sample's level as text.
func (s *ProfileSample) LevelName() string { return levelName(s.Level) }

// LevelName is the row's level as text.
func (r *ProfileRow) LevelName() string { return levelName(r.Level) }

// ProfileRow is all requests at one level, in one stage.
type ProfileRow struct {
	Level    qos.Level
	Stage    Stage
	Requests int64
	Time     time.Duration
	P50, P99 time.Duration
}

// profile is one that is being taken.
type profile struct {
	client string // only this one's; "": all

	mu      sync.Mutex
	samples map[ProfileSample]*ProfileSample // guarded by mu; by all but Requests and Time
	rows    [levelCount][stageCount]*hdrhistogram.Histogram
}

// maxProfileSamples bounds a profile; what is new beyond it goes to a client and topic named profileOther.
const (
	maxProfileSamples = 10_000
	profileOther      = "(other)"
)

func (p *profile) add(level qos.Level, s Stage, labels *Labels, took time.Duration, n int64) {
	if p.client != "" && (labels == nil || labels.ClientID != p.client) {
		return
	}
	took = max(took, 0)
	key := ProfileSample{Level: level, Stage: s}
	if labels != nil {
		key.ClientID, key.Topic = labels.ClientID, labels.Topic
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.samples[key]
	if have == nil && len(p.samples) >= maxProfileSamples {
		key.ClientID, key.Topic = profileOther, profileOther
		have = p.samples[key]
	}
	if have == nil {
		k := key
		have = &k
		p.samples[key] = have
	}
	have.Requests += n
	have.Time += took * time.Duration(n)
	if p.rows[level][s] == nil {
		p.rows[level][s] = hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 2)
	}
	_ = p.rows[level][s].RecordValues(int64(min(took, time.Hour)/time.Microsecond), n) // an hour and more is an hour
}

// ErrProfiling says that a profile is being taken already.
var ErrProfiling = errors.New("pipeline: a profile is being taken already; try again when it is done")

// TakeProfile adds up where the time of requests goes until done is closed. client, when it is not empty, is the one whose requests count.
func (p *Pipeline) TakeProfile(done <-chan struct{}, client string) (*Profile, error) {
	t := &p.respond.times
	taking := &profile{client: client, samples: make(map[ProfileSample]*ProfileSample)}
	if !t.profile.CompareAndSwap(nil, taking) {
		return nil, ErrProfiling
	}
	begin := p.Now()
	<-done
	t.profile.Store(nil)
	out := &Profile{Took: p.Now() - begin}
	taking.mu.Lock() // who had it when it ended may still add
	defer taking.mu.Unlock()
	var times [levelCount][stageCount]time.Duration
	for _, s := range taking.samples {
		out.Samples = append(out.Samples, *s)
		times[s.Level][s.Stage] += s.Time
	}
	for level := range taking.rows {
		for stage, h := range taking.rows[level] {
			if h == nil {
				continue
			}
			us := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
			out.Table = append(out.Table, ProfileRow{Level: qos.Level(level), Stage: Stage(stage), Requests: h.TotalCount(), Time: times[level][stage], P50: us(50), P99: us(99)})
		}
	}
	return out, nil
}
