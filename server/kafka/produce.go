package kafka

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/catalog"
	"tidemark/internal/batch"
	"tidemark/journal"
	"tidemark/pipeline"
	"tidemark/qos"
)

// Produce, API key 0, versions 3 to 13; 0 to 2 are answered with UNSUPPORTED_VERSION per partition, since they carry record formats of before version 2.
//
// The request is decoded by hand and answered by hand into buffers that are used again, so that the work and the allocations of a request do not depend on how many records its batches
// hold. A test compares both with kmsg's.

// Produce is one Produce request on its way. It is taken from a pool, filled by DecodeProduce, carried through the pipeline by its Request, and given back by Recycle when its response has been laid out.
type Produce struct {
	Request       pipeline.Request
	Sink          ProduceSink
	Slot          uint64 // the sink's
	FrameBytes    int    // the sink's: what the request counts for in its connection's budget
	Buffer        Buffer // that the payloads alias; released when they were serialized, or refused
	Body          []byte // that was decoded, while Buffer is nil: somebody else's memory, which the payloads alias
	CorrelationID int32
	Acks          int16
	Throttle      time.Duration // how long its client has to wait before the next one

	version int16
	topics  []produceTopic
	parts   []producePart

	// the usual request has one topic and one partition: no memory of its own is needed for them
	oneRecord [1]pipeline.Record
	oneTopic  [1]produceTopic
	onePart   [1]producePart
}

// ProduceSink takes an answered request back. Complete returns true to ask for one Wake at the end of the turn.
type ProduceSink interface {
	Complete(*Produce) bool
	Wake()
}

// Buffer is memory that a request aliases.
type Buffer interface{ Release() }

type produceTopic struct {
	name  string
	id    catalog.TopicID
	parts int // number of its parts in Produce.parts
}

type producePart struct {
	part   *catalog.Partition
	reason string // when refused
	index  int32
	record int32 // in Request.Records; −1: refused before
	after  int32 // bytes of the body behind the batch: how MoveTo finds it in a copy
	code   int16 // when refused
}

var producePool = sync.Pool{New: func() any {
	c := new(Produce)
	c.Reset()
	return c
}}

// NewProduce takes a request from the pool.
func NewProduce() *Produce { return producePool.Get().(*Produce) }

// keptParts is how many partitions' memory a request keeps for its next use.
const keptParts = 64

// Serialized and Answer make Produce the owner of its pipeline request.

// Serialized gives the frame's memory back.
func (c *Produce) Serialized(*pipeline.Request) { c.releaseBuffer() }

func (c *Produce) releaseBuffer() {
	if c.Buffer != nil {
		c.Buffer.Release()
		c.Buffer = nil
	}
}

// Answer hands the request to its connection.
func (c *Produce) Answer(*pipeline.Request) pipeline.Waker {
	c.releaseBuffer() // refused: it was never serialized
	sink := c.Sink
	if sink.Complete(c) { // c may be another request from here on
		return sink
	}
	return nil
}

// MoveTo points the payloads at a copy of Body, which buffer holds.
func (c *Produce) MoveTo(body []byte, buffer Buffer) {
	for i := range c.parts {
		if p := &c.parts[i]; p.record >= 0 {
			r := &c.Request.Records[p.record]
			end := len(body) - int(p.after)
			r.Payload = body[end-len(r.Payload) : end : end]
		}
	}
	c.Buffer, c.Body = buffer, nil
}

// Reset makes the request ready for DecodeProduce. Nobody else may hold it. What is not cleared here is set by the next use.
func (c *Produce) Reset() {
	if cap(c.parts) > keptParts || c.parts == nil {
		c.Request.Records, c.topics, c.parts = c.oneRecord[:0], c.oneTopic[:0], c.onePart[:0]
	}
	for i := range c.Request.Records {
		r := &c.Request.Records[i]
		r.Partition, r.Payload, r.Err = nil, nil, nil
	}
	for i := range c.parts {
		p := &c.parts[i]
		p.part, p.reason = nil, ""
	}
	c.Request.Err, c.Request.Labels, c.Sink, c.Buffer, c.Body = nil, nil, nil, nil, nil
	c.Request.Records, c.topics, c.parts = c.Request.Records[:0], c.topics[:0], c.parts[:0]
}

