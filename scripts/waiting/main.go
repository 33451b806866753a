// Waiting measures what a fetch that waits costs and how fast it wakes.
//
//	go run ./scripts/waiting [--fetches 1000] [--samples 500]
//
// It starts a server of its own. Cost: the server's processor time over ten seconds with nothing to do, and with that many fetches waiting (max_wait 30 s). Wake-up: the time from the acknowledgement
// of a PERSISTENCE write, which is when it is committed on one node, to the arrival of the fetch's answer, against the median of synced 4 KiB writes on the same disk in the same run. It fails when
// the median is more than one such write and 1 ms, or the cost more than 1 % of a core.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/internal/vfs"
	"tidemark/scripts/node"
)

const topic = "waiting"

func main() {
	fetches := flag.Int("fetches", 1000, "fetches that wait")
	samples := flag.Int("samples", 500, "wake-ups measured")
	idle := flag.Duration("idle", 10*time.Second, "time over which processor time is taken")
	flag.Parse()
	failed, err := run(*fetches, *samples, *idle)
	if err != nil {
		fmt.Fprintln(os.Stderr, "waiting:", err)
		failed++
	}
	fmt.Printf("%d passed, %d failed\n", 2-min(failed, 2), failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func run(fetches, samples int, idle time.Duration) (failed int, err error) {
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-waiting-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	binary, err := node.Build(dir)
	if err != nil {
		return 0, err
	}
	n, err := node.Start(binary, filepath.Join(dir, "data"), "journal.segment.bytes=16MiB", "journal.cache.bytes=16MiB")
	if err != nil {
		return 0, err
	}
	defer n.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	sync, err := probe(dir, 200)
	if err != nil {
		return 0, err
	}
	wake, err := wakeups(ctx, n.Addr, samples)
	if err != nil {
		return 0, err
	}
	verdict := "ok"
	if wake > sync+time.Millisecond {
		verdict, failed = "FAIL", failed+1
	}
	fmt.Printf("%s wake-up: median %v behind the commit, limit %v (one synced 4 KiB write, median %v, and 1 ms); %d samples\n", verdict, wake, sync+time.Millisecond, sync, samples)

	alone, err := used(n, idle)
	if err != nil {
		return failed, err
	}
	for range fetches {
		conn, err := kwire.Dial(ctx, n.Addr, kwire.Options{ClientID: "waiting", SkipApiVersions: true})
		if err != nil {
			return failed, err
		}
		defer conn.Close()
		if _, err := conn.Send(ctx, fetch(int64(samples))); err != nil {
			return failed, err
		}
	}
	if _, err := used(n, time.Second); err != nil { // the fetches arrive
		return failed, err
	}
	waiting, err := used(n, idle)
	if err != nil {
		return failed, err
	}
	cost := 100 * (waiting - alone).Seconds() / idle.Seconds()
	verdict = "ok"
	if cost > 1 {
		verdict, failed = "FAIL", failed+1
	}
	fmt.Printf("%s cost: %d waiting fetches take %.2f %% of a core above idle over %v (idle %v, waiting %v), limit 1 %%\n", verdict, fetches, cost, idle, alone, waiting)
	return failed, nil
}

// used is the server's processor time over d.
func used(n *node.Node, d time.Duration) (time.Duration, error) {
	before, err := n.CPU()
	if err != nil {
		return 0, err
	}
	time.Sleep(d)
	after, err := n.CPU()
	return after - before, err
}

// probe is the median of synced 4 KiB writes into a file that has its blocks.
func probe(dir string, count int) (time.Duration, error) {
	f, err := vfs.OS{}.Open(filepath.Join(dir, "probe"), vfs.ReadWrite|vfs.Create|vfs.Direct)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := vfs.AlignedBytes(vfs.BlockBytes)
	for i := range count {
		if _, err := f.WriteAt(b, int64(i)*vfs.BlockBytes); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	took := make([]time.Duration, count)
	for i := range took {
		begin := time.Now()
		if _, err := f.WriteSync([][]byte{b}, int64(i)*vfs.BlockBytes); err != nil {
			return 0, err
		}
		took[i] = time.Since(begin)
	}
	return median(took), nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// wakeups produces one record after the other and takes the time from each acknowledgement to the answer of a fetch that waited for it.
func wakeups(ctx context.Context, addr string, samples int) (time.Duration, error) {
	writer, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: "writer"})
	if err != nil {
		return 0, err
	}
	defer writer.Close()
	reader, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: "reader"})
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	create := kmsg.NewPtrCreateTopicsRequest()
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = topic, 1, 1
	create.Topics = append(create.Topics, ct)
	create.TimeoutMillis = 10000
	if _, err := writer.Call(ctx, create); err != nil {
		return 0, err
	}
	took := make([]time.Duration, 0, samples)
	type arrival struct {
		at  time.Time
		err error
	}
	for i := range samples {
		req := fetch(int64(i))
		if _, err := reader.Send(ctx, req); err != nil {
			return 0, err
		}
		// A round trip on the same connection would queue behind the fetch; one on the other shows that the server has had time to read it.
		if _, err := writer.Call(ctx, kmsg.NewPtrMetadataRequest()); err != nil {
			return 0, err
		}
		arrived := make(chan arrival, 1)
		go func() {
			resp, err := reader.Receive(ctx)
			at := time.Now()
			if err == nil {
				var kresp kmsg.Response
				if kresp, err = kwire.Decode(req, resp.Body); err == nil {
					p := kresp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
					if err = kerr.ErrorForCode(p.ErrorCode); err == nil && len(p.RecordBatches) == 0 {
						err = fmt.Errorf("fetch %d came back empty", i)
					}
				}
			}
			arrived <- arrival{at, err}
		}()
		if err := produce(ctx, writer); err != nil {
			return 0, err
		}
		acked := time.Now()
		a := <-arrived
		if a.err != nil {
			return 0, a.err
		}
		took = append(took, a.at.Sub(acked))
	}
	return median(took), nil
}

func produce(ctx context.Context, conn *kwire.Conn) error {
	b, err := kwire.AppendBatch(nil, kwire.NoProducer, nil, kwire.Record{Value: make([]byte, 1024), Timestamp: 1})
	if err != nil {
		return err
	}
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis = 102, 10000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = b
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	kresp, err := conn.Request(ctx, req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(kresp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
}

func fetch(from int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(11)
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = -1, 30000, 1, 1<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = from, 1<<20, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}
