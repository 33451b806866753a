// Picture draws the pictures of docs/profiling.md as SVG.
//
//	go run ./scripts/picture flame FILE.pb.gz > flame.svg    a flame graph of a pipeline profile: levels below, stages on them, as wide as their time
//	go run ./scripts/picture text < watch.txt > watch.svg     text as a terminal shows it: the last 24 lines
package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

func main() {
	err := errors.New("usage: picture flame FILE | picture text < FILE")
	w := bufio.NewWriter(os.Stdout)
	switch {
	case len(os.Args) == 3 && os.Args[1] == "flame":
		err = flameFile(w, os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "text":
		err = text(w, os.Stdin)
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

const (
	width     = 960.0
	rowHeight = 26
	lineChars = 80
	lineRows  = 24
)

func flameFile(w io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return flame(w, p)
}

// block is a part of the graph: a name and its time.
type block struct {
	name string
	time time.Duration
	over []block
}

// flame draws the profile's stacks.
func flame(w io.Writer, p *profile.Profile) error {
	root := block{name: "all requests"}
	for _, s := range p.Sample {
		root.add(s.Location, time.Duration(s.Value[1]))
	}
	if root.time == 0 {
		return errors.New("the profile holds no time")
	}
	height := 4 * rowHeight
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	root.draw(w, 0, width, height-rowHeight)
	fmt.Fprintln(w, "</svg>")
	return nil
}

// add takes a stack: its last location is the lowest.
func (b *block) add(stack []*profile.Location, took time.Duration) {
	b.time += took
	if len(stack) == 0 {
		return
	}
	name := stack[len(stack)-1].Line[0].Function.Name
	i := slices.IndexFunc(b.over, func(o block) bool { return o.name == name })
	if i < 0 {
		b.over = append(b.over, block{name: name})
		i = len(b.over) - 1
	}
	b.over[i].add(stack[:len(stack)-1], took)
}

func (b *block) draw(w io.Writer, x, wide float64, y int) {
	hue := 0
	for _, r := range b.name {
		hue = (hue*31 + int(r)) % 40
	}
	slices.SortFunc(b.over, func(a, c block) int { return cmp.Compare(c.time, a.time) })
	label := b.name + " " + b.time.Round(time.Millisecond).String()
	if shown := int(wide / 7); len(label) > shown {
		label = label[:max(shown, 0)]
	}
	fmt.Fprintf(w, `<g><title>%s: %v</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="hsl(%d,80%%,65%%)" stroke="white"/><text x="%.1f" y="%d">%s</text></g>`+"\n",
		html.EscapeString(b.name), b.time, x, y, wide, rowHeight, 20+hue, x+4, y+17, html.EscapeString(label))
	for i := range b.over {
		part := wide * float64(b.over[i].time) / float64(b.time)
		b.over[i].draw(w, x, part, y-rowHeight)
		x += part
	}
}

// text draws the last lines that a terminal would show.
func text(w io.Writer, r io.Reader) error {
	var lines []string
	for s := bufio.NewScanner(r); s.Scan(); {
		lines = append(lines, s.Text())
	}
	lines = lines[max(len(lines)-lineRows, 0):]
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="14"><rect width="100%%" height="100%%" fill="#1c1c1c"/>`+"\n", lineChars*9, (lineRows+1)*18)
	for i, line := range lines {
		fmt.Fprintf(w, `<text x="8" y="%d" fill="#dcdcdc" xml:space="preserve">%s</text>`+"\n", (i+1)*18, html.EscapeString(strings.TrimRight(line, " ")))
	}
	fmt.Fprintln(w, "</svg>")
	return nil
}
