package kafka

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// However many answers are held, the next one gets something, and all that is held stays below the limit.
func TestFetchMemoryIsShared(t *testing.T) {
	m := newFetchMemory(64 << 20)
	ctx := context.Background()
	var held []int64
	for i := range 75 {
		got, ok := m.take(ctx, 64<<10, 16<<20)
		if !ok || got < 64<<10 || got > 4<<20 {
			t.Fatalf("answer %d gets %d bytes", i, got)
		}
		held = append(held, got)
	}
	if s := m.status(); s.Bytes >= s.Limit || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	if got, ok := m.take(ctx, 1, 1000); !ok || got != 1000 {
		t.Errorf("a small answer gets %d bytes", got)
	}
	m.give(1000)
	for _, n := range held {
		m.give(n)
	}
	if s := m.status(); s.Bytes != 0 {
		t.Errorf("%d bytes are held by nobody", s.Bytes)
	}
}

// Who waits is served in turn, as soon as there is memory.
func TestFetchMemoryInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFetchMemory(1000)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if got, ok := m.take(ctx, 900, 900); !ok || got != 900 {
			t.Fatal(got, ok)
		}
		done := make(chan int64, 4)
		wait := func(ctx context.Context, least int64) {
			go func() {
				got, ok := m.take(ctx, least, least)
				if !ok {
					got = -1
				}
				done <- got
			}()
			synctest.Wait()
		}
		leaves, leave := context.WithCancel(ctx)
		wait(leaves, 800)
		wait(ctx, 600)
		wait(ctx, 50) // would fit, and waits for its turn: it is more than a share
		if s := m.status(); s.Waiting != 3 {
			t.Fatalf("%+v", s)
		}
		leave()
		if got := <-done; got != -1 {
			t.Errorf("who left got %d", got)
		}
		if got, ok := m.take(ctx, 6, 6); !ok || got != 6 { // less than a share goes past them
			t.Errorf("a small answer gets %d", got)
		}
		m.give(6)
		m.give(450)
		synctest.Wait()
		if len(done) != 0 {
			t.Errorf("somebody got %d out of turn", <-done)
		}
		m.give(450)
		if a, b := <-done, <-done; a+b != 650 {
			t.Errorf("got %d and %d", a, b)
		}
		m.give(650)

		// More than there is at all is given when nothing is held, so that no batch is too large to be read.
		if got, ok := m.take(ctx, 5000, 5000); !ok || got != 5000 {
			t.Error(got, ok)
		}
		begin := time.Now()
		if got, ok := m.take(ctx, 1, 1); ok || time.Since(begin) != fetchPatience {
			t.Errorf("got %d after %v", got, time.Since(begin))
		}
		if got, ok := m.take(ctx, 0, 0); !ok || got != 0 {
			t.Error("who wants nothing waits")
		}
		m.give(5000)
		if s := m.status(); s != (FetchMemory{Limit: 1000}) {
			t.Errorf("%+v", s)
		}
	})
}
