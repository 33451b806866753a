package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/scripts/node"
)

// hostile lets a crowd of bad clients at a real server while a good one writes: idle connections, clients that never read, frames that come a byte at a time, frames that announce 2 GiB, random bytes, requests cut off at
// every byte, and floods of connects. Memory stays within its bound and the good client is served as if it were alone, nearly.
func hostile(f *flag.FlagSet) func(*run) error {
	idle := f.Int("idle", 10_000, "idle connections")
	only := f.String("only", "", "only the kinds of bad clients whose names contain this")
	return func(r *run) error {
		binary, err := node.Build(r.dir)
		if err != nil {
			return err
		}
		n, err := node.Start(binary, filepath.Join(r.dir, "data"), "journal.segment.bytes=64MiB", "journal.cache.bytes=64MiB", "journal.spares=1", "memory.max=224MiB", fmt.Sprintf("server.connections.max=%d", *idle+500))
		if err != nil {
			return err
		}
		defer func() { n.Kill() }()
		if err := createTopic(n.Addr, 1); err != nil {
			return err
		}
		good := &client{name: "good", acks: 102, producer: kwire.NoProducer, rng: r.rng(1)}
		for range 16 {
			if err := good.one(n.Addr); err != nil { // something large to ask for
				return err
			}
		}
		stretch := 600 * time.Millisecond
		if r.long {
			stretch = 6 * time.Second
		}
		bad := &badClients{run: r, addr: n.Addr}
		for _, kind := range []struct {
			name string
			act  func(stop <-chan struct{}) error

			logged bool // they are closed for what they send
		}{
			{"idle connections", func(stop <-chan struct{}) error { return bad.idle(*idle, stop) }, false},
			{"clients that never read", bad.neverRead, false},
			{"frames a byte at a time", bad.byteByByte, false},
			{"frames that announce 2 GiB", bad.giants, true},
			{"random bytes", bad.noise, true},
			{"requests cut off at every byte", bad.cutOff, false},
			{"a flood of connects", bad.flood, false},
		} {
			if !strings.Contains(kind.name, *only) {
				continue
			}
			t, err := r.inTurns(n, good, bad, stretch, kind.act)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			most := int64(t.beside.Seconds()+1) * logLines
			switch over := t.over(); {
			case t.lines > most:
				err = fmt.Errorf("%d lines of log, the bound is %d", t.lines, most)
			case kind.logged && t.lines == 0:
				err = errors.New("connections are closed for what they send, and the log says nothing")
			case over > 0:
				err = fmt.Errorf("the good client's p99 is %v above its bound in the median of %d turns", over, hostileTurns)
			case t.memory > hostileMemory:
				err = fmt.Errorf("%d MiB are resident, the bound is %d", t.memory>>20, hostileMemory>>20)
			}
			fmt.Printf("%s: p99 %v, alone %v, longest %v, %d MiB resident, %d lines of log\n", kind.name, t.p99, t.alone, t.longest, t.memory>>20, t.lines)
			r.check(err, "%s", kind.name)
		}
		_, _, err = good.check(n.Addr)
		r.check(err, "the good client's records")
		if code := n.Stop(); code != 0 {
			r.fail("the server stopped with exit code %d: %s", code, n.Last())
		}
		r.check(r.beyondDescriptors(binary), "more connections than descriptors")
		return nil
	}
}

const (
	hostileMemory = 256 << 20
	logLines      = 10 // a second: five for each kind of misbehaviour
)

