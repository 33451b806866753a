package kafka

import (
	"encoding/binary"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Client is who sent a request.
type Client struct {
	ID        string // client id
	Turn      string // client id of the connection's first request: all of them take turns at admission under one name, so that their order is kept
	Principal string // ANONYMOUS until there is authentication
	Address   string
}

// Anonymous is the principal of a connection that did not authenticate.
const Anonymous = "User:ANONYMOUS"

// Header is a request's head. ClientID and Body alias the frame.
type Header struct {
	Key, Version  int16
	CorrelationID int32
	ClientID      []byte // nil when null
	Body          []byte
}

// Why a frame is no request. The connection is closed: what follows cannot be trusted.
var (
	ErrShort      = errors.New("request is cut off")
	ErrKey        = errors.New("API key is not served")
	ErrHeaderTags = errors.New("request header's tags are malformed")
)

// flexibleFrom is the version from which a key's request header has tags. −1: never.
func flexibleFrom(key int16) int16 {
	switch kmsg.Key(key) {
	case kmsg.Produce:
		return 9
	case kmsg.Fetch:
		return 12
	}
	for v := int16(0); ; v++ {
		r := kmsg.RequestForKey(key)
		if r == nil || v > r.MaxVersion() {
			return 1 << 14
		}
		r.SetVersion(v)
		if r.IsFlexible() {
			return v
		}
	}
}

var flexible = func() (t [128]int16) {
	for key := range t {
		t[key] = flexibleFrom(int16(key))
	}
	return t
}()

// Parse reads the head of a frame (its length prefix taken off). A key that is not served is ErrKey.
func (h *Header) Parse(frame []byte) error {
	h.Key, h.Version, h.CorrelationID, h.ClientID, h.Body = 0, 0, 0, nil, nil
	if len(frame) < 10 {
		return ErrShort
	}
	be := binary.BigEndian
	h.Key, h.Version = int16(be.Uint16(frame)), int16(be.Uint16(frame[2:]))
	h.CorrelationID = int32(be.Uint32(frame[4:]))
	if lookup(h.Key) == nil {
		return ErrKey
	}
	n := int(int16(be.Uint16(frame[8:])))
	rest := frame[10:]
	if n >= 0 {
		if n > len(rest) {
			return ErrShort
		}
		h.ClientID, rest = rest[:n:n], rest[n:]
	}
	if h.Version >= flexible[h.Key] {
		if len(rest) > 0 && rest[0] == 0 { // no tags, as usual
			rest = rest[1:]
		} else {
			var err error
			if rest, err = skipTags(rest); err != nil {
				return err
			}
		}
	}
	h.Body = rest
	return nil
}

// skipTags passes over a flexible message's tagged fields.
func skipTags(b []byte) ([]byte, error) {
	n, b, ok := uvarint(b)
	if !ok {
		return nil, ErrHeaderTags
	}
	for range n {
		var size uint32
		if _, b, ok = uvarint(b); !ok {
			return nil, ErrHeaderTags
		}
		if size, b, ok = uvarint(b); !ok || uint64(size) > uint64(len(b)) {
			return nil, ErrHeaderTags
		}
		b = b[size:]
	}
	return b, nil
}

// uvarint reads an unsigned varint of at most 32 bits.
func uvarint(b []byte) (uint32, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > 1<<32-1 {
		return 0, nil, false
	}
	return uint32(v), b[n:], true
}
