package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// paceClock sleeps for microseconds: Go's timers wake to the millisecond when nothing else runs. It holds a thread.
type paceClock struct{}

func startPaceClock() *paceClock {
	runtime.LockOSThread()                             // and is not unlocked: the thread with its slack ends with its goroutine
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it, 50 us late
	return &paceClock{}
}

func (*paceClock) sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // cut short: the caller looks at the clock
}
