package qos

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Settings of policies as text: each reads what it writes, and refuses what it does not understand by an example.

// Duration is a time span, such as 50ms.
type Duration int64

// Bytes is a size, such as 8MiB.
type Bytes int64

// ByteRate is bytes a second, such as 5MiB/s.
type ByteRate int64

// RequestRate is requests a second, such as 100/s.
type RequestRate int64

// Weight is a share, such as 4.
type Weight int32

func (d Duration) String() string    { return time.Duration(d).String() }
func (b Bytes) String() string       { return sizeText(int64(b)) }
func (r ByteRate) String() string    { return sizeText(int64(r)) + "/s" }
func (r RequestRate) String() string { return strconv.FormatInt(int64(r), 10) + "/s" }
func (w Weight) String() string      { return strconv.FormatInt(int64(w), 10) }

// MarshalText writes the number with its unit.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText writes the number with its unit.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// MarshalText writes the number with its unit.
func (r ByteRate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalText writes the number with its unit.
func (r RequestRate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a time span.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is no time span above zero, like 50ms or 2s", b)
	}
	*d = Duration(v)
	return nil
}

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	v, ok := parseSize(string(text))
	if !ok {
		return fmt.Errorf("%q is no number of bytes above zero, like 8MiB or 65536", text)
	}
	*b = Bytes(v)
	return nil
}

// UnmarshalText reads a rate.
func (r *ByteRate) UnmarshalText(text []byte) error {
	v, ok := parseSize(strings.TrimSuffix(string(text), "/s"))
	if !ok {
		return fmt.Errorf("%q is no number of bytes a second above zero, like 5MiB/s", text)
	}
	*r = ByteRate(v)
	return nil
}

// UnmarshalText reads a rate.
func (r *RequestRate) UnmarshalText(text []byte) error {
	v, err := strconv.ParseInt(strings.TrimSuffix(string(text), "/s"), 10, 64)
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is no number of requests a second above zero, like 100/s", text)
	}
	*r = RequestRate(v)
	return nil
}

func parseSize(s string) (int64, bool) {
	v, err := humanize.ParseBytes(s)
	return int64(v), err == nil && v > 0 && v <= math.MaxInt64
}

// sizeText is exact: the largest unit that divides n.
func sizeText(n int64) string {
	for _, u := range []struct {
		bytes int64
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n%u.bytes == 0 && n != 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
