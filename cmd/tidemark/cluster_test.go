package main

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// broker is a Kafka in memory with one node, whose connections can be cut.
type broker struct {
	*kfake.Cluster
	addr    string
	cutNext atomic.Bool // the next response is not written; its connection is closed instead
}

func newBroker(t *testing.T, opts ...kfake.Opt) *broker {
	t.Helper()
	b := new(broker)
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.ListenFn(b.listen)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b.Cluster, b.addr = cluster, cluster.ListenAddrs()[0]
	return b
}

func (b *broker) listen(network, addr string) (net.Listener, error) {
	l, err := net.Listen(network, addr)
	return cuttingListener{l, b}, err
}

type cuttingListener struct {
	net.Listener
	b *broker
}

func (l cuttingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return cuttingConn{c, l.b}, err
}

type cuttingConn struct {
	net.Conn
	b *broker
}

func (c cuttingConn) Write(p []byte) (int, error) {
	if c.b.cutNext.CompareAndSwap(true, false) {
		c.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// leader makes the client commands send acks that Kafka knows: -1 for levels with an answer.
func leader(cli *CLI) {
	acks := int16(-1)
	if cli.Produce.QoS != "one-way" {
		cli.Produce.acksOverride = &acks
	}
	if cli.Bench.Produce.QoS != "one-way" {
		cli.Bench.Produce.Acks = &acks
	}
	cli.Bench.Latency.Acks = &acks
}

// run runs a client command against the broker.
func (b *broker) run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return tidemark(t, t.Context(), strings.NewReader(stdin), leader, append(args, "--bootstrap", b.addr)...)
}

// mustRun wants exit code 0.
func (b *broker) mustRun(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	r := b.run(t, stdin, args...)
	if r.code != exitOK {
		t.Fatalf("tidemark %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r
}

// lines prints a partition's values.
func (b *broker) lines(t *testing.T, topic string, more ...string) []string {
	t.Helper()
	out := b.mustRun(t, "", append([]string{"consume", topic}, more...)...).stdout
	if out == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}