// beyondDescriptors has more clients connect and stay than the process may have open files, while a good client has the server make and drop segments: those descriptors are kept in reserve.
func (r *run) beyondDescriptors(binary string) error {
	const limit, crowd = 512, 1000
	n, err := node.StartWith(node.Options{Under: []string{"prlimit", fmt.Sprintf("--nofile=%d", limit)}}, binary, filepath.Join(r.dir, "data-descriptors"),
		"journal.segment.bytes=4MiB", "journal.cache.bytes=4MiB", "journal.retention.bytes=16MiB")
	if err != nil {
		return err
	}
	defer func() { n.Kill() }()
	if err := createTopic(n.Addr, 1); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	good := &client{name: "good", acks: 102, producer: kwire.NoProducer, rng: r.rng(2)}
	conn, err := kwire.Dial(ctx, n.Addr, kwire.Options{ClientID: good.name})
	if err != nil {
		return err
	}
	defer conn.Close()
	var stay []net.Conn
	defer func() {
		for _, c := range stay {
			c.Close()
		}
	}()
	most := 0
	for i := range crowd {
		c, err := net.DialTimeout("tcp", n.Addr, 5*time.Second)
		if err != nil {
			return fmt.Errorf("connect %d: %w", i, err)
		}
		stay = append(stay, c)
		if i%10 == 0 {
			if err := good.oneOn(ctx, conn); err != nil {
				return fmt.Errorf("the good client, beside %d connections: %w", i, err)
			}
			open, err := n.Descriptors()
			if err != nil {
				return err
			}
			most = max(most, open)
		}
	}
	r.count("connections beyond the descriptors", crowd-limit)
	fmt.Printf("%d connections, at most %d of %d descriptors in use\n", crowd, most, limit)
	if most > limit-128 {
		return fmt.Errorf("%d of %d descriptors are in use: too few are kept for segments", most, limit)
	}
	for _, c := range stay { // there is room for the good again
		c.Close()
	}
	if code := n.Stop(); code != 0 {
		return fmt.Errorf("the server stopped with exit code %d: %s", code, n.Last())
	}
	return nil
}

// turns are stretches of the good client's work, alone and beside a kind of bad clients, one after the other.
type turns struct {
	alone, p99 [hostileTurns]time.Duration // of each turn, in order
	longest    time.Duration               // of all requests beside bad clients
	beside     time.Duration               // how long bad clients were at it
	memory     int64                       // resident at most, bytes
	lines      int64                       // of log beside them
}

// hostileTurns of each kind: odd, for a median.
const hostileTurns = 5

// inTurns lets the good client work alone and beside bad clients in turns. A machine that is slower for a while is so for both sides of a turn, or for few turns.
func (r *run) inTurns(n *node.Node, good *client, bad *badClients, stretch time.Duration, act func(stop <-chan struct{}) error) (t turns, err error) {
	for i := range hostileTurns {
		alone, err := good.latencies(n.Addr, stretch)
		if err != nil {
			return t, err
		}
		open, err := n.Descriptors()
		if err != nil {
			return t, err
		}
		stop, done := make(chan struct{}), make(chan error, 1)
		bad.ready = make(chan struct{})
		go func() { done <- act(stop) }()
		select {
		case <-bad.ready:
		case err := <-done:
			return t, err
		}
		lines, begin := n.Lines(), time.Now()
		with, err := good.latencies(n.Addr, stretch)
		t.memory = max(t.memory, n.Resident())
		t.lines += n.Lines() - lines
		t.beside += time.Since(begin)
		close(stop)
		if err := errors.Join(err, <-done); err != nil {
			return t, err
		}
		t.alone[i], t.p99[i], t.longest = p99(alone), p99(with), max(t.longest, with[len(with)-1].Round(time.Microsecond))
		for end := time.Now().Add(clientTimeout); ; time.Sleep(10 * time.Millisecond) { // until the server has seen them go
			now, err := n.Descriptors()
			if err != nil {
				return t, err
			}
			if now <= open {
				break
			}
			if time.Now().After(end) {
				return t, fmt.Errorf("the server holds %d descriptors %v after the bad clients went, %d before", now, clientTimeout, open)
			}
		}
	}
	return t, nil
}

// over is by how much the good client's p99 exceeds twice its p99 alone and 1 ms, in the median of the turns: bad clients, who are at it all the time, exceed it in most turns; whoever else shares the machine disturbs some.
func (t *turns) over() time.Duration {
	var over [hostileTurns]time.Duration
	for i := range over {
		over[i] = t.p99[i] - 2*t.alone[i] - time.Millisecond
	}
	slices.Sort(over[:])
	return over[hostileTurns/2]
}

func p99(ascending []time.Duration) time.Duration {
	return ascending[len(ascending)*99/100].Round(time.Microsecond)
}

// latencies writes one record after the other for a while.
func (c *client) latencies(addr string, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout+d)
	defer cancel()
	conn, err := kwire.Dial(ctx, addr, kwire.Options{ClientID: c.name})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var all []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		s := sent{first: c.next, count: 1}
		c.next++
		begin := time.Now()
		kresp, err := conn.Request(ctx, c.request(s))
		if err != nil {
			return nil, err
		}
		all = append(all, time.Since(begin))
		if code := produceCode(kresp); code != 0 {
			return nil, fmt.Errorf("the good client is answered with error %d", code)
		}
		c.acked = append(c.acked, s.first)
		time.Sleep(time.Millisecond) // its own pace
	}
	slices.Sort(all)
	return all, nil
}

