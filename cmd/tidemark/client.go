package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/internal/kwire"
)

const (
	dialTimeout = 5 * time.Second
	// adminTimeout bounds one administrative command: create, list, describe, delete, and look-ups before a consume or a bench.
	adminTimeout = 30 * time.Second
)

// ClientFlags are shared by every command that talks to a broker.
type ClientFlags struct {
	Bootstrap []string `help:"Brokers to start from, host:port, comma-separated." default:"127.0.0.1:9092" env:"TIDEMARK_BOOTSTRAP"`
	ClientID  string   `help:"Name to give to the broker, which treats clients by their names." default:"tidemark-cli" env:"TIDEMARK_CLIENT_ID" placeholder:"ID"`
}

// dial connects to the first bootstrap broker that answers. Its error says which were tried and what to do.
func (f ClientFlags) dial(ctx context.Context) (*kwire.Conn, error) {
	var failures []error
	for _, addr := range f.Bootstrap {
		conn, err := f.dialOne(ctx, strings.TrimSpace(addr))
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
		failures = append(failures, err)
	}
	return nil, exitWith(exitUnreachable, fmt.Errorf(
		"cannot reach the broker: %w; start one with \"tidemark serve\", or name another with --bootstrap or TIDEMARK_BOOTSTRAP", errors.Join(failures...)))
}

func (f ClientFlags) dialOne(ctx context.Context, addr string) (*kwire.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return kwire.Dial(ctx, addr, kwire.Options{ClientID: f.ClientID})
}

// client makes a kgo client, after a probe that gives a clear error where kgo would retry in silence.
func (f ClientFlags) client(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	probe, err := f.dial(ctx)
	if err != nil {
		return nil, err
	}
	probe.Close()
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.Bootstrap...),
		kgo.ClientID(f.ClientID),
		kgo.DialTimeout(dialTimeout),
		kgo.RetryTimeout(adminTimeout),
		kgo.DisableClientMetrics(),
	}, opts...)...)
}

// admin makes a kadm client; Close it.
func (f ClientFlags) admin(ctx context.Context) (*kadm.Client, error) {
	cl, err := f.client(ctx)
	if err != nil {
		return nil, err
	}
	return kadm.NewClient(cl), nil
}

// topicError names the topic in front of err, and for an unknown topic the way out.
func topicError(topic string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("topic %q: %w Create it with: tidemark topic create %s", topic, err, topic)
	case errors.Is(err, kerr.UnknownTopicID):
		return fmt.Errorf("topic %q: it was deleted while it was read: %w", topic, err)
	}
	return fmt.Errorf("topic %q: %w", topic, err)
}

// withMessage adds what the broker said beside an error code, unless it only repeats it.
func withMessage(err error, message string) error {
	if err == nil || message == "" || strings.Contains(err.Error(), message) {
		return err
	}
	return fmt.Errorf("%w (%s)", err, message)
}
