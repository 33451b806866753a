package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
	"tidemark/pipeline"
	"tidemark/qos"
	"tidemark/server/group"
)

// Config is what the protocol layer is told. All fields are set.
type Config struct {
	Host string // advertised
	Port int32

	Acks              qos.AcksMap
	AutoCreate        bool
	DefaultPartitions int32
	MaxMessageBytes   int           // of one batch, unless its topic says otherwise
	RequestMaxBytes   int           // of one request; the session refuses more
	FetchMaxBytes     int           // of one Fetch answer, whatever the client asks
	FetchMemoryBytes  int64         // of all Fetch answers that are being made or sent
	CommandTimeout    time.Duration // for catalog commands of requests that name no timeout
	Group             GroupConfig
	Txn               TxnConfig
}

// Broker answers requests. All methods may be called from any goroutine.
type Broker struct {
	cfg    Config
	p      *pipeline.Pipeline
	nodeID int32

	fetchMemory *fetchMemory
	rotate      atomic.Uint32 // where the next Fetch begins, so that no partition starves
	quotas      *qos.Quotas
	groups      *group.Coordinator

	ids producerIDs

	policyMu sync.Mutex // held from looking at the policies to having changed them
}

// New makes a broker over a running pipeline.
func New(cfg Config, p *pipeline.Pipeline) *Broker {
	b := &Broker{cfg: cfg, p: p, nodeID: p.Meta().NodeID, fetchMemory: newFetchMemory(cfg.FetchMemoryBytes), quotas: qos.NewQuotas()}
	b.groups = b.newCoordinator()
	return b
}

// Close ends the groups' timeouts.
func (b *Broker) Close() { b.groups.Close() }

// Handle decodes and answers one request that is not Produce. It may block. A body that does not decode is ErrShort: the connection cannot be trusted any more. Release, when it is not nil, is called
// once, when the client has taken the response or it is dropped.
func (b *Broker) Handle(ctx context.Context, c *Client, h Header) (resp kmsg.Response, release func(), err error) {
	a := lookup(h.Key)
	if h.Version < a.min || h.Version > a.max {
		if a.key == kmsg.ApiVersions {
			return b.apiVersionsUnsupported(), nil, nil
		}
		return nil, nil, ErrVersion
	}
	if h.Version >= flexible[h.Key] && !soundShape(h.Key, h.Version, h.Body) {
		return nil, nil, ErrShort
	}
	req := kmsg.RequestForKey(h.Key)
	req.SetVersion(h.Version)
	if err := req.ReadFrom(h.Body); err != nil {
		return nil, nil, ErrShort
	}
	if a.key == kmsg.Fetch {
		resp, release = b.fetchBounded(ctx, c, req.(*kmsg.FetchRequest))
		return resp, release, nil
	}
	return a.handle(b, ctx, c, req), nil, nil
}

// ErrVersion says that a version is not among those that ApiVersions names.
var ErrVersion = errors.New("API version is not served")

// AppendResponse lays a response out with its length prefix and header.
func AppendResponse(dst []byte, correlationID int32, resp kmsg.Response) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = appendInt32(dst, correlationID)
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		dst = append(dst, 0)
	}
	dst = resp.AppendTo(dst)
	putInt32(dst[at:], int32(len(dst)-at-4))
	return dst
}

// command has the catalog carry a client's cmd out behind what the client has queued before, and waits until it is applied.
func (b *Broker) command(ctx context.Context, c *Client, cmd catalog.Command, timeout time.Duration) catalog.Result {
	if timeout <= 0 {
		timeout = b.cfg.CommandTimeout
	}
	return b.p.Command(ctx, cmd, &pipeline.Labels{ClientID: c.ID, Turn: c.Turn}, timeout)
}

// producerIDs hands out ids of durable blocks.
type producerIDs struct {
	mu         sync.Mutex
	next, last int64 // [next, last) is left; guarded by mu
}

const producerIDBlock = 1000

// checkEpoch compares the leader epoch that a client knows with the current one; −1 means that it does not say.
func (b *Broker) checkEpoch(known int32) int16 {
	switch current := b.p.LeaderEpoch(); {
	case known < 0 || known == current:
		return 0
	case known < current:
		return kerr.FencedLeaderEpoch.Code
	default:
		return kerr.UnknownLeaderEpoch.Code
	}
}

func millis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }

func ptr[T any](v T) *T { return &v }

func appendInt16(dst []byte, v int16) []byte { return binary.BigEndian.AppendUint16(dst, uint16(v)) }
func appendInt32(dst []byte, v int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(v)) }
func appendInt64(dst []byte, v int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(v)) }
func putInt32(dst []byte, v int32)           { binary.BigEndian.PutUint32(dst, uint32(v)) }
