package main

import (
	"bufio"
	"fmt"
	"net"
)

// redisStreams is how many keys connections are spread over, as partitions are in Kafka's protocol.
const redisStreams = 4

// redisConn sends XADD, with Redis's own protocol: its clients add more of their own than is wanted here.
type redisConn struct {
	c       net.Conn
	key     string
	request []byte
}

func dialRedis(o *options, i int, c *client) (conn, error) {
	nc, err := net.Dial("tcp", o.addr)
	if err != nil {
		return nil, err
	}
	r := &redisConn{c: nc, key: fmt.Sprintf("bench%d", i%redisStreams)}
	go func() { // $15, the entry's id
		in := bufio.NewReaderSize(nc, 64<<10)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				c.lost(err)
				return
			}
			if line[0] != '$' {
				c.answered(fmt.Errorf("refused: %q", line))
				continue
			}
			if _, err := in.ReadSlice('\n'); err != nil {
				c.lost(err)
				return
			}
			c.answered(nil)
		}
	}()
	return r, nil
}

func (r *redisConn) send(value []byte, messages int) error {
	if r.request == nil {
		for range messages {
			r.request = fmt.Appendf(r.request, "*5\r\n$4\r\nXADD\r\n$%d\r\n%s\r\n$1\r\n*\r\n$1\r\nv\r\n$%d\r\n%s\r\n", len(r.key), r.key, len(value), value)
		}
	}
	_, err := r.c.Write(r.request)
	return err
}

func (r *redisConn) close() { r.c.Close() }
