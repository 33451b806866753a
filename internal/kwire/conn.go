package kwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// DefaultPort is taken when an address has none.
	DefaultPort = "9092"
	// ResponseBytesMax is the default cap on one response; a larger length prefix is an error before anything is allocated.
	ResponseBytesMax = 100 << 20

	apiVersionsKey = 18
)

// ErrFrame is wrapped by errors about bytes that are no Kafka response: a length out of bounds, a body that does not decode.
var ErrFrame = errors.New("not a Kafka response")

// ConnError says that a broker could not be reached, or that the connection to it broke.
type ConnError struct {
	Addr string
	Op   string // "dial", "write", "read"
	Err  error
}

func (e *ConnError) Error() string {
	// net.OpError repeats operation and address; the cause is enough.
	cause := e.Err
	if op := (*net.OpError)(nil); errors.As(cause, &op) && op.Err != nil {
		cause = op.Err
	}
	if errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF) {
		return fmt.Sprintf("%s %s: the broker closed the connection", e.Op, e.Addr)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Addr, cause)
}

func (e *ConnError) Unwrap() error { return e.Err }

// Options of Dial. The zero value is usable.
type Options struct {
	// ClientID goes into every request header; "" sends a null one.
	ClientID string
	// ResponseBytesMax caps one response, in bytes; 0 means the constant of that name. Lower it to bound memory against an
	// unknown peer.
	ResponseBytesMax int
	// SkipApiVersions leaves out the handshake: Versions are then unknown and Negotiate fails. For tests of odd first requests.
	SkipApiVersions bool
	// DialContext opens the transport; nil means TCP with TCP_NODELAY. TLS goes here.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Conn is one connection to one broker. One goroutine may send while another receives; more of either need their own lock.
// Close may be called from any goroutine.
type Conn struct {
	// immutable after Dial
	nc          net.Conn
	addr        string
	formatter   *kmsg.RequestFormatter
	responseMax int
	versions    map[int16]versionRange

	// sender only
	nextID  int32
	sendBuf []byte

	// receiver only
	head [4]byte

	closeOnce sync.Once
	closeErr  error
}

type versionRange struct{ min, max int16 }

// Response is one response frame. Body starts after the correlation id, so with the header's tags if the version has them;
// Decode takes it whole.
type Response struct {
	CorrelationID int32
	Body          []byte
}

// WithPort returns addr with DefaultPort appended if it names no port.
func WithPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), DefaultPort)
}

// Dial connects to addr (host:port, or host) and asks for the broker's API versions. A failure to connect, or a peer that hangs
// up at once, is a *ConnError.
func Dial(ctx context.Context, addr string, opts Options) (*Conn, error) {
	addr = WithPort(addr)
	dial := opts.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, &ConnError{Addr: addr, Op: "dial", Err: err}
	}
	c := &Conn{nc: nc, addr: addr, formatter: new(kmsg.RequestFormatter), responseMax: opts.ResponseBytesMax}
	if opts.ClientID != "" {
		c.formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID(opts.ClientID))
	}
	if c.responseMax <= 0 {
		c.responseMax = ResponseBytesMax
	}
	if opts.SkipApiVersions {
		return c, nil
	}
	if err := c.handshake(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// handshake asks with version 0, which every broker since 0.10 answers and which has all that Negotiate needs.
func (c *Conn) handshake(ctx context.Context) error {
	req := kmsg.NewPtrApiVersionsRequest()
	kresp, err := c.Request(ctx, req)
	if err != nil {
		return err
	}
	resp := kresp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fmt.Errorf("%s: ApiVersions: %w", c.addr, err)
	}
	c.versions = make(map[int16]versionRange, len(resp.ApiKeys))
	for _, k := range resp.ApiKeys {
		c.versions[k.ApiKey] = versionRange{min: k.MinVersion, max: k.MaxVersion}
	}
	return nil
}

// Addr is the broker's address as dialled, with its port.
func (c *Conn) Addr() string { return c.addr }

// NetConn is the transport, for callers that write prepared frames themselves.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Close closes the transport. Calls in progress end with an error.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.nc.Close() })
	return c.closeErr
}

// Versions is the range that the broker announced for an API key; ok is false if it serves none.
func (c *Conn) Versions(key int16) (lowest, highest int16, ok bool) {
	v, ok := c.versions[key]
	return v.min, v.max, ok
}

// Negotiate sets the highest version that the broker, kmsg and ceiling all know. ceiling < 0 means none.
func (c *Conn) Negotiate(req kmsg.Request, ceiling int16) error {
	name := kmsg.NameForKey(req.Key())
	v, ok := c.versions[req.Key()]
	if !ok {
		return fmt.Errorf("%s does not serve %s", c.addr, name)
	}
	highest := min(v.max, req.MaxVersion())
	if ceiling >= 0 {
		highest = min(highest, ceiling)
	}
	if highest < v.min {
		return fmt.Errorf("%s serves %s versions %d to %d, this client knows up to %d", c.addr, name, v.min, v.max, highest)
	}
	req.SetVersion(highest)
	return nil
}

// AppendRequest appends the whole frame of req, as its version stands, to dst: length, header, body.
func (c *Conn) AppendRequest(dst []byte, req kmsg.Request, correlationID int32) []byte {
	// The formatter patches the length at the start of the slice that it is given.
	frame := c.formatter.AppendRequest(dst[len(dst):], req, correlationID)
	if len(dst) == 0 {
		return frame
	}
	return append(dst, frame...)
}

