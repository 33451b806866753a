package bufpool

import "testing"

func TestGetHasRoom(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 8192, 8193, 1 << 20, 1<<20 + slack, 1<<20 + slack + 1, 1 << largest, 1<<largest + slack, 1<<largest + slack + 1} {
		b := Get(n)
		if got := b.Bytes(); len(got) != 0 || cap(got) < n || n > 8192 && cap(got) > 2*n+slack {
			t.Errorf("Get(%d): %d of %d", n, len(got), cap(got))
		}
		b.Put()
	}
	(*Buffer)(nil).Put()
}

func TestPutIsUsedAgain(t *testing.T) {
	n := testing.AllocsPerRun(1000, func() {
		b := Get(1 << 20)
		b.Put()
	})
	if n > 0.5 {
		t.Errorf("%.2f allocations each time", n)
	}
}
