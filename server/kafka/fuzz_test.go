package kafka

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func FuzzParseHeader(f *testing.F) {
	for _, a := range apis {
		for _, v := range []int16{a.min, a.max} {
			req := a.key.Request()
			req.SetVersion(v)
			f.Add(kmsg.NewRequestFormatter(kmsg.FormatterClientID("c")).AppendRequest(nil, req, 1)[4:])
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var h Header
		err := h.Parse(frame)
		if err == nil && (lookup(h.Key) == nil || len(h.ClientID)+len(h.Body)+10 > len(frame)) {
			t.Fatalf("%+v of %d bytes", h, len(frame))
		}
	})
}

// FuzzDecodeProduce compares with kmsg: what is decoded here, kmsg decodes to the same.
func FuzzDecodeProduce(f *testing.F) {
	b := newBroker(f)
	for _, v := range []int16{0, 3, 8, 9, 12, 13} {
		req := &kmsg.ProduceRequest{Version: v, Acks: -1, TimeoutMillis: 100, Topics: []kmsg.ProduceRequestTopic{
			{Topic: "a", TopicID: [16]byte{1}, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 2, Records: oneRecord("x")}, {Partition: 7}}}, {Topic: "none"},
		}}
		f.Add(v, req.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, v int16, body []byte) {
		if ok, _ := Served(0, v); !ok {
			return
		}
		c := NewProduce()
		defer c.Recycle()
		if err := b.DecodeProduce(&Header{Version: v, CorrelationID: 77, Body: body}, c, &Client{}, 0); err != nil {
			if !errors.Is(err, ErrShort) {
				t.Fatal(err)
			}
			return // and kmsg is not asked: it takes a tag count at its word
		}
		req := &kmsg.ProduceRequest{Version: v}
		if err := req.ReadFrom(body); err != nil {
			t.Fatalf("kmsg refuses what was decoded: %v", err)
		}
		if len(req.Topics) != len(c.topics) || req.Acks != c.Acks {
			t.Fatalf("%d topics, acks %d; kmsg reads %+v", len(c.topics), c.Acks, req)
		}
		k := 0
		for i, rt := range req.Topics {
			if len(rt.Partitions) != c.topics[i].parts || v < 13 && rt.Topic != c.topics[i].name || v >= 13 && rt.TopicID != c.topics[i].id {
				t.Fatalf("topic %+v; kmsg reads %+v", c.topics[i], rt)
			}
			for _, rp := range rt.Partitions {
				p := c.parts[k]
				if p.index != rp.Partition || p.record >= 0 && !bytes.Equal(c.Request.Records[p.record].Payload, rp.Records) {
					t.Fatalf("partition %+v; kmsg reads %+v", p, rp)
				}
				k++
			}
		}
		resp := req.ResponseKind()
		out := c.AppendResponse(nil)[8:]
		if resp.IsFlexible() {
			out = out[1:]
		}
		if err := resp.ReadFrom(out); err != nil || !bytes.Equal(resp.AppendTo(nil), out) {
			t.Fatalf("the response does not decode: %v", err)
		}
	})
}

// FuzzHandle gives any body to any key: it is answered with what decodes, or refused, and nothing panics.
func FuzzHandle(f *testing.F) {
	b := newBroker(f)
	for _, a := range apis {
		for v := a.min; v <= a.max; v++ {
			req := a.key.Request()
			req.SetVersion(v)
			f.Add(int16(a.key), v, req.AppendTo(nil))
			f.Add(int16(a.key), v, filled(req).AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, v int16, body []byte) {
		a := lookup(key)
		if a == nil || a.key == kmsg.Produce || costly(key, v, body) {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		begin := time.Now()
		resp, release, err := b.Handle(ctx, &Client{Principal: Anonymous}, Header{Key: key, Version: v, CorrelationID: 1, Body: body})
		if took := time.Since(begin); took > 5*time.Second {
			t.Fatalf("%s v%d: a body of %d bytes took %s", a.key.Name(), v, len(body), took)
		}
		if release != nil {
			defer release()
		}
		if err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		out := AppendResponse(nil, 1, resp)[8:]
		if resp.IsFlexible() && a.key != kmsg.ApiVersions {
			out = out[1:]
		}
		again := kmsg.ResponseForKey(key)
		again.SetVersion(resp.GetVersion())
		if err := again.ReadFrom(out); err != nil {
			t.Fatalf("%s v%d: the response does not decode: %v", a.key.Name(), v, err)
		}
	})
}

// costly are requests that make more partitions than a fuzzer's memory likes.
func costly(key, v int16, body []byte) bool {
	req := kmsg.RequestForKey(key)
	req.SetVersion(v)
	if v < 0 || v > req.MaxVersion() || v >= flexible[key] && !soundShape(key, v, body) || req.ReadFrom(body) != nil {
		return false
	}
	n := int32(0)
	switch req := req.(type) {
	case *kmsg.CreateTopicsRequest:
		for _, t := range req.Topics {
			n = max(n, t.NumPartitions)
		}
	case *kmsg.CreatePartitionsRequest:
		for _, t := range req.Topics {
			n = max(n, t.Count)
		}
	}
	return n > 100
}

// filled is a request about the topics that there are.
func filled(req kmsg.Request) kmsg.Request {
	switch r := req.(type) {
	case *kmsg.FetchRequest:
		r.MaxBytes, r.Topics = 1000, []kmsg.FetchRequestTopic{{Topic: "a", TopicID: [16]byte{1}, Partitions: []kmsg.FetchRequestTopicPartition{{Partition: 1, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, PartitionMaxBytes: 1000}}}}
	case *kmsg.ListOffsetsRequest:
		r.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "a", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: 1, CurrentLeaderEpoch: -1, Timestamp: -3}}}}
	case *kmsg.MetadataRequest:
		r.Topics = []kmsg.MetadataRequestTopic{{Topic: ptr("a"), TopicID: [16]byte{1}}, {Topic: ptr("..")}}
	case *kmsg.FindCoordinatorRequest:
		r.CoordinatorKey, r.CoordinatorKeys = "g", []string{"g"}
	case *kmsg.CreateTopicsRequest:
		r.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "c", NumPartitions: 2, ReplicationFactor: 1, Configs: []kmsg.CreateTopicsRequestTopicConfig{{Name: "max.message.bytes", Value: ptr("100")}}}}
	case *kmsg.DeleteTopicsRequest:
		r.TopicNames, r.Topics = []string{"c"}, []kmsg.DeleteTopicsRequestTopic{{Topic: ptr("c")}}
	case *kmsg.DeleteRecordsRequest:
		r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "a", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 1, Offset: -1}}}}
	case *kmsg.OffsetForLeaderEpochRequest:
		r.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "a", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{Partition: 1, CurrentLeaderEpoch: -1, LeaderEpoch: 1}}}}
	case *kmsg.DescribeConfigsRequest:
		r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: 2, ResourceName: "a"}, {ResourceType: 4}}
	case *kmsg.CreatePartitionsRequest:
		r.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "b", Count: 2}}
	}
	return req
}
