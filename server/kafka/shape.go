package kafka

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kmsg's decoders take a number of tagged fields at its word: a body of a few bytes that announces 2³² of them keeps a core busy for minutes. So the body of a flexible request is walked first: every length and every number in it has to
// be one that the bytes behind it can hold. Produce has a reader of its own.

// shapes are the requests' fields in order, of the flexible versions, from Kafka's message definitions (clients/src/main/resources/common/message). i1 to i8: a number of so many bytes; u: 16 bytes; s: a string, perhaps null; [x]: an array
// of x; {…}: an array of structs; behind @: from which version, or from-to. Tagged fields stand behind the fields of the request and of each struct, and need no mention.
var shapes = parseShapes(map[kmsg.Key]string{
	kmsg.Fetch:                "i4@0-14 i4 i4 i4 i1 i4 i4 { s@0-12 u@13 { i4 i4 i8 i4 i8 i4 } } { s@0-12 u@13 [i4] } s",
	kmsg.ListOffsets:          "i4 i1 { s { i4 i4 i8 } } i4@10",
	kmsg.Metadata:             "{ u@10 s } i1 i1@0-10 i1",
	kmsg.FindCoordinator:      "s@0-3 i1 [s]@4",
	kmsg.ApiVersions:          "s s",
	kmsg.CreateTopics:         "{ s i4 i2 { i4 [i4] } { s s } } i4 i1",
	kmsg.DeleteTopics:         "{ s u }@6 [s]@0-5 i4",
	kmsg.DeleteRecords:        "{ s { i4 i8 } } i4",
	kmsg.InitProducerID:       "s i4 i8@3 i2@3",
	kmsg.OffsetForLeaderEpoch: "i4 { s { i4 i4 i4 } }",
	kmsg.DescribeConfigs:      "{ i1 s [s] } i1 i1",
	kmsg.CreatePartitions:     "{ s i4 { [i4] } } i4 i1",
	kmsg.DescribeCluster:      "i1 i1@1 i1@2",

	kmsg.OffsetCommit:   "s i4 s s { s@0-9 u@10 { i4 i8 i4 s } }",
	kmsg.OffsetFetch:    "s@0-7 { s [i4] }@0-7 { s s@9 i4@9 { s@0-9 u@10 [i4] } }@8 i1@7",
	kmsg.JoinGroup:      "s i4 i4 s s s { s s } s@8",
	kmsg.Heartbeat:      "s i4 s s",
	kmsg.LeaveGroup:     "s { s s s@5 }",
	kmsg.SyncGroup:      "s i4 s s s@5 s@5 { s s }",
	kmsg.DescribeGroups: "[s] i1",
	kmsg.ListGroups:     "[s]@4 [s]@5",
	kmsg.DeleteGroups:   "[s]",

	kmsg.ConsumerGroupHeartbeat: "s s i4 s s i4 [s] s@1 s { u [i4] }",
	kmsg.ConsumerGroupDescribe:  "[s] i1",

	kmsg.AlterConfigs:      "{ i1 s { s s } } i1",
	kmsg.DescribeLogDirs:   "{ s [i4] }",
	kmsg.ElectLeaders:      "i1@1 { s [i4] } i4",
	kmsg.DescribeProducers: "{ s [i4] }",

	kmsg.AddPartitionsToTxn:   "s i8 i2 { s [i4] }",
	kmsg.AddOffsetsToTxn:      "s i8 i2 s",
	kmsg.EndTxn:               "s i8 i2 i1",
	kmsg.TxnOffsetCommit:      "s s i8 i2 i4 s s { s@0-5 u@6 { i4 i8 i4 s } }",
	kmsg.DescribeTransactions: "[s]",
	kmsg.ListTransactions:     "[s] [i8] i8@1 s@2",

	kmsg.IncrementalAlterConfigs: "{ i1 s { s i1 s } } i1",
	kmsg.DescribeClientQuotas:    "{ s i1 s } i1",
	kmsg.AlterClientQuotas:       "{ { s s } { s i8 i1 } } i1",
})

// shapeTags are the tagged fields whose content kmsg decodes and that hold tagged fields again.
var shapeTags = map[kmsg.Key]map[uint32][]shapeField{
	kmsg.Fetch: {1: parseShapes(map[kmsg.Key]string{0: "i4 i8"})[0]}, // ReplicaState
}

// shapeField is one field of a message.
type shapeField struct {
	from, to int16 // versions that have it
	size     int   // of a fixed field
	text     bool
	elem     []shapeField // of an array
	tagged   bool         // the array's elements are structs
}

func parseShapes(texts map[kmsg.Key]string) (t [128][]shapeField) {
	for key, text := range texts {
		rest := strings.Fields(text)
		t[key] = parseShape(&rest)
		if len(rest) > 0 {
			panic(fmt.Sprintf("kafka: shape of key %d: %q is left", key, rest))
		}
	}
	return t
}

// parseShape reads fields up to the end or to a closing brace, which it leaves.
func parseShape(rest *[]string) (fields []shapeField) {
	for len(*rest) > 0 && !strings.HasPrefix((*rest)[0], "}") {
		word := (*rest)[0]
		*rest = (*rest)[1:]
		var f shapeField
		if word == "{" {
			f.elem, f.tagged = parseShape(rest), true
			word = (*rest)[0] // the closing brace has the versions
			*rest = (*rest)[1:]
		}
		kind, versions, _ := strings.Cut(word, "@")
		f.from, f.to = parseVersions(versions)
		if inner, ok := strings.CutPrefix(kind, "["); ok {
			f.elem = []shapeField{plainField(strings.TrimSuffix(inner, "]"))}
		} else if !f.tagged {
			plain := plainField(kind)
			f.size, f.text = plain.size, plain.text
		}
		fields = append(fields, f)
	}
	return fields
}

func plainField(kind string) shapeField {
	f := shapeField{to: math.MaxInt16}
	switch kind {
	case "s":
		f.text = true
	case "u":
		f.size = 16
	default:
		f.size = mustInt(strings.TrimPrefix(kind, "i"))
	}
	return f
}

func parseVersions(s string) (from, to int16) {
	if s == "" {
		return 0, math.MaxInt16
	}
	a, b, both := strings.Cut(s, "-")
	if !both {
		return int16(mustInt(a)), math.MaxInt16
	}
	return int16(mustInt(a)), int16(mustInt(b))
}

func mustInt(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic("kafka: shapes: " + err.Error())
	}
	return n
}

// soundShape says whether the body of a request in a flexible version holds all that its lengths and numbers announce.
func soundShape(key, version int16, body []byte) bool {
	r := reader{b: body}
	r.walkBody(key, version)
	return !r.bad
}

func (r *reader) walkBody(key, version int16) {
	r.walk(shapes[key], version, false)
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		tag := uint32(r.uvarint())
		content := reader{b: r.take(r.uvarint())}
		if fields := shapeTags[kmsg.Key(key)][tag]; fields != nil && !r.bad {
			if content.walk(fields, version, true); content.bad {
				r.fail()
			}
		}
	}
}

func (r *reader) walk(fields []shapeField, version int16, tagged bool) {
	for i := range fields {
		f := &fields[i]
		switch {
		case r.bad:
			return
		case version < f.from || version > f.to:
		case f.text:
			r.take(max(r.uvarint()-1, 0))
		case f.elem == nil:
			r.take(f.size)
		default:
			n := r.uvarint() - 1
			if n > r.left() {
				r.fail()
			}
			for ; n > 0 && !r.bad; n-- {
				r.walk(f.elem, version, f.tagged)
			}
		}
	}
	if tagged && !r.bad {
		r.tags(true)
	}
}
