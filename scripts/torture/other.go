//go:build !linux

package main

import (
	"errors"
	"flag"
)

func onlyLinux(*flag.FlagSet) func(*run) error {
	return func(*run) error { return errors.New("this form needs Linux") }
}

var enospc, powerLoss = onlyLinux, onlyLinux
