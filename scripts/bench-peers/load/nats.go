package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// natsConn publishes to one stream, with an inbox that takes its acknowledgements.
type natsConn struct {
	nc             *nats.Conn
	subject, inbox string
}

func dialNATS(o *options, i int, c *client) (conn, error) {
	nc, err := nats.Connect("nats://"+o.addr, nats.NoReconnect(), nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.lost(err) }))
	if err != nil {
		return nil, err
	}
	n := &natsConn{nc: nc, subject: "bench", inbox: nats.NewInbox()}
	if i == 0 {
		js, err := nc.JetStream()
		if err != nil {
			return nil, err
		}
		_, err = js.AddStream(&nats.StreamConfig{Name: n.subject, Subjects: []string{n.subject}, Storage: nats.FileStorage, Replicas: 1})
		if err != nil && !errors.Is(err, nats.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
	}
	sub, err := nc.Subscribe(n.inbox, func(m *nats.Msg) {
		if bytes.HasPrefix(m.Data, []byte(`{"error":`)) || m.Header != nil {
			c.answered(fmt.Errorf("refused: %s %v", m.Data, m.Header))
			return
		}
		c.answered(nil)
	})
	if err != nil {
		return nil, err
	}
	return n, sub.SetPendingLimits(-1, -1)
}

func (n *natsConn) send(value []byte, messages int) error {
	for range messages {
		if err := n.nc.PublishRequest(n.subject, n.inbox, value); err != nil {
			return err
		}
	}
	return nil
}

func (n *natsConn) close() { n.nc.Close() }
