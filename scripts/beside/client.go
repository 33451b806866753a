package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/qos"
	"tidemark/server"
)

const topic = "beside"

// batchOf is a batch of one record of so many random bytes.
func batchOf(n int) []byte {
	value := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, kwire.Record{Value: value, Timestamp: 1})
	if err != nil {
		panic(err)
	}
	return b
}

func request(acks int16, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis = acks, 30_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// createTopic makes the topic if it is not there: by asking for it.
func (b *bench) createTopic() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := b.dial(ctx, "beside")
	if err != nil {
		return err
	}
	defer c.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(7)
	req.AllowAutoTopicCreation = true
	name := topic
	req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	kresp, err := c.Request(ctx, req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(kresp.(*kmsg.MetadataResponse).Topics[0].ErrorCode)
}

// client is one raw connection.
type client struct {
	*kwire.Conn
	ctx context.Context
}

func (b *bench) dial(ctx context.Context, id string) (*client, error) {
	c, err := kwire.Dial(ctx, b.n.Addr, kwire.Options{ClientID: id})
	if err != nil {
		return nil, err
	}
	return &client{c, ctx}, nil
}

// answer takes the next answer, which has to be a success.
func (c *client) answer(req *kmsg.ProduceRequest) (throttle time.Duration, err error) {
	r, err := c.Receive(c.ctx)
	if err != nil {
		return 0, err
	}
	kresp, err := kwire.Decode(req, r.Body)
	if err != nil {
		return 0, err
	}
	resp := kresp.(*kmsg.ProduceResponse)
	return time.Duration(resp.ThrottleMillis) * time.Millisecond, kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

// flood keeps depth requests in flight until ctx ends, and counts the bytes that were acknowledged. It ignores throttle_time_ms.
func (c *client) flood(req *kmsg.ProduceRequest, depth int, acked *atomic.Int64) error {
	for sent, answered := 0, 0; ; {
		for ; sent < answered+depth; sent++ {
			if _, err := c.Send(c.ctx, req); err != nil {
				return unlessOver(c.ctx, err)
			}
		}
		if _, err := c.answer(req); err != nil {
			return unlessOver(c.ctx, err)
		}
		acked.Add(int64(len(req.Topics[0].Partitions[0].Records)))
		answered++
	}
}

func unlessOver(ctx context.Context, err error) error {
	over := ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) // the connection's deadline is ctx's
	if over {
		return nil
	}
	return err
}

// paced sends a small message every interval and returns the times that the answers took from when each was due, ascending.
func (b *bench) paced(id string, interval, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Minute)
	defer cancel()
	c, err := b.dial(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	req := request(102, batchOf(100))
	var took []time.Duration
	begin := time.Now()
	for i := range int(d / interval) {
		due := begin.Add(time.Duration(i) * interval)
		time.Sleep(time.Until(due)) // the pace of this client
		if _, err := c.Send(ctx, req); err != nil {
			return nil, err
		}
		if _, err := c.answer(req); err != nil {
			return nil, err
		}
		took = append(took, time.Since(due))
	}
	slices.Sort(took)
	return took, nil
}

func p99(sorted []time.Duration) time.Duration {
	return sorted[len(sorted)*99/100].Round(time.Microsecond)
}

// status is what of /status is used here.
type status struct {
	Watermarks struct{ Written int64 }
	Flushes    struct {
		Count, Bytes int64
		Seconds      float64
	} `json:"flushes_total"`
	Policies map[string]server.PolicyCounts
}

func (b *bench) status() (s status, err error) {
	err = b.admin(http.MethodGet, "/status", nil, &s)
	return s, err
}

// setPolicy sets a policy and returns when it is in force.
func (b *bench) setPolicy(p qos.Policy) error {
	return b.admin(http.MethodPut, "/qos/"+p.Name, p, nil)
}

func (b *bench) admin(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, "http://"+b.n.Admin+path, body)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s (%w)", method, path, resp.Status, raw, err)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}
