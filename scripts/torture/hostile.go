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
	"os"
	"path/filepath"
	"slices"
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
		seconds := 3 * time.Second
		if r.long {
			seconds = 30 * time.Second
		}
		bad := &badClients{run: r, addr: n.Addr}
		for _, b := range []struct {
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
			alone, err := good.windows(n.Addr, seconds/2)
			if err != nil {
				return err
			}
			limit := 2*alone[1] + time.Millisecond
			stop, done := make(chan struct{}), make(chan error, 1)
			bad.ready = make(chan struct{})
			go func() { done <- b.act(stop) }()
			select {
			case <-bad.ready:
			case err := <-done:
				return fmt.Errorf("%s: %w", b.name, err)
			}
			before, begin := n.Lines(), time.Now()
			with, err := good.windows(n.Addr, seconds)
			memory := n.Resident()
			lines, most := n.Lines()-before, int64(time.Since(begin).Seconds()+1)*logLines
			close(stop)
			err = errors.Join(err, <-done)
			switch {
			case err != nil:
			case lines > most:
				err = fmt.Errorf("%d lines of log, the bound is %d", lines, most)
			case b.logged && lines == 0:
				err = errors.New("connections are closed for what they send, and the log says nothing")
			case with[1] > limit:
				err = fmt.Errorf("the good client's p99 is %v, the bound is %v", with, limit)
			case memory > hostileMemory:
				err = fmt.Errorf("%d MiB are resident, the bound is %d", memory>>20, hostileMemory>>20)
			}
			fmt.Printf("%s: p99 %v, alone %v, %d MiB resident, %d lines of log\n", b.name, with, alone, memory>>20, lines)
			r.check(err, "%s", b.name)
		}
		_, _, err = good.check(n.Addr)
		r.check(err, "the good client's records")
		if code := n.Stop(); code != 0 {
			r.fail("the server stopped with exit code %d: %s", code, n.Last())
		}
		r.check(r.descriptors(binary), "more connections than descriptors")
		return nil
	}
}

const (
	hostileMemory = 256 << 20
	logLines      = 10 // a second: five for each kind of misbehaviour
)

// descriptors has more clients connect and stay than the process may have open files, while a good client has the server make and drop segments: those descriptors are kept in reserve.
func (r *run) descriptors(binary string) error {
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
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
			if err != nil {
				return err
			}
			most = max(most, len(open))
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

// windows are the p99 of three stretches of d, ascending. The median counts: whoever shares the machine disturbs one of them; bad clients, who are at it all the time, disturb all.
func (c *client) windows(addr string, d time.Duration) (p99s [3]time.Duration, err error) {
	for i := range p99s {
		all, err := c.latencies(addr, d/3)
		if err != nil {
			return p99s, err
		}
		p99s[i] = all[len(all)*99/100].Round(time.Microsecond)
	}
	slices.Sort(p99s[:])
	return p99s, nil
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