// NextCorrelationID is the id that the next Send takes; for frames that are built with AppendRequest. Sender only.
func (c *Conn) NextCorrelationID() int32 {
	c.nextID++
	return c.nextID
}

// Send writes req as its version stands and returns its correlation id.
func (c *Conn) Send(ctx context.Context, req kmsg.Request) (correlationID int32, err error) {
	id := c.NextCorrelationID()
	c.sendBuf = c.AppendRequest(c.sendBuf[:0], req, id)
	err = c.SendFrame(ctx, c.sendBuf)
	if cap(c.sendBuf) > 1<<20 {
		c.sendBuf = nil
	}
	return id, err
}

// SendFrame writes bytes as they are: one or several prepared frames, or anything else that a test wants to say.
func (c *Conn) SendFrame(ctx context.Context, frame []byte) error {
	err := c.within(ctx, c.nc.SetWriteDeadline, func() error {
		_, err := c.nc.Write(frame)
		return err
	})
	if err != nil {
		return c.fail(ctx, "write", err)
	}
	return nil
}

// Receive reads the next response, whatever request it belongs to; Kafka answers in request order. The body is freshly allocated.
func (c *Conn) Receive(ctx context.Context) (Response, error) { return c.ReceiveInto(ctx, nil) }

// ReceiveInto is Receive with the body in buf, if it fits; else it is freshly allocated.
func (c *Conn) ReceiveInto(ctx context.Context, buf []byte) (Response, error) {
	var resp Response
	err := c.within(ctx, c.nc.SetReadDeadline, func() error {
		if _, err := io.ReadFull(c.nc, c.head[:]); err != nil {
			return err
		}
		n := int(int32(binary.BigEndian.Uint32(c.head[:])))
		if n < 4 || n > c.responseMax {
			return fmt.Errorf("%w: length %d, wanted 4 to %d", ErrFrame, n, c.responseMax)
		}
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := io.ReadFull(c.nc, buf); err != nil {
			return err
		}
		resp = Response{CorrelationID: int32(binary.BigEndian.Uint32(buf)), Body: buf[4:]}
		return nil
	})
	if err != nil {
		return Response{}, c.fail(ctx, "read", err)
	}
	return resp, nil
}

// Request sends req as its version stands and waits for its response. No other request may be in flight.
func (c *Conn) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	id, err := c.Send(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, err := c.Receive(ctx)
	if err != nil {
		return nil, err
	}
	if resp.CorrelationID != id {
		return nil, fmt.Errorf("%s: %w: correlation id %d, wanted %d", c.addr, ErrFrame, resp.CorrelationID, id)
	}
	return Decode(req, resp.Body)
}

// Call negotiates req's version and makes the request.
func (c *Conn) Call(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	if err := c.Negotiate(req, -1); err != nil {
		return nil, err
	}
	return c.Request(ctx, req)
}

// Decode decodes the response of req from a Response's body.
func Decode(req kmsg.Request, body []byte) (kmsg.Response, error) {
	kresp := req.ResponseKind()
	kresp.SetVersion(req.GetVersion())
	// Flexible versions have tags in the response header; ApiVersions never does, so that any client can read it.
	if kresp.IsFlexible() && kresp.Key() != apiVersionsKey {
		var err error
		if body, err = skipTags(body); err != nil {
			return nil, fmt.Errorf("%w: %s header: %w", ErrFrame, kmsg.NameForKey(req.Key()), err)
		}
	}
	// An ApiVersions version that the broker does not know is answered with a version 0 body and error 35.
	if kresp.Key() == apiVersionsKey && len(body) >= 2 && int16(binary.BigEndian.Uint16(body)) == kerr.UnsupportedVersion.Code {
		kresp.SetVersion(0)
	}
	if err := kresp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%w: %s version %d: %w", ErrFrame, kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return kresp, nil
}

// skipTags returns b after a tag section.
func skipTags(b []byte) ([]byte, error) {
	uvarint := func() (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, io.ErrUnexpectedEOF
		}
		b = b[n:]
		return v, nil
	}
	tags, err := uvarint()
	for ; err == nil && tags > 0; tags-- {
		if _, err = uvarint(); err != nil {
			break
		}
		var size uint64
		if size, err = uvarint(); err != nil {
			break
		}
		if size > uint64(len(b)) {
			return nil, io.ErrUnexpectedEOF
		}
		b = b[size:]
	}
	return b, err
}

// within runs op under ctx: its deadline becomes the transport's, and its end interrupts op.
func (c *Conn) within(ctx context.Context, setDeadline func(time.Time) error, op func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := setDeadline(deadline); err != nil {
		return err
	}
	defer func() { _ = setDeadline(time.Time{}) }() // or it would hit whoever uses the connection next
	if ctx.Done() == nil {
		return op()
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = setDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	err := op()
	if !stop() {
		<-interrupted // or its deadline would hit the next operation
	}
	return err
}

// fail dresses an I/O error; when the context ended, its cause is wrapped so that errors.Is finds it.
func (c *Conn) fail(ctx context.Context, op string, err error) error {
	if errors.Is(err, ErrFrame) {
		return fmt.Errorf("%s: %w", c.addr, err)
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		err = ctxErr
	}
	return &ConnError{Addr: c.addr, Op: op, Err: err}
}
