package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/kafka"
)

// gnet's worker pool starts two goroutines when its package is loaded: they are there before any test.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// Sizes of the tests' nodes.
const (
	testMessageMax = 128 << 10
	testRequestMax = 512 << 10 // more than a frame takes, so that ErrTooLarge can be had
	testFetchMax   = 16 << 20
)

// patience bounds every wait for something that has to come.
const patience = 20 * time.Second

// config is what an option may change before a node starts.
type config struct {
	pipeline pipeline.Options
	server   Options
}

type option func(*config)

func inFlight(n int64) option { return func(c *config) { c.server.ConnectionInFlightBytes = n } }

// node is a server over a pipeline in memory. gate holds its journal's writes back.
type node struct {
	srv  *Server
	gate *vfs.Gate
}

// each runs a test over both transports, with a node of its own for each.
func each(t *testing.T, test func(t *testing.T, n *node), opts ...option) {
	for _, transport := range []string{TransportGnet, TransportNet} {
		t.Run(transport, func(t *testing.T) { test(t, start(t, transport, opts...)) })
	}
}

// start runs a node until the test ends.
func start(t *testing.T, transport string, opts ...option) *node {
	t.Helper()
	n := &node{gate: vfs.NewGate(".journal")}
	c := config{
		pipeline: pipeline.Options{FS: vfs.NewFaulty(vfs.NewMem(), n.gate.Hook), DataDir: "data", ClusterID: "test-cluster", NodeID: 7, SegmentBytes: 1 << 20, CacheBytes: 4 << 20, Spares: 1},
		server: Options{
			Listen: "127.0.0.1:0", Transport: transport, Loops: 2,
			Kafka: kafka.Config{
				Acks: qos.DefaultAcks, AutoCreate: true, DefaultPartitions: 2, MaxMessageBytes: testMessageMax, RequestMaxBytes: testRequestMax,
				FetchMaxBytes: testFetchMax, FetchMemoryBytes: 16 * testFetchMax, CommandTimeout: patience,
				Group: kafka.GroupConfig{Heartbeat: 50 * time.Millisecond, Session: time.Minute, MinSession: time.Millisecond, MaxSession: time.Hour, Members: 100, MemoryBytes: 16 << 20, OffsetRetention: time.Hour},
				Txn:   kafka.TxnConfig{MaxTimeout: time.Hour, Expiry: time.Hour},
			},
			RequestMaxBytes: testRequestMax, ConnectionInFlightBytes: 4 << 20, ConnectionUnsentBytes: 1 << 20, SendTimeout: 5 * time.Second, MaxConnections: 1000,
			Log: zerolog.Nop(), OnFailed: func(err error) { t.Error(err) },
		},
	}
	for _, o := range opts {
		o(&c)
	}
	p, err := pipeline.Open(c.pipeline)
	if err != nil {
		t.Fatal(err)
	}
	if n.srv, err = Start(c.server, p); err != nil {
		p.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.gate.Release()
		n.srv.Drain()
		if err := errors.Join(p.Close(), n.srv.Close()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// epoch is the leader epoch that batches are stamped with.
func (n *node) epoch() int32 { return n.srv.pipeline.LeaderEpoch() }

// client is one raw connection. Its methods end the test when something does not come.
type client struct {
	*kwire.Conn
	t *testing.T
}

func (n *node) dial(t *testing.T) *client {
	t.Helper()
	c, err := kwire.Dial(t.Context(), n.srv.Addr(), kwire.Options{ClientID: "test", SkipApiVersions: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, t}
}

func (c *client) send(req kmsg.Request) (correlationID int32) {
	c.t.Helper()
	id := c.NextCorrelationID()
	c.raw(c.AppendRequest(nil, req, id))
	return id
}

func (c *client) raw(frame []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.SendFrame(ctx, frame); err != nil {
		c.t.Fatal(err)
	}
}

// receive takes the response of req, which has to be the next one.
func (c *client) receive(req kmsg.Request, correlationID int32) kmsg.Response {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	r, err := c.Receive(ctx)
	if err != nil {
		c.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if r.CorrelationID != correlationID {
		c.t.Fatalf("%s v%d: correlation id %d, want %d", kmsg.NameForKey(req.Key()), req.GetVersion(), r.CorrelationID, correlationID)
	}
	resp, err := kwire.Decode(req, r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	// What was decoded makes the same bytes again: nothing is left over and nothing was misread.
	var again []byte
	if resp.IsFlexible() && kmsg.Key(resp.Key()) != kmsg.ApiVersions {
		again = append(again, 0)
	}
	if again = resp.AppendTo(again); !bytes.Equal(again, r.Body) {
		c.t.Fatalf("%s v%d: response of %d bytes decodes to one of %d:\n%x\n%x", kmsg.NameForKey(req.Key()), req.GetVersion(), len(r.Body), len(again), r.Body, again)
	}
	return resp
}

// ask makes a request at the version that is set in it.
func ask[R kmsg.Response](c *client, req kmsg.Request) R {
	c.t.Helper()
	return c.receive(req, c.send(req)).(R)
}

// silent checks that no response is there on any of the connections, nor comes soon.
func silent(t *testing.T, why string, cs ...*client) {
	t.Helper()
	soon := time.Now().Add(50 * time.Millisecond)
	for i, c := range cs {
		c.NetConn().SetReadDeadline(soon)
		if n, err := c.NetConn().Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s, connection %d: read %d bytes, %v; want none", why, i, n, err)
		}
	}
}

// ended checks that the server closes the connection without another byte.
func (c *client) ended(why string) {
	c.t.Helper()
	c.NetConn().SetReadDeadline(time.Now().Add(patience))
	if n, err := c.NetConn().Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("%s: read %d bytes, %v; want the end of the connection", why, n, err)
	}
}

// create makes a topic and returns its id.
func (c *client) create(topic string, partitions int32, configs ...string) [16]byte {
	c.t.Helper()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, partitions, 1
	for i := 0; i < len(configs); i += 2 {
		rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: configs[i], Value: &configs[i+1]})
	}
	req := &kmsg.CreateTopicsRequest{Version: 7, TimeoutMillis: 10_000, Topics: []kmsg.CreateTopicsRequestTopic{rt}}
	got := ask[*kmsg.CreateTopicsResponse](c, req).Topics[0]
	if got.ErrorCode != 0 {
		c.t.Fatalf("create %s: error %d", topic, got.ErrorCode)
	}
	return got.TopicID
}

// values is a batch of one record for each value, with times 1000, 1001, ...
func values(vs ...string) []byte { return sequenced(kwire.NoProducer, nil, vs...) }

func sequenced(p kwire.Producer, codec kgo.Compressor, vs ...string) []byte {
	var records []kwire.Record
	for i, v := range vs {
		records = append(records, kwire.Record{Value: []byte(v), Timestamp: int64(1000 + i)})
	}
	b, err := kwire.AppendBatch(nil, p, codec, records...)
	if err != nil {
		panic(err)
	}
	return b
}

// produceTo is a Produce request by name, version 11, for one partition.
func produceTo(topic string, partition int32, acks int16, records []byte) *kmsg.ProduceRequest {
	return &kmsg.ProduceRequest{Version: 11, Acks: acks, TimeoutMillis: 15_000, Topics: []kmsg.ProduceRequestTopic{{
		Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: partition, Records: records}},
	}}}
}

