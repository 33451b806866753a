package batch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// UnpackedMax is the most bytes that a batch may unpack to before a look-up by time gives up on it: 64 MiB.
const UnpackedMax = 64 << 20

// ErrUnpacked says that a batch unpacks to more than UnpackedMax.
var ErrUnpacked = fmt.Errorf("record batch unpacks to more than %d bytes", UnpackedMax)

// ErrRecord says that a batch's records, under a sound checksum, are not records: its producer made it so.
var ErrRecord = errors.New("record in the batch is malformed")

// EachTimestamp unpacks a batch and calls fn with each record's offset delta and time, ms, until fn returns false. It is used to look up offsets by time, never to read or write.
func EachTimestamp(b []byte, i *Info, fn func(offsetDelta int32, ms int64) bool) error {
	r, done, err := unpack(b[HeaderBytes:], i.Codec())
	if err != nil && !errors.Is(err, ErrUnpacked) {
		err = fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err != nil {
		return err
	}
	defer done()
	limited := &io.LimitedReader{R: r, N: UnpackedMax}
	br := bufio.NewReader(limited)
	fail := func(err error) error {
		if limited.N <= 0 {
			return ErrUnpacked
		}
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	for range i.Count {
		size, err := binary.ReadVarint(br)
		if err != nil {
			return fail(err)
		}
		record := &countingReader{r: br}
		if _, err := record.ReadByte(); err != nil { // attributes
			return fail(err)
		}
		tsDelta, err := binary.ReadVarint(record)
		if err != nil {
			return fail(err)
		}
		offsetDelta, err := binary.ReadVarint(record)
		if err != nil {
			return fail(err)
		}
		if size < record.n {
			return ErrRecord
		}
		if !fn(int32(offsetDelta), i.BaseTimestamp+tsDelta) {
			return nil
		}
		if _, err := br.Discard(int(min(size-record.n, UnpackedMax))); err != nil {
			return fail(err)
		}
	}
	return nil
}

type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) ReadByte() (byte, error) {
	c.n++
	return c.r.ReadByte()
}

// xerialHeader begins Java's framing of snappy: blocks, each with its length before it.
var xerialHeader = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func unpack(b []byte, codec int) (io.Reader, func(), error) {
	nothing := func() {}
	switch Codecs[codec] {
	case "none":
		return bytes.NewReader(b), nothing, nil
	case "gzip":
		r, err := gzip.NewReader(bytes.NewReader(b))
		return r, nothing, err
	case "lz4":
		return lz4.NewReader(bytes.NewReader(b)), nothing, nil
	case "zstd":
		r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderMaxMemory(UnpackedMax), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
	out, err := unpackSnappy(b)
	return bytes.NewReader(out), nothing, err
}

func unpackSnappy(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, xerialHeader) {
		return unpackBlock(nil, b)
	}
	if len(b) < 16 {
		return nil, ErrRecord
	}
	var out []byte
	for b = b[16:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, ErrRecord
		}
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-4) {
			return nil, ErrRecord
		}
		var err error
		if out, err = unpackBlock(out, b[4:4+n]); err != nil {
			return nil, err
		}
		b = b[4+n:]
	}
	return out, nil
}

func unpackBlock(dst, block []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if n+len(dst) > UnpackedMax {
		return nil, ErrUnpacked
	}
	plain, err := snappy.Decode(nil, block)
	return append(dst, plain...), err
}
