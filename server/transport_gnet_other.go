//go:build unix && !linux

package server

// Elsewhere than on Linux a connection is not paused; admission and request.max bound what it can send.
func (gc *gnetConn) Pause()  {}
func (gc *gnetConn) Resume() {}

func (gc *gnetConn) limitUnsent(int) {}

// Nor is it at rest.
func (gc *gnetConn) Rest()      {}
func (gc *gnetConn) stir() bool { return false }

type restSet struct{}

func newRestSet() (*restSet, error) { return nil, nil }
func (*restSet) close()             {}

func findEpoll(int) int { return -1 }
