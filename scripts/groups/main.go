// Groups measures what consumer groups take: how long a rebalance of many members lasts, and what many groups cost that do nothing.
//
//	go run ./scripts/groups [--members 100] [--groups 1000] [--over 30s]
//
// It starts a server of its own. Rebalance: franz-go members of one group with a partition each; the time from the first one's start, from one more that comes, and from one that leaves, until the group is stable with all of them. Members hear of a rebalance with their next
// heartbeat, so it is measured with heartbeats of 3 s, as clients have by default, and of 100 ms. Cost: groups of one member that sends a heartbeat every 3 s, each over a connection of its own, and the server's processor time above that of a server with nothing to do, once each has sent three. Beside it stands what
// a server costs that only echoes as many messages: each wakes a processor that sleeps, which on a virtual machine is most of it. It fails when the groups cost more than 2 % of a core, and more than the echo.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/scripts/node"
)

const topic = "groups"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "echo" { // a child
		fmt.Fprintln(os.Stderr, "groups:", echoServer())
		os.Exit(1)
	}
	members := flag.Int("members", 100, "members of the group that rebalances")
	groups := flag.Int("groups", 1000, "groups of one member")
	over := flag.Duration("over", 30*time.Second, "time over which processor time is taken")
	flag.Parse()
	passed, failed, err := run(*members, *groups, *over)
	if err != nil {
		fmt.Fprintln(os.Stderr, "groups:", err)
		failed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func run(members, groups int, over time.Duration) (passed, failed int, err error) {
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "tidemark-groups-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	binary, err := node.Build(dir)
	if err != nil {
		return 0, 0, err
	}
	n, err := node.Start(binary, filepath.Join(dir, "data"), "journal.segment.bytes=16MiB", "journal.cache.bytes=16MiB")
	if err != nil {
		return 0, 0, err
	}
	defer n.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for _, heartbeat := range []time.Duration{3 * time.Second, 100 * time.Millisecond} {
		if err := rebalances(ctx, n.Addr, members, heartbeat); err != nil {
			return passed, failed, err
		}
		passed++
	}
	alone, err := used(n, over)
	if err != nil {
		return passed, failed, err
	}
	settling, idle, beats, err := idleGroups(ctx, n, groups, over)
	if err != nil {
		return passed, failed, err
	}
	n.Stop()
	echo, err := echoCost(groups, over)
	if err != nil {
		return passed, failed, err
	}
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / over.Seconds() }
	verdict, cost := "ok  ", share(idle-alone)
	if cost > max(2, share(echo)) {
		verdict = "FAIL"
		failed++
	} else {
		passed++
	}
	fmt.Printf("%s %d groups of one member take %.2f %% of a core above a server with nothing to do, over %v (%v and %v; %d heartbeats), and %v in the %v before; a server that only echoes takes %.2f %%; limit 2 %%, or as much as that\n",
		verdict, groups, cost, over, idle, alone, beats, settling, settle, share(echo))
	return passed, failed, nil
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

// rebalances has members come together, one more come, and one leave.
func rebalances(ctx context.Context, addr string, members int, heartbeat time.Duration) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	name := fmt.Sprintf("%s-%v", topic, heartbeat)
	if _, err := admin.CreateTopic(ctx, int32(members+1), 1, nil, name); err != nil {
		return err
	}
	var crew []*kgo.Client
	defer func() {
		for _, m := range crew {
			m.Close()
		}
	}()
	join := func() error {
		m, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics(), kgo.ConsumerGroup(name), kgo.ConsumeTopics(name), kgo.HeartbeatInterval(heartbeat), kgo.FetchMaxWait(10*time.Second))
		crew = append(crew, m)
		return err
	}
	begin := time.Now()
	for range members {
		if err := join(); err != nil {
			return err
		}
	}
	together, err := settled(ctx, admin, name, members, begin)
	if err != nil {
		return err
	}
	begin = time.Now()
	if err := join(); err != nil {
		return err
	}
	more, err := settled(ctx, admin, name, members+1, begin)
	if err != nil {
		return err
	}
	begin = time.Now()
	crew[members/2].Close()
	crew = append(crew[:members/2], crew[members/2+1:]...)
	less, err := settled(ctx, admin, name, members, begin)
	if err != nil {
		return err
	}
	fmt.Printf("ok   %d members with a heartbeat every %v: stable %v after the first one's start, %v after one more, %v after one left\n", members, heartbeat, together, more, less)
	return nil
}

