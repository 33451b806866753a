//go:build !linux

package main

import "time"

// paceClock sleeps as exactly as the runtime does.
type paceClock struct{}

func startPaceClock() *paceClock { return &paceClock{} }

func (*paceClock) sleep(d time.Duration) { time.Sleep(d) }
