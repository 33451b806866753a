package bufpool

import "testing"

// TestGetHasRoom wants room for what was asked for, and at most a quarter more: what clients hold is bounded by what they asked for.
func TestGetHasRoom(t *testing.T) {
	sizes := []int{0, 1, 4096, smallest - 1, smallest, largest, largest + 1}
	for n := smallest; n < largest; n += n/7 + 1 {
		sizes = append(sizes, n-1, n, n+1)
	}
	for n := smallest; n <= largest; n *= 2 {
		sizes = append(sizes, n-1, n, n+1)
	}
	for _, n := range sizes {
		b := Get(n)
		if got := b.Bytes(); len(got) != 0 || cap(got) < n || cap(got) > n+n/4+8 {
			t.Errorf("Get(%d): %d of %d", n, len(got), cap(got))
		}
		b.Put()
		again := Get(n)
		if cap(again.Bytes()) < n {
			t.Errorf("Get(%d) again: %d", n, cap(again.Bytes()))
		}
		again.Put()
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