// Recycle gives the request back to the pool.
func (c *Produce) Recycle() {
	c.Reset()
	producePool.Put(c)
}

// Topic is the name of the request's first topic, empty when there is none.
func (c *Produce) Topic() string {
	switch {
	case len(c.parts) > 0 && c.parts[0].part != nil:
		return c.parts[0].part.Topic
	case len(c.topics) > 0:
		return c.topics[0].name
	}
	return ""
}

// Submits says whether anything of the request is to be written; otherwise it can be answered at once.
func (c *Produce) Submits() bool { return len(c.Request.Records) > 0 }

// Failed says whether any partition of the request came to nothing: with acks=0 the connection is closed then, as Kafka does.
func (c *Produce) Failed() bool {
	if c.Request.Err != nil {
		return true
	}
	for i := range c.parts {
		if code, _ := c.result(&c.parts[i]); code != 0 {
			return true
		}
	}
	return false
}

// reader walks a request's body; the first thing that does not fit makes it bad for good: what is read from then on is zero.
type reader struct {
	b   []byte
	at  int
	bad bool
}

// left is the number of bytes that were not read.
func (r *reader) left() int { return len(r.b) - r.at }

func (r *reader) fail() {
	r.b, r.at, r.bad = nil, 0, true
}

// take reads n bytes; a negative n, the length of a null, does not fit.
func (r *reader) take(n int) []byte {
	if n < 0 || n > r.left() {
		r.fail()
		return nil
	}
	v := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return v
}

func (r *reader) int16() int16 {
	if r.left() < 2 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint16(r.b[r.at:])
	r.at += 2
	return int16(v)
}

func (r *reader) int32() int32 {
	if r.left() < 4 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.b[r.at:])
	r.at += 4
	return int32(v)
}

