//go:build unix && !linux

package server

import "tidemark/qos"

// Elsewhere than on Linux a connection is not paused; admission and request.max bound what it can send.
func (gc *gnetConn) Pause()  {}
func (gc *gnetConn) Resume() {}

func (gc *gnetConn) limitUnsent(int) {}

// Nor is it at rest.
func (gc *gnetConn) Rest(*qos.Policies) {}
func (gc *gnetConn) stir() bool         { return false }

type (
	restSet struct{}
	rested  struct{}
)

func newRestSet() (*restSet, error) { return nil, nil }
func (*restSet) close()             {}

func findEpoll(int) int { return -1 }
