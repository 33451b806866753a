//go:build unix && !linux

package server

// Elsewhere than on Linux a connection is not paused; admission and request.max bound what it can send.
func (gc *gnetConn) Pause()  {}
func (gc *gnetConn) Resume() {}

func (gc *gnetConn) limitUnsent(int) {}

func findEpoll(int) int { return -1 }
