// Load publishes to NATS JetStream or Redis Streams and prints one JSON object, as `tidemark bench` does for Kafka's protocol: in a closed loop each connection keeps --in-flight requests of --records
// messages unanswered; with --rate requests are due at fixed times, and latencies are from then.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

type options struct {
	system, addr                          string
	connections, inFlight, records, bytes int
	rate                                  float64
	warmup, duration                      time.Duration
}

// conn is one connection of a system. Its answers are told to the client that was given when it was made, in the order of what was sent.
type conn interface {
	// send sends one request: so many messages of this value.
	send(value []byte, messages int) error
	close()
}

// client is one connection's requests.
type client struct {
	o    *options
	c    conn
	room chan struct{} // a token for each request that may be sent

	begin time.Time
	from  time.Duration
	end   time.Duration

	mu      sync.Mutex
	due     []time.Duration // guarded by mu; of requests in flight, the oldest first
	got     int             // guarded by mu; answers to the oldest
	records int64           // guarded by mu; answered in the measured time: a slow server answers some of a request's in it and the rest behind it
	latency *hdrhistogram.Histogram
	refused atomic.Int64
	closing atomic.Bool
}

// answered takes one message's answer.
func (c *client) answered(err error) {
	if err != nil && c.refused.Add(1) == 1 {
		fmt.Fprintln(os.Stderr, "load:", err)
	}
	now := time.Since(c.begin)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && now >= c.from && now < c.end {
		c.records++
	}
	if c.got++; c.got < c.o.records {
		return
	}
	due := c.due[0]
	c.due, c.got = c.due[1:], 0
	at := now // in a closed loop what is answered in the measured time counts, else what is due in it
	if c.o.rate > 0 {
		at = due
	}
	if err == nil && at >= c.from && at < c.end {
		_ = c.latency.RecordValue(max((now - due).Microseconds(), 1)) // past ten minutes: it would have ended
	}
	c.room <- struct{}{}
}

// lost ends the program: the connection is gone, and what it owes will not come.
func (c *client) lost(err error) {
	if !c.closing.Load() {
		fmt.Fprintln(os.Stderr, "load: connection lost:", err)
		os.Exit(1)
	}
}

// request sends one that is due at a time.
func (c *client) request(value []byte, due time.Duration) error {
	c.mu.Lock()
	c.due = append(c.due, due)
	c.mu.Unlock()
	return c.c.send(value, c.o.records)
}

func main() {
	var o options
	flag.StringVar(&o.system, "system", "", "nats or redis")
	flag.StringVar(&o.addr, "addr", "", "host:port")
	flag.IntVar(&o.connections, "connections", 64, "")
	flag.IntVar(&o.inFlight, "in-flight", 1, "requests on each")
	flag.IntVar(&o.records, "records", 1, "messages a request")
	flag.IntVar(&o.bytes, "bytes", 1024, "of a message")
	flag.Float64Var(&o.rate, "rate", 0, "requests a second of all connections; 0: a closed loop")
	flag.DurationVar(&o.warmup, "warmup", time.Second, "")
	flag.DurationVar(&o.duration, "duration", 3*time.Second, "")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// drain is how long answers may still come behind the end.
const drain = 30 * time.Second

func run(o *options) error {
	dial, ok := map[string]func(*options, int, *client) (conn, error){"nats": dialNATS, "redis": dialRedis}[o.system]
	if !ok {
		return fmt.Errorf("--system %q: nats or redis", o.system)
	}
	value := make([]byte, o.bytes)
	rand.NewChaCha8([32]byte{}).Read(value)
	clients := make([]*client, o.connections)
	for i := range clients {
		c := &client{o: o, room: make(chan struct{}, o.inFlight), latency: hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3), from: o.warmup, end: o.warmup + o.duration}
		for range o.inFlight {
			c.room <- struct{}{}
		}
		var err error
		if c.c, err = dial(o, i, c); err != nil {
			return err
		}
		defer func() {
			c.closing.Store(true)
			c.c.close()
		}()
		clients[i] = c
	}
	begin := time.Now()
	for _, c := range clients {
		c.begin = begin
	}
	drive := closedLoop
	if o.rate > 0 {
		drive = openLoop
	}
	if err := drive(o, clients, value); err != nil {
		return err
	}
	unanswered, late := 0, make(chan struct{})
	time.AfterFunc(drain, func() { close(late) })
	for _, c := range clients {
		for n := range o.inFlight {
			select {
			case <-c.room:
				continue
			case <-late:
				unanswered += o.inFlight - n
			}
			break
		}
	}
	if unanswered > 0 {
		return fmt.Errorf("%d requests were not answered within %v", unanswered, drain)
	}
	return report(o, clients)
}

// closedLoop sends as fast as answers come.
func closedLoop(o *options, clients []*client, value []byte) error {
	errs := make(chan error, len(clients))
	for _, c := range clients {
		go func() {
			for {
				<-c.room
				now := time.Since(c.begin)
				if now >= c.end {
					c.room <- struct{}{}
					errs <- nil
					return
				}
				if err := c.request(value, now); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for range clients {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// openLoop sends when requests are due, one after the other over the connections.
func openLoop(o *options, clients []*client, value []byte) error {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // the sleep below keeps one
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it, 50 us late
	begin, turn := time.Since(clients[0].begin), 0
	for k := 0; ; k++ {
		due := begin + time.Duration(float64(k)*1e9/o.rate)
		if due >= clients[0].end {
			return nil
		}
		for {
			left := due - time.Since(clients[0].begin)
			if left <= 0 {
				break
			}
			ts := unix.NsecToTimespec(int64(left))
			_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // cut short: the clock is looked at again
		}
		c := clients[turn%len(clients)]
		turn++
		<-c.room
		if err := c.request(value, due); err != nil {
			return err
		}
	}
}

func report(o *options, clients []*client) error {
	all, refused, records := clients[0].latency, int64(0), int64(0)
	for i, c := range clients {
		refused += c.refused.Load()
		records += c.records
		if i > 0 {
			all.Merge(c.latency)
		}
	}
	ms := func(q float64) float64 { return float64(all.ValueAtQuantile(q)) / 1e3 }
	rate := float64(records) / o.duration.Seconds()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests_per_s": rate / float64(o.records), "records_per_s": rate, "requests": all.TotalCount(), "errors": refused,
		"p50_ms": ms(50), "p99_ms": ms(99), "p999_ms": ms(99.9), "max_ms": float64(all.Max()) / 1e3,
	})
}