// onlyPart is the answer for the one partition of a request.
func onlyPart(resp kmsg.Response) kmsg.ProduceResponseTopicPartition {
	return resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
}

// produce writes a batch and returns its base offset.
func (c *client) produce(topic string, partition int32, acks int16, records []byte) int64 {
	c.t.Helper()
	got := onlyPart(ask[*kmsg.ProduceResponse](c, produceTo(topic, partition, acks, records)))
	if got.ErrorCode != 0 {
		c.t.Fatalf("produce to %s-%d at acks %d: error %d", topic, partition, acks, got.ErrorCode)
	}
	return got.BaseOffset
}

// fill makes topic t with one partition and produces n batches of size bytes to it.
func (c *client) fill(n, size int) {
	c.t.Helper()
	c.create("t", 1)
	for range n {
		c.produce("t", 0, -1, values(strings.Repeat("x", size)))
	}
}

// produced takes the answers to n pipelined requests of produceTo, sent by a goroutine of their own: in order, without an error, at offsets that ascend. It may be called from any goroutine.
func (c *client) produced(n int) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	last := int64(-1)
	for i := range n {
		r, err := c.Receive(ctx)
		if err != nil || r.CorrelationID != int32(i+1) {
			return fmt.Errorf("response %d: correlation id %d, %w", i, r.CorrelationID, err)
		}
		resp, err := kwire.Decode(produceTo("", 0, 0, nil), r.Body)
		if err != nil || onlyPart(resp).ErrorCode != 0 || onlyPart(resp).BaseOffset <= last {
			return fmt.Errorf("response %d: %+v, %w", i, resp, err)
		}
		last = onlyPart(resp).BaseOffset
	}
	return nil
}

// fence produces at RECEIVE until others' records, so many, are written before it: what another connection sent comes in when it will.
func (c *client) fence(topic string, partition int32, others int64) {
	c.t.Helper()
	own := int64(0)
	eventually(c.t, fmt.Sprintf("%d records of others in %s-%d", others, topic, partition), func() bool {
		own++
		return c.produce(topic, partition, 101, values("fence"))-own+1 >= others
	})
}

