package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
)

// checker looks at records as they are read: offsets of a partition follow one another, the lines' numbers grow within it, and over all
// partitions each number from 1 on is there once.
type checker struct {
	last  map[int32]position
	lines map[int][]byte // by number
}

type position struct {
	offset int64
	number int
}

func newChecker() *checker {
	return &checker{last: make(map[int32]position), lines: make(map[int][]byte)}
}

func (c *checker) record(partition int32, offset int64, value []byte) error {
	digits, _, _ := bytes.Cut(value, []byte(" "))
	number, err := strconv.Atoi(string(digits))
	if err != nil {
		return fmt.Errorf("partition %d, offset %d: no line number in %q", partition, offset, value)
	}
	last, ok := c.last[partition]
	if !ok {
		last = position{offset: -1}
	}
	if offset != last.offset+1 {
		return fmt.Errorf("partition %d: offset %d came after %d", partition, offset, last.offset)
	}
	if number <= last.number {
		return fmt.Errorf("partition %d, offset %d: line %d came after line %d", partition, offset, number, last.number)
	}
	if _, twice := c.lines[number]; twice {
		return fmt.Errorf("partition %d, offset %d: line %d came twice", partition, offset, number)
	}
	c.last[partition] = position{offset: offset, number: number}
	c.lines[number] = slices.Clone(value)
	return nil
}

// sum is the SHA-256 of the lines in the order of their numbers, each with its newline: what sha256sum says of the file that was produced.
func (c *checker) sum() (string, error) {
	hash := sha256.New()
	for number := 1; number <= len(c.lines); number++ {
		line, ok := c.lines[number]
		if !ok {
			return "", fmt.Errorf("line %d is missing among %d", number, len(c.lines))
		}
		hash.Write(line)
		hash.Write([]byte("\n"))
	}
	return fmt.Sprintf("%x", hash.Sum(nil)), nil
}
