package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/internal/kwire"
)

// Exit codes. They are part of the interface: scripts branch on them, so a number never changes its meaning.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitRefused     = 4
	exitDataDir     = 5
	exitDamaged     = 6
	exitDisk        = 7
	exitInterrupted = 130
	exitPipe        = 141
)

// exitTable is what --help shows of them.
var exitTable = []struct {
	code    int
	meaning string
}{
	{exitOK, "done"},
	{exitFailure, "failed for a reason that has no code of its own"},
	{exitUsage, "bad command line or settings"},
	{exitUnreachable, "cannot reach the broker, or the connection broke"},
	{exitRefused, "the broker refused: a Kafka error code, printed by name"},
	{exitDataDir, "data directory in use, or cannot be opened"},
	{exitDamaged, "the journal is damaged"},
	{exitDisk, "fatal disk error while running"},
	{exitInterrupted, "interrupted"},
	{exitPipe, "whoever read the output has closed it"},
}

// exitHelp is the table as text.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "  %3d  %s\n", row.code, row.meaning)
	}
	return b.String()
}

// exitError is an error that knows its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitWith gives err an exit code, over any that its cause may have; nil stays nil.
func exitWith(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err}
}

// usageErrorf is an error of the command line: it names the flag or argument and what it takes.
func usageErrorf(format string, args ...any) error {
	return exitWith(exitUsage, fmt.Errorf(format, args...))
}

var errInterrupted = exitWith(exitInterrupted, errors.New("interrupted"))

// exitCode finds the code of an error that a command returned.
func exitCode(err error) int {
	var (
		explicit *exitError
		kafka    *kerr.Error
		conn     *kwire.ConnError
		file     *fs.PathError
		network  *net.OpError // not net.Error, which any syscall.Errno is
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &file) && file.Path == os.Stdout.Name() && errors.Is(file, syscall.EPIPE):
		return exitPipe
	case errors.As(err, &explicit):
		return explicit.code
	case errors.As(err, &kafka):
		return exitRefused
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &conn), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kwire.ErrFrame):
		return exitUnreachable
	}
	return exitFailure
}