// uvarint reads an unsigned varint of at most 32 bits; most have one byte.
func (r *reader) uvarint() int {
	if r.at < len(r.b) && r.b[r.at] < 0x80 {
		r.at++
		return int(r.b[r.at-1])
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() int {
	v, rest, ok := uvarint(r.b[r.at:])
	if !ok {
		r.fail()
		return 0
	}
	r.at = len(r.b) - len(rest)
	return int(v)
}

// length reads the length of a string, of bytes or of an array; −1 is null.
func (r *reader) length(flexible, short bool) int {
	switch {
	case flexible:
		return r.uvarint() - 1
	case short:
		return int(r.int16())
	default:
		return int(r.int32())
	}
}

// tags passes over the tagged fields of a flexible message; most have none.
func (r *reader) tags(flexible bool) {
	if !flexible {
		return
	}
	if r.at < len(r.b) && r.b[r.at] == 0 {
		r.at++
		return
	}
	rest, err := skipTags(r.b[r.at:])
	if err != nil {
		r.fail()
		return
	}
	r.at = len(r.b) - len(rest)
}

// array reads an array's length, and refuses one that the rest of the body cannot hold: each element has at least min bytes.
func (r *reader) array(flexible bool, min int) int {
	n := r.length(flexible, false)
	if n < 0 {
		return 0
	}
	if n > r.left()/min {
		r.fail()
		return 0
	}
	return n
}

// DecodeProduce reads a Produce request and checks all of it that can be checked without the pipeline: topics, partitions, each batch with its checksum. The payloads alias body. A body that does not decode is ErrShort. c is fresh or was Reset; who sent it; now is the pipeline's clock. It is for IO goroutines: it does not block.
func (b *Broker) DecodeProduce(h *Header, c *Produce, who *Client, now time.Duration) error {
	c.CorrelationID, c.version, c.Throttle = h.CorrelationID, h.Version, 0
	flexible := h.Version >= 9
	r := reader{b: h.Body}
	transactional := false
	if h.Version >= 3 {
		n := r.length(flexible, true)
		transactional = n >= 0
		r.take(max(n, 0))
	}
	c.Acks = r.int16()
	timeout := r.int32()
	level, ackOK := b.cfg.Acks.Level(c.Acks)
	view := b.p.View()
	topics := r.array(flexible, 2)
	for range topics {
		if r.bad {
			break
		}
		b.decodeTopic(c, &r, view, flexible, transactional, ackOK)
	}
	r.tags(flexible)
	if r.bad {
		return ErrShort
	}
	if timeout <= 0 {
		timeout = defaultProduceTimeoutMs
	}
	deadline := millis(timeout)
	if view.Policies != nil {
		marks, shorter := b.applyPolicies(c, view.Policies, who, len(h.Body), now)
		level = qos.LevelOf(marks)
		if shorter > 0 {
			deadline = min(deadline, shorter)
		}
	}
	c.Request.Marks, c.Request.Level, c.Request.Owner, c.Request.Times.Read = level.Marks(), level, c, now
	c.Request.Deadline = 0
	if c.Acks != 0 { // else nobody would hear of it
		c.Request.Deadline = now + deadline
	}
	return nil
}

const defaultProduceTimeoutMs = int32(30 * time.Second / time.Millisecond)

func (b *Broker) decodeTopic(c *Produce, r *reader, view *catalog.View, flexible, transactional, ackOK bool) {
	var t *catalog.Topic
	c.topics = append(c.topics, produceTopic{})
	pt := &c.topics[len(c.topics)-1]
	unknown := kerr.UnknownTopicOrPartition.Code
	if c.version >= 13 {
		id := r.take(16)
		if id == nil {
			return
		}
		pt.id = catalog.TopicID(id)
		t = view.ByID[pt.id]
		unknown = kerr.UnknownTopicID.Code
	} else {
		name := r.take(r.length(flexible, true))
		if r.bad {
			return
		}
		if t = view.Topics[string(name)]; t != nil {
			pt.name = t.Name
		} else {
			pt.name = string(name)
		}
	}
	n := r.array(flexible, 5)
	for range n {
		c.parts = append(c.parts, producePart{})
		p := &c.parts[len(c.parts)-1]
		p.index, p.record = r.int32(), -1
		records := r.take(max(r.length(flexible, false), 0))
		p.after = int32(r.left())
		r.tags(flexible)
		if r.bad {
			return
		}
		switch {
		case !ackOK:
			p.code, p.reason = kerr.InvalidRequiredAcks.Code, "acks is none of -1, 0, 1 and 101 to 104 (100 and the code of a level)"
		case c.version < 3:
			p.code, p.reason = kerr.UnsupportedVersion.Code, "Produce versions 0 to 2 carry old record formats"
		case t == nil || p.index < 0 || int(p.index) >= len(t.Partitions):
			p.code = unknown
			if t != nil {
				p.code = kerr.UnknownTopicOrPartition.Code
			}
		default:
			b.decodeBatch(c, p, t, records, transactional)
		}
		pt.parts++
	}
	r.tags(flexible)
}

// decodeBatch checks one partition's batch and makes a record of the pipeline of it, or notes why not.
func (b *Broker) decodeBatch(c *Produce, p *producePart, t *catalog.Topic, records []byte, transactional bool) {
	limit := b.cfg.MaxMessageBytes
	if t.MaxMessageBytes > 0 {
		limit = t.MaxMessageBytes
	}
	if len(records) > limit {
		p.code, p.reason = kerr.MessageTooLarge.Code, fmt.Sprintf("batch of %d bytes, max.message.bytes is %d", len(records), limit)
		return
	}
	at := len(c.Request.Records)
	c.Request.Records = append(c.Request.Records, pipeline.Record{})
	rec := &c.Request.Records[at]
	err := rec.Info.Accept(records)
	switch {
	case err != nil:
		p.code, p.reason = Code(err), err.Error()
	case rec.Info.Transactional() != transactional:
		p.code, p.reason = kerr.InvalidTxnState.Code, "a request with a transactional id has transactional batches, one without has none"
	case rec.Info.Codec() == batch.CodecZstd && c.version < 7:
		p.code, p.reason = kerr.UnsupportedCompressionType.Code, "zstd needs Produce version 7"
	default:
		p.part, p.record = t.Partitions[p.index], int32(at)
		rec.Kind, rec.Partition, rec.Payload = journal.RecordBatch, p.part, records
		return
	}
	c.Request.Records = c.Request.Records[:at]
}

// result is what one partition is told.
func (c *Produce) result(p *producePart) (code int16, reason string) {
	switch {
	case p.record < 0:
		return p.code, p.reason
	case c.Request.Records[p.record].Err != nil:
		err := c.Request.Records[p.record].Err
		return Code(err), err.Error()
	case c.Request.Err != nil:
		return Code(c.Request.Err), c.Request.Err.Error()
	}
	return 0, ""
}

// AppendResponse lays the response out, length prefix and header included.
func (c *Produce) AppendResponse(dst []byte) []byte {
	at := len(dst)
	flexible := c.version >= 9
	dst = append(dst, 0, 0, 0, 0)
	dst = appendInt32(dst, c.CorrelationID)
	if flexible {
		dst = append(dst, 0)
	}
	dst = appendArrayLen(dst, flexible, len(c.topics))
	next := 0
	for i := range c.topics {
		t := &c.topics[i]
		if c.version >= 13 {
			dst = append(dst, t.id[:]...)
		} else {
			dst = appendString(dst, flexible, t.name)
		}
		dst = appendArrayLen(dst, flexible, t.parts)
		for k := range t.parts {
			dst = c.appendPart(dst, &c.parts[next+k], flexible)
		}
		next += t.parts
		if flexible {
			dst = append(dst, 0)
		}
	}
	if c.version >= 1 {
		dst = appendInt32(dst, throttleMillis(c.Throttle))
	}
	if flexible {
		dst = append(dst, 0)
	}
	putInt32(dst[at:], int32(len(dst)-at-4))
	return dst
}

func (c *Produce) appendPart(dst []byte, p *producePart, flexible bool) []byte {
	code, reason := c.result(p)
	base, logStart := int64(-1), int64(-1)
	if code == 0 {
		base = int64(c.Request.Records[p.record].Base)
	}
	if p.part != nil {
		logStart = int64(p.part.LogStart())
	}
	dst = appendInt32(dst, p.index)
	dst = appendInt16(dst, code)
	dst = appendInt64(dst, base)
	if c.version >= 2 {
		dst = appendInt64(dst, -1) // log append time
	}
	if c.version >= 5 {
		dst = appendInt64(dst, logStart)
	}
	if c.version >= 8 {
		dst = appendArrayLen(dst, flexible, 0) // error records
		dst = appendNullableString(dst, flexible, reason)
	}
	if flexible {
		dst = append(dst, 0)
	}
	return dst
}

func appendArrayLen(dst []byte, flexible bool, n int) []byte {
	if flexible {
		return binary.AppendUvarint(dst, uint64(n)+1)
	}
	return appendInt32(dst, int32(n))
}

func appendString(dst []byte, flexible bool, s string) []byte {
	if flexible {
		dst = binary.AppendUvarint(dst, uint64(len(s))+1)
	} else {
		dst = appendInt16(dst, int16(len(s)))
	}
	return append(dst, s...)
}

// appendNullableString writes an empty string as null.
func appendNullableString(dst []byte, flexible bool, s string) []byte {
	switch {
	case s != "":
		return appendString(dst, flexible, s)
	case flexible:
		return append(dst, 0)
	default:
		return appendInt16(dst, -1)
	}
}