// settled waits until the group is stable with so many members, and returns the time since begin.
func settled(ctx context.Context, admin *kadm.Client, group string, members int, begin time.Time) (time.Duration, error) {
	for ; ; time.Sleep(5 * time.Millisecond) { // between two looks
		all, err := admin.DescribeGroups(ctx, group)
		if err != nil {
			return 0, err
		}
		if g := all[group]; g.State == "Stable" && len(g.Members) == members {
			return time.Since(begin).Round(time.Millisecond), nil
		}
		if time.Since(begin) > 2*time.Minute {
			return 0, fmt.Errorf("group %s: %s with %d members of %d after two minutes", group, all[group].State, len(all[group].Members), members)
		}
	}
}

const heartbeatEvery = 3 * time.Second

// settle is how long groups live before they are idle: each has sent three heartbeats then, which is longer than the 5 s after which clients that consume commit.
const settle = 3*heartbeatEvery + time.Second

// idleGroups makes groups of one member each, and returns the server's processor time over d while they do nothing but live, and that over settle before it.
func idleGroups(ctx context.Context, n *node.Node, groups int, d time.Duration) (settling, took time.Duration, beats int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var sent atomic.Int64
	failed := make(chan error, groups)
	start := time.Now()
	var joined sync.WaitGroup
	for i := range groups {
		joined.Add(1)
		work.Go(func() {
			conn, beat, err := joinAlone(ctx, n.Addr, i)
			joined.Done()
			if err != nil {
				failed <- err
				return
			}
			defer conn.Close()
			next := start.Add(heartbeatEvery * time.Duration(i) / time.Duration(groups)) // spread, as clients that started at different times are
			for {
				for next = next.Add(heartbeatEvery); time.Until(next) < 0; next = next.Add(heartbeatEvery) {
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(next)):
				}
				resp, err := conn.Request(ctx, beat)
				if err == nil {
					err = kerr.ErrorForCode(resp.(*kmsg.HeartbeatResponse).ErrorCode)
				}
				if err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
				sent.Add(1)
			}
		})
	}
	joined.Wait()
	if settling, err = used(n, settle); err != nil {
		return 0, 0, 0, err
	}
	before := sent.Load()
	took, err = used(n, d)
	beats = sent.Load() - before
	select {
	case ferr := <-failed:
		err = errors.Join(err, ferr)
	default:
	}
	return settling, took, beats, err
}

// joinAlone makes a client the only member of a group, and returns its connection and its heartbeat.
func joinAlone(ctx context.Context, addr string, i int) (*kwire.Conn, *kmsg.HeartbeatRequest, error) {
	group := fmt.Sprintf("group-%d", i)
	conn, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: fmt.Sprintf("member-%d", i), SkipApiVersions: true})
	if err != nil {
		return nil, nil, err
	}
	beat, err := join(ctx, conn, group)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("%s: %w", group, err)
	}
	return conn, beat, nil
}

func join(ctx context.Context, conn *kwire.Conn, group string) (*kmsg.HeartbeatRequest, error) {
	resp, err := conn.Request(ctx, &kmsg.JoinGroupRequest{Version: 3, Group: group, SessionTimeoutMillis: 45_000, RebalanceTimeoutMillis: 60_000, ProtocolType: "consumer",
		Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}})
	if err != nil {
		return nil, err
	}
	j := resp.(*kmsg.JoinGroupResponse)
	if err := kerr.ErrorForCode(j.ErrorCode); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	resp, err = conn.Request(ctx, &kmsg.SyncGroupRequest{Version: 3, Group: group, Generation: j.Generation, MemberID: j.MemberID,
		GroupAssignment: []kmsg.SyncGroupRequestGroupAssignment{{MemberID: j.MemberID, MemberAssignment: []byte("all")}}})
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.SyncGroupResponse).ErrorCode); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	return &kmsg.HeartbeatRequest{Version: 3, Group: group, Generation: j.Generation, MemberID: j.MemberID}, nil
}
