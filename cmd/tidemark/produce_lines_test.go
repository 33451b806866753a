package main

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// collect reads all lines and the error at the end.
func collect(t *testing.T, r io.Reader, limit int) (lines []string, err error) {
	t.Helper()
	next := int64(1)
	readLines(r, limit, func(c lineChunk) bool {
		if c.first != next {
			t.Errorf("chunk begins with line %d, want %d", c.first, next)
		}
		for _, l := range c.lines {
			lines = append(lines, string(l))
		}
		next += int64(len(c.lines))
		err = c.err
		return true
	})
	return lines, err
}

func TestReadLines(t *testing.T) {
	long := strings.Repeat("x", 3*lineBufferBytes)
	cases := []struct {
		name, in string
		limit    int
		want     []string
		longLine int64 // 0: none
	}{
		{"nothing", "", 10, nil, 0},
		{"one", "a\n", 10, []string{"a"}, 0},
		{"no newline at the end", "a\nb", 10, []string{"a", "b"}, 0},
		{"blank lines count", "\n\na\n\n", 10, []string{"", "", "a", ""}, 0},
		{"carriage returns stay", "a\r\n\r\nb\r", 10, []string{"a\r", "\r", "b\r"}, 0},
		{"as long as allowed", "abc\nabc", 3, []string{"abc", "abc"}, 0},
		{"too long", "ab\nabcd\nz\n", 3, []string{"ab"}, 2},
		{"too long at the end", "ab\nabcd", 3, []string{"ab"}, 2},
		{"longer than the buffer", "a\n" + long + "\nb\n", len(long), []string{"a", long, "b"}, 0},
		{"longer than buffer and limit", "a\n" + long + "\nb\n", lineBufferBytes, []string{"a"}, 2},
		{"many", strings.Repeat("line\n", 200_000), 10, strings.Split(strings.Repeat("line\n", 199_999)+"line", "\n"), 0},
	}
	for _, tc := range cases {
		readers := map[string]io.Reader{
			"whole":         strings.NewReader(tc.in),
			"halves":        iotest.HalfReader(strings.NewReader(tc.in)),
			"data with EOF": iotest.DataErrReader(strings.NewReader(tc.in)),
		}
		if len(tc.in) < 1000 {
			readers["byte by byte"] = iotest.OneByteReader(strings.NewReader(tc.in))
		}
		for how, r := range readers {
			t.Run(tc.name+"/"+how, func(t *testing.T) {
				got, err := collect(t, r, tc.limit)
				if !reflect.DeepEqual(got, tc.want) {
					t.Errorf("%d lines, want %d", len(got), len(tc.want))
				}
				var tooLong *longLineError
				switch {
				case tc.longLine > 0:
					if !errors.As(err, &tooLong) || tooLong.line != tc.longLine {
						t.Errorf("error %v, want line %d too long", err, tc.longLine)
					}
				case err != io.EOF:
					t.Errorf("error %v, want EOF", err)
				}
			})
		}
	}
}

func TestReadLinesFailure(t *testing.T) {
	broken := errors.New("broken")
	got, err := collect(t, io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), 10)
	if !reflect.DeepEqual(got, []string{"a"}) || err != broken {
		t.Errorf("%q, %v", got, err)
	}
}

// A slow input must not be held back: a line is out before the next one is written.
func TestReadLinesDoesNotWait(t *testing.T) {
	r, w := io.Pipe()
	chunks := make(chan lineChunk)
	go readLines(r, 10, func(c lineChunk) bool { chunks <- c; return true })
	for _, want := range []string{"a", "b"} {
		io.WriteString(w, want+"\n")
		if c := <-chunks; len(c.lines) != 1 || string(c.lines[0]) != want {
			t.Fatalf("%q, want %s", c.lines, want)
		}
	}
	w.Close()
	if c := <-chunks; c.err != io.EOF {
		t.Error(c.err)
	}
}
