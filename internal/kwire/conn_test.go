package kwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pipe is a Conn without handshake whose other end is the test's.
func pipe(t *testing.T, opts Options) (*Conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	opts.SkipApiVersions = true
	opts.DialContext = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	c, err := Dial(t.Context(), "pipe:1", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		theirs.Close()
	})
	return c, theirs
}

func TestCallAgainstBroker(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	c, err := Dial(t.Context(), cluster.ListenAddrs()[0], Options{ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, highest, ok := c.Versions(0); !ok || highest < 9 {
		t.Fatalf("Produce up to %d, %v", highest, ok)
	}
	topic := "t"
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	kresp, err := c.Call(t.Context(), req) // a flexible version: tags in the response header
	if err != nil {
		t.Fatal(err)
	}
	if resp := kresp.(*kmsg.MetadataResponse); len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 3 {
		t.Errorf("metadata: %+v", resp)
	}

	batch, err := AppendBatch(nil, NoProducer, nil, Record{Value: []byte("v")})
	if err != nil {
		t.Fatal(err)
	}
	produce := kmsg.NewPtrProduceRequest()
	produce.Acks = -1
	produce.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 1, Records: batch}}}}
	if err := c.Negotiate(produce, 9); err != nil || produce.Version != 9 {
		t.Fatalf("negotiated %d, %v", produce.Version, err)
	}
	kresp, err = c.Request(t.Context(), produce)
	if err != nil {
		t.Fatal(err)
	}
	if p := kresp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
		t.Errorf("produce: %+v", p)
	}
}

func TestAppendRequestKeepsWhatIsThere(t *testing.T) {
	c, _ := pipe(t, Options{ClientID: "id"})
	req := kmsg.NewPtrApiVersionsRequest()
	one := c.AppendRequest(nil, req, 1)
	both := c.AppendRequest(bytes.Clone(one), req, 2)
	if !bytes.Equal(both[:len(one)], one) || len(both) != 2*len(one) {
		t.Fatalf("% x after % x", both, one)
	}
	if size := binary.BigEndian.Uint32(both[len(one):]); int(size) != len(one)-4 {
		t.Errorf("second length %d, want %d", size, len(one)-4)
	}
}

func TestReceiveChecksLength(t *testing.T) {
	for name, head := range map[string]uint32{"too large": 1025, "negative": 1 << 31, "no correlation id": 3} {
		t.Run(name, func(t *testing.T) {
			c, broker := pipe(t, Options{ResponseBytesMax: 1024})
			go broker.Write(binary.BigEndian.AppendUint32(nil, head))
			if _, err := c.Receive(t.Context()); !errors.Is(err, ErrFrame) {
				t.Errorf("error %v, want ErrFrame", err)
			}
		})
	}
}

func TestContextEndsReceive(t *testing.T) {
	c, broker := pipe(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.Receive(ctx)
		failed <- err
	}()
	broker.Write([]byte{0, 0}) // it is inside the read now: a pipe hands over, it does not buffer
	cancel()
	var conn *ConnError
	if err := <-failed; !errors.Is(err, context.Canceled) || !errors.As(err, &conn) {
		t.Errorf("error %v", err)
	}
	// The deadline of the ended context must not stick.
	go io.Copy(io.Discard, broker)
	if err := c.SendFrame(t.Context(), []byte("x")); err != nil {
		t.Errorf("write afterwards: %v", err)
	}
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if _, err := c.Receive(expired); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestPeerHangsUp(t *testing.T) {
	c, broker := pipe(t, Options{})
	broker.Close()
	_, err := c.Receive(t.Context())
	var conn *ConnError
	if !errors.As(err, &conn) || conn.Addr != "pipe:1" {
		t.Errorf("error %v", err)
	}
}

func TestDialNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, err = Dial(t.Context(), addr, Options{})
	var conn *ConnError
	if !errors.As(err, &conn) || conn.Op != "dial" {
		t.Errorf("error %v", err)
	}
}

func TestDecodeApiVersionsFallback(t *testing.T) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version = 4
	v0 := kmsg.NewPtrApiVersionsResponse()
	v0.ErrorCode = 35
	v0.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 18, MaxVersion: 3}}
	kresp, err := Decode(req, v0.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	if resp := kresp.(*kmsg.ApiVersionsResponse); resp.ErrorCode != 35 || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].MaxVersion != 3 {
		t.Errorf("%+v", resp)
	}
}

func TestSkipTags(t *testing.T) {
	cases := []struct {
		name string
		in   []byte
		rest int // -1: an error
	}{
		{"none", []byte{0, 9}, 1},
		{"two", []byte{2, 1, 2, 7, 7, 5, 0, 9, 9}, 2},
		{"empty input", nil, -1},
		{"tag cut off", []byte{1, 1, 4, 7}, -1},
		{"count cut off", []byte{3, 1, 0}, -1},
	}
	for _, tc := range cases {
		rest, err := skipTags(tc.in)
		if (err != nil) != (tc.rest < 0) || err == nil && len(rest) != tc.rest {
			t.Errorf("%s: rest %d, error %v", tc.name, len(rest), err)
		}
	}
}

func TestWithPort(t *testing.T) {
	for in, want := range map[string]string{
		"localhost": "localhost:9092", "10.0.0.1:1": "10.0.0.1:1", "::1": "[::1]:9092", "[::1]": "[::1]:9092", "[::1]:7": "[::1]:7",
	} {
		if got := WithPort(in); got != want {
			t.Errorf("WithPort(%q) = %q, want %q", in, got, want)
		}
	}
}