// fetchFrom is a Fetch request by name, version 12, for one partition. It does not wait.
func fetchFrom(topic string, partition int32, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxBytes, req.SessionEpoch = 12, testFetchMax, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, offset, testFetchMax
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// fetched is the answer for the one partition of a fetch.
func (c *client) fetched(req *kmsg.FetchRequest) kmsg.FetchResponseTopicPartition {
	c.t.Helper()
	return onlyFetched(ask[*kmsg.FetchResponse](c, req))
}

func onlyFetched(resp kmsg.Response) kmsg.FetchResponseTopicPartition {
	return resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
}

// read returns all values of a partition, and checks that their offsets have no gap.
func (c *client) read(topic string, partition int32) []string {
	c.t.Helper()
	var out []string
	for at := int64(0); ; {
		got := c.fetched(fetchFrom(topic, partition, at))
		if got.ErrorCode != 0 {
			c.t.Fatalf("fetch %s-%d at %d: error %d", topic, partition, at, got.ErrorCode)
		}
		if len(got.RecordBatches) == 0 {
			return out
		}
		for _, b := range parse(c.t, got.RecordBatches) {
			if b.FirstOffset != at {
				c.t.Fatalf("%s-%d: a batch at %d where %d follows", topic, partition, b.FirstOffset, at)
			}
			for _, r := range b.Unpacked {
				out = append(out, string(r.Value))
			}
			at += int64(b.NumRecords)
		}
	}
}

func parse(t *testing.T, b []byte) []kwire.Batch {
	t.Helper()
	batches, err := kwire.ParseBatches(b)
	if err != nil {
		t.Fatal(err)
	}
	return batches
}

// eventually waits for something that no response tells of.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestConnectionLimit(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		a, b := n.dial(t), n.dial(t)
		a.create("t", 1)
		b.produce("t", 0, -1, values("b"))
		n.dial(t).ended("a third connection of two")
		a.Close()
		eventually(t, "a closed connection makes room", func() bool { return n.srv.Connections() == 1 })
		n.dial(t).produce("t", 0, -1, values("c"))
	}, func(c *config) { c.server.MaxConnections = 2 })
}

// A stop takes no new request, ends the waiting of fetches, and answers what is in the pipeline.
func TestStopAnswersWhatIsPending(t *testing.T) {
	for _, transport := range []string{TransportGnet, TransportNet} {
		t.Run(transport, func(t *testing.T) {
			var held, waiting *client
			req, fetch := produceTo("t", 0, 102, values("held")), fetchFrom("t", 0, 0)
			fetch.MaxWaitMillis, fetch.MinBytes = 30_000, 1
			var heldID, fetchID int32
			t.Run("stop", func(t *testing.T) { // the node stops when this ends
				n := start(t, transport)
				held, waiting = stay(t, n), stay(t, n)
				held.create("t", 1)
				n.gate.Hold()
				heldID, fetchID = held.send(req), waiting.send(fetch)
				n.dial(t).fence("t", 0, 1)
				eventually(t, "the fetch runs", func() bool { return n.waiting() })
			})
			held.t, waiting.t = t, t
			if got := onlyPart(held.receive(req, heldID)); got.ErrorCode != 0 {
				t.Errorf("produce: error %d", got.ErrorCode)
			}
			if got := onlyFetched(waiting.receive(fetch, fetchID)); got.ErrorCode != 0 {
				t.Errorf("fetch: error %d", got.ErrorCode)
			}
			held.ended("after the stop")
			waiting.ended("after the stop")
			held.Close()
			waiting.Close()
		})
	}
}

// stay dials a connection that outlives its test.
func stay(t *testing.T, n *node) *client {
	t.Helper()
	nc, err := net.Dial("tcp", n.srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := kwire.Dial(t.Context(), n.srv.Addr(), kwire.Options{SkipApiVersions: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return &client{c, t}
}

// waiting says whether a request goroutine runs: a fetch that waits.
func (n *node) waiting() bool {
	n.srv.mu.Lock()
	defer n.srv.mu.Unlock()
	for s := range n.srv.open {
		if s.calls.waiting.Load() > 0 {
			return true
		}
	}
	return false
}

func TestOptionsAreChecked(t *testing.T) {
	p, err := pipeline.Open(pipeline.Options{FS: vfs.NewMem(), DataDir: "data", SegmentBytes: 1 << 20, CacheBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct{ name, listen, advertise, transport, want string }{
		{"wildcard", "0.0.0.0:0", "", TransportNet, ""},
		{"no host", ":0", "", TransportNet, ""},
		{"advertise without a port", "127.0.0.1:0", "broker", TransportNet, ""},
		{"advertise a port that is none", "127.0.0.1:0", "broker:66000", TransportGnet, ""},
		{"address in use", taken.Addr().String(), "", TransportNet, ""},
		{"address in use", taken.Addr().String(), "", TransportGnet, ""},
		{"no such transport", "127.0.0.1:0", "", "udp", ""},
		{"advertised", "0.0.0.0:0", "broker.example:9092", TransportNet, "broker.example:9092"},
	} {
		s, err := Start(Options{Listen: c.listen, Advertise: c.advertise, Transport: c.transport, Loops: 1, Kafka: kafka.Config{FetchMemoryBytes: 1}, Log: zerolog.Nop()}, p)
		if err == nil {
			defer s.Close()
		}
		if (err == nil) != (c.want != "") || err == nil && s.Advertised() != c.want {
			t.Errorf("%s, %s: error %v, want %q", c.name, c.transport, err, c.want)
		}
	}
}
