package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"tidemark/catalog"
	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newBroker serves a pipeline in memory with the topics "a", of three partitions, and "b", of one. Their ids are 1 and 2.
func newBroker(t testing.TB) *Broker {
	t.Helper()
	p, err := pipeline.Open(pipeline.Options{FS: vfs.NewMem(), DataDir: "data", SegmentBytes: 1 << 20, CacheBytes: 4 << 20, Spares: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	b := New(Config{
		Host: "localhost", Port: 9092, Acks: qos.DefaultAcks, AutoCreate: true, DefaultPartitions: 1, MaxMessageBytes: 100 << 10, RequestMaxBytes: 1 << 20,
		FetchMaxBytes: 1 << 20, FetchMemoryBytes: 8 << 20, CommandTimeout: 10 * time.Second,
	}, p)
	for name, topic := range map[string]catalog.CreateTopic{"a": {ID: catalog.TopicID{1}, Partitions: 3}, "b": {ID: catalog.TopicID{2}, Partitions: 1}} {
		topic.Name = name
		if r := b.command(t.Context(), &Client{}, catalog.Command{CreateTopic: &topic}, 0); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return b
}

func oneRecord(value string) []byte {
	b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, kwire.Record{Value: []byte(value)})
	if err != nil {
		panic(err)
	}
	return b
}

type counted struct{ released int }

func (c *counted) Release() { c.released++ }

// answers keeps the requests that were answered.
type answers struct{ got []*Produce }

func (a *answers) Complete(c *Produce) bool { a.got = append(a.got, c); return false }
func (a *answers) Wake()                    {}

// TestProduceAgainstKmsg decodes what kmsg encoded and answers with what kmsg decodes: both are written by hand here.
func TestProduceAgainstKmsg(t *testing.T) {
	b := newBroker(t)
	part := func(i int32, records []byte) kmsg.ProduceRequestTopicPartition {
		return kmsg.ProduceRequestTopicPartition{Partition: i, Records: records}
	}
	topic := func(name string, id byte, parts ...kmsg.ProduceRequestTopicPartition) kmsg.ProduceRequestTopic {
		return kmsg.ProduceRequestTopic{Topic: name, TopicID: [16]byte{id}, Partitions: parts}
	}
	none := topic("none", 9, part(0, oneRecord("x")))
	for name, req := range map[string]kmsg.ProduceRequest{
		"no topics":          {Acks: -1},
		"no partitions":      {Acks: 1, Topics: []kmsg.ProduceRequestTopic{topic("a", 1)}},
		"one":                {Acks: 1, TimeoutMillis: 5000, Topics: []kmsg.ProduceRequestTopic{topic("b", 2, part(0, oneRecord("x")))}},
		"null records":       {Acks: -1, Topics: []kmsg.ProduceRequestTopic{topic("b", 2, part(0, nil))}},
		"empty records":      {Acks: -1, Topics: []kmsg.ProduceRequestTopic{topic("b", 2, part(0, []byte{}))}},
		"empty name":         {Acks: -1, Topics: []kmsg.ProduceRequestTopic{topic("", 0, part(0, oneRecord("x")))}},
		"long name":          {Acks: -1, Topics: []kmsg.ProduceRequestTopic{topic(strings.Repeat("n", 300), 3, part(0, oneRecord("x")))}},
		"transaction":        {Acks: -1, TransactionID: ptr("txn"), Topics: []kmsg.ProduceRequestTopic{topic("b", 2, part(0, oneRecord("x"))), none}},
		"empty transaction":  {Acks: -1, TransactionID: ptr(""), Topics: []kmsg.ProduceRequestTopic{topic("b", 2, part(0, oneRecord("x")))}},
		"acks that are none": {Acks: 77, Topics: []kmsg.ProduceRequestTopic{topic("b", 2, part(0, oneRecord("x")))}},
		"many": {Acks: 104, TimeoutMillis: -1, Topics: []kmsg.ProduceRequestTopic{
			topic("a", 1, part(2, oneRecord("a2")), part(math.MinInt32, oneRecord("x")), part(0, oneRecord("a0")), part(3, oneRecord("x")), part(1, nil)),
			none, topic("b", 2), topic("b", 2, part(0, oneRecord(strings.Repeat("y", 50_000))), part(0, oneRecord(strings.Repeat("z", 100<<10)))), topic("a", 1, part(2, oneRecord("again"))),
		}},
	} {
		for v := int16(3); v <= 13; v++ {
			t.Run(fmt.Sprintf("%s/v%d", name, v), func(t *testing.T) {
				req := req
				req.Version = v
				h := Header{Key: 0, Version: v, CorrelationID: 77, Body: req.AppendTo(nil)}
				sink := &answers{}
				c := NewProduce()
				if err := b.DecodeProduce(&h, c, &Client{}, b.p.Now()); err != nil {
					t.Fatal(err)
				}
				c.Sink = sink
				buffer := &counted{}
				c.MoveTo(bytes.Clone(h.Body), buffer)
				clear(h.Body) // the transport's again
				want := expected(&req)
				k := 0
				for i := range want.Topics {
					for j := range want.Topics[i].Partitions {
						if p := &want.Topics[i].Partitions[j]; p.ErrorCode == 0 {
							rec := &c.Request.Records[k]
							if sent := req.Topics[i].Partitions[j].Records; !bytes.Equal(rec.Payload, sent) || rec.Partition.Index != p.Partition || rec.Info.Count != 1 {
								t.Errorf("record %d: partition %d, %d bytes", k, rec.Partition.Index, len(rec.Payload))
							}
							rec.Base = journal.LogicalOffset(1000 + k) // as the write stage would
							p.BaseOffset = 1000 + int64(k)
							k++
						}
					}
				}
				level, _ := qos.DefaultAcks.Level(req.Acks)
				if k != len(c.Request.Records) || c.Submits() != (k > 0) || c.Acks != req.Acks || c.Request.Marks != level.Marks() || c.Request.Level != level {
					t.Errorf("%d records of %d, acks %d, %s", len(c.Request.Records), k, c.Acks, c.Request.Level)
				}
				if left, most := c.Request.Deadline-b.p.Now(), time.Duration(max(req.TimeoutMillis, 30_000*b2i(req.TimeoutMillis <= 0)))*time.Millisecond; req.Acks != 77 && (left > most || left < most-5*time.Second) {
					t.Errorf("deadline in %s, timeout %d ms", left, req.TimeoutMillis)
				}
				compareProduce(t, c.AppendResponse([]byte("before")), want)
				c.Serialized(&c.Request)
				if c.Answer(&c.Request) != nil || len(sink.got) != 1 || sink.got[0] != c || buffer.released != 1 {
					t.Errorf("the sink got %d requests, the buffer was released %d times", len(sink.got), buffer.released)
				}
				h.Body = req.AppendTo(nil)
				for n := range h.Body {
					short := h
					short.Body = h.Body[:n:n]
					if n > 2000 && n%997 > 0 {
						continue
					}
					c.Reset()
					if err := b.DecodeProduce(&short, c, &Client{}, 0); !errors.Is(err, ErrShort) {
						t.Fatalf("cut off at %d of %d: %+v, %v", n, len(h.Body), c, err)
					}
				}
				c.Recycle()
			})
		}
	}
}

func b2i(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// expected says by Kafka's rules what a request is answered; base offsets of what is taken are left to the caller.
func expected(req *kmsg.ProduceRequest) *kmsg.ProduceResponse {
	want := req.ResponseKind().(*kmsg.ProduceResponse)
	partitions := map[[17]byte]int32{}
	key := func(t kmsg.ProduceRequestTopic) (k [17]byte) {
		if req.Version >= 13 {
			copy(k[1:], t.TopicID[:])
		} else {
			copy(k[:], t.Topic)
		}
		return k
	}
	partitions[key(kmsg.ProduceRequestTopic{Topic: "a", TopicID: [16]byte{1}})] = 3
	partitions[key(kmsg.ProduceRequestTopic{Topic: "b", TopicID: [16]byte{2}})] = 1
	for _, t := range req.Topics {
		wt := kmsg.NewProduceResponseTopic()
		wt.Topic, wt.TopicID = t.Topic, t.TopicID
		n, known := partitions[key(t)]
		for _, p := range t.Partitions {
			wp := kmsg.NewProduceResponseTopicPartition()
			wp.Partition, wp.BaseOffset = p.Partition, -1
			switch {
			case req.Acks == 77:
				wp.ErrorCode = kerr.InvalidRequiredAcks.Code
			case !known && req.Version >= 13:
				wp.ErrorCode = kerr.UnknownTopicID.Code
			case !known || p.Partition < 0 || p.Partition >= n:
				wp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case req.TransactionID != nil:
				wp.ErrorCode = kerr.InvalidTxnState.Code
			case len(p.Records) == 0:
				wp.ErrorCode = kerr.InvalidRecord.Code
			case len(p.Records) > 100<<10:
				wp.ErrorCode = kerr.MessageTooLarge.Code
			default:
				wp.LogStartOffset = 0
			}
			if wp.ErrorCode != 0 {
				wp.LogStartOffset = -1
			}
			wt.Partitions = append(wt.Partitions, wp)
		}
		want.Topics = append(want.Topics, wt)
	}
	return want
}

// compareProduce compares a response's bytes with kmsg's of what is wanted, whose messages are taken from what came: their words are free.
func compareProduce(t *testing.T, b []byte, want *kmsg.ProduceResponse) {
	t.Helper()
	b, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok || binary.BigEndian.Uint32(b) != uint32(len(b)-4) || binary.BigEndian.Uint32(b[4:]) != 77 {
		t.Fatalf("head of % x", b[:min(len(b), 20)])
	}
	got := kmsg.NewPtrProduceResponse()
	got.Version = want.Version
	body := b[8:]
	if want.IsFlexible() {
		body = body[1:]
	}
	if err := got.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	for i := range min(len(got.Topics), len(want.Topics)) {
		for j := range min(len(got.Topics[i].Partitions), len(want.Topics[i].Partitions)) {
			want.Topics[i].Partitions[j].ErrorMessage = got.Topics[i].Partitions[j].ErrorMessage
		}
	}
	if wanted := AppendResponse(nil, 77, want); !bytes.Equal(b, wanted) {
		t.Errorf("response\n%x\nwant\n%x", b, wanted)
	}
}

func TestParseHeader(t *testing.T) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		for v := int16(0); v <= req.MaxVersion(); v++ {
			for _, id := range []*string{nil, ptr(""), ptr("client"), ptr(strings.Repeat("c", math.MaxInt16))} {
				formatter := kmsg.NewRequestFormatter()
				if id != nil {
					formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID(*id))
				}
				req.SetVersion(v)
				frame := formatter.AppendRequest(nil, req, 0x01020304)[4:]
				var h Header
				err := h.Parse(frame)
				if lookup(key) == nil {
					if !errors.Is(err, ErrKey) && len(frame) >= 10 { // ControlledShutdown v0 has no client id
						t.Fatalf("%s v%d is not served: %v", kmsg.NameForKey(key), v, err)
					}
					continue
				}
				if err != nil || h.Key != key || h.Version != v || h.CorrelationID != 0x01020304 || (h.ClientID == nil) != (id == nil) || id != nil && string(h.ClientID) != *id {
					t.Fatalf("%s v%d: %+v, %v", kmsg.NameForKey(key), v, h, err)
				}
				if body := req.AppendTo(nil); !bytes.Equal(h.Body, body) {
					t.Fatalf("%s v%d: body %x, want %x", kmsg.NameForKey(key), v, h.Body, body)
				}
				for n := range len(frame) - len(h.Body) {
					if n > 100 && n < len(frame)-len(h.Body)-3 {
						continue
					}
					if err := new(Header).Parse(frame[:n]); !errors.Is(err, ErrShort) && !errors.Is(err, ErrHeaderTags) {
						t.Fatalf("%s v%d cut off at %d: %v", kmsg.NameForKey(key), v, n, err)
					}
				}
			}
		}
	}
	head := func(tags ...byte) []byte {
		return append([]byte{0, 3, 0, 12, 0, 0, 0, 1, 0xff, 0xff}, tags...)
	}
	for _, tc := range []struct {
		name  string
		frame []byte
		want  error
		body  int
	}{
		{"two tags", head(2, 1, 2, 7, 7, 5, 0, 9, 9), nil, 2},
		{"a tag cut off", head(1, 1, 4, 7), ErrHeaderTags, 0},
		{"more tags than bytes", head(0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0), ErrHeaderTags, 0},
		{"count over 32 bits", head(0xff, 0xff, 0xff, 0xff, 0xff, 0x01), ErrHeaderTags, 0},
		{"size over 32 bits", head(1, 1, 0xff, 0xff, 0xff, 0xff, 0x7f), ErrHeaderTags, 0},
		{"key below 0", []byte{0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff}, ErrKey, 0},
		{"version below 0", []byte{0, 3, 0x80, 0, 0, 0, 0, 1, 0xff, 0xff}, nil, 0},
	} {
		var h Header
		if err := h.Parse(tc.frame); !errors.Is(err, tc.want) || len(h.Body) != tc.body {
			t.Errorf("%s: %+v, %v", tc.name, h, err)
		}
	}
}