// badClients are bounded in number and in time: each kind ends when stop is closed.
type badClients struct {
	run   *run
	addr  string
	ready chan struct{} // closed by a kind once it is at it
}

// badPace is the pause between two turns of one bad client.
const badPace = 20 * time.Millisecond

// each runs n of a kind side by side until stop is closed; act is called again and again.
func (b *badClients) each(n int, stop <-chan struct{}, act func(rng *rand.Rand) error) error {
	var wg sync.WaitGroup
	close(b.ready)
	for i := range n {
		wg.Go(func() {
			rng := b.run.rng(uint64(1000 + i))
			for {
				select {
				case <-stop:
					return
				case <-time.After(badPace): // bounded in rate too: what is measured is the server, not how much of the machine the bad clients take
				}
				_ = act(rng) // refused or cut off: as it should be
				b.run.count("bad turns", 1)
			}
		})
	}
	wg.Wait()
	return nil
}

func (b *badClients) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", b.addr, 5*time.Second)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	}
	return c, err
}

func (b *badClients) idle(n int, stop <-chan struct{}) error {
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		c, err := net.DialTimeout("tcp", b.addr, 5*time.Second)
		if err != nil {
			return fmt.Errorf("after %d: %w", len(conns), err)
		}
		conns = append(conns, c)
	}
	b.run.count("idle connections", int64(len(conns)))
	close(b.ready)
	<-stop
	return nil
}

// neverRead asks for 40 times 4 MiB on each of 100 connections, reads nothing, and stays.
func (b *badClients) neverRead(stop <-chan struct{}) error {
	many := bytes.Repeat(frame(fetchRequest(0, 0, 4<<20)), 40)
	var stuck, wg sync.WaitGroup
	for range 100 {
		stuck.Add(1)
		wg.Go(func() {
			c, err := b.dial()
			if err == nil {
				defer c.Close()
				_, _ = c.Write(many)
			}
			b.run.count("clients that never read", 1)
			stuck.Done()
			<-stop
		})
	}
	stuck.Wait()
	close(b.ready)
	wg.Wait()
	return nil
}

func (b *badClients) byteByByte(stop <-chan struct{}) error {
	good := frame(kmsg.NewPtrApiVersionsRequest())
	return b.each(100, stop, func(*rand.Rand) error {
		c, err := b.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range good {
			if _, err := c.Write(good[i : i+1]); err != nil {
				return err
			}
			time.Sleep(badPace)
		}
		var answer [4]byte
		_, err = c.Read(answer[:])
		return err
	})
}

func (b *badClients) giants(stop <-chan struct{}) error {
	return b.each(20, stop, func(rng *rand.Rand) error {
		c, err := b.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		size := []uint32{1<<31 - 1, 1 << 31, 15 << 20}[rng.IntN(3)]
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, size)); err != nil {
			return err
		}
		_, err = c.Write(make([]byte, 1000))
		return err
	})
}

func (b *badClients) noise(stop <-chan struct{}) error {
	return b.each(20, stop, func(rng *rand.Rand) error {
		c, err := b.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		junk := make([]byte, 4+rng.IntN(2000))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
		}
		if rng.IntN(2) == 0 { // a frame of the right length
			binary.BigEndian.PutUint32(junk, uint32(len(junk)-4))
		}
		_, err = c.Write(junk)
		return err
	})
}

// cutOff sends a sound request up to one byte, and goes.
func (b *badClients) cutOff(stop <-chan struct{}) error {
	c := &client{name: "cut", acks: 102, producer: kwire.NoProducer}
	req := c.request(sent{count: 3})
	req.Topics[0].Topic = "no-such-topic"
	whole := frame(req)
	return b.each(20, stop, func(rng *rand.Rand) error {
		c, err := b.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(whole[:rng.IntN(len(whole))])
		return err
	})
}

func (b *badClients) flood(stop <-chan struct{}) error {
	return b.each(20, stop, func(*rand.Rand) error {
		c, err := b.dial()
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// frame is a request as it goes over the wire.
func frame(req kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("bad")).AppendRequest(nil, req, 1)
}
