//go:build !linux

package main

import "errors"

var errLinux = errors.New("this form needs Linux")

func enospc([]string) (passed, failed int, err error) { return 0, 0, errLinux }

func powerLoss([]string) (passed, failed int, err error) { return 0, 0, errLinux }
