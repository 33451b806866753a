package main

import (
	"bytes"
	"fmt"
	"io"
)

const (
	lineBufferBytes = 256 << 10
	// lineBufferLow is the room below which the reader takes a new buffer: small reads share one, lines of earlier chunks keep theirs.
	lineBufferLow = 16 << 10
)

// lineChunk is what one read of the input brought: whole lines without their '\n'. A '\r' before it is the line's own.
type lineChunk struct {
	first int64 // number of lines[0], from 1
	lines [][]byte
	err   error // after the lines: io.EOF at the end of the input, *longLineError, or what reading failed with
}

// longLineError is a line that cannot be sent as one record.
type longLineError struct {
	line  int64
	limit int // bytes
}

func (e *longLineError) Error() string {
	return fmt.Sprintf("line %d is longer than %d bytes", e.line, e.limit)
}

// readLines cuts r into lines and emits a chunk after every read that completed one, so that a slow input is never held back. A last
// line without '\n' counts; nothing after the last '\n' is no line. The chunk with an err is the last one. It ends early when emit returns false.
//
// Memory: a line longer than limit bytes is refused without being read to its end.
func readLines(r io.Reader, limit int, emit func(lineChunk) bool) {
	var (
		buf        = make([]byte, 0, lineBufferBytes)
		start      int // of the line that is not complete yet
		next       = int64(1)
		emptyReads int
	)
	for {
		if cap(buf)-len(buf) < lineBufferLow {
			partial := buf[start:]
			grown := make([]byte, len(partial), max(lineBufferBytes, 2*len(partial)))
			copy(grown, partial)
			buf, start = grown, 0
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		if n == 0 && err == nil {
			if emptyReads++; emptyReads > 100 {
				err = io.ErrNoProgress
			}
		} else {
			emptyReads = 0
		}
		scan := len(buf)
		buf = buf[:len(buf)+n]

		chunk := lineChunk{first: next, err: err}
		for {
			i := bytes.IndexByte(buf[scan:], '\n')
			if i < 0 {
				break
			}
			end := scan + i
			chunk.lines = append(chunk.lines, buf[start:end:end])
			start, scan = end+1, end+1
		}
		if err == io.EOF && start < len(buf) {
			chunk.lines = append(chunk.lines, buf[start:])
			start = len(buf)
		}
		for i, line := range chunk.lines {
			if len(line) > limit {
				chunk.lines, chunk.err = chunk.lines[:i], &longLineError{line: next + int64(i), limit: limit}
				break
			}
		}
		next += int64(len(chunk.lines))
		if chunk.err == nil && len(buf)-start > limit {
			chunk.err = &longLineError{line: next, limit: limit}
		}
		if len(chunk.lines) == 0 && chunk.err == nil {
			continue
		}
		if !emit(chunk) || chunk.err != nil {
			return
		}
	}
}
