package main

import "strings"

// A durability level goes to the broker in a Produce request's acks: 0 for one-way, else 100 + the level's code.
var qosLevels = []struct {
	name string
	acks int16
	help string
}{
	{"one-way", 0, "never answered; lost by anything"},
	{"receive", 101, "the leader has it in memory; lost if its process dies"},
	{"persistence", 102, "synced on the leader's disk; lost with that disk"},
	{"replication", 103, "in the memory of a majority; lost if a majority loses its memory"},
	{"all", 104, "synced by a majority; lost with a majority of disks"},
}

// acksOf is a level's acks; ok is false for a name that is no level.
func acksOf(level string) (acks int16, ok bool) {
	for _, l := range qosLevels {
		if l.name == level {
			return l.acks, true
		}
	}
	return 0, false
}

func qosNames() string {
	names := make([]string, len(qosLevels))
	for i, l := range qosLevels {
		names[i] = l.name
	}
	return strings.Join(names, ", ")
}

// qosHelp is the levels as an indented block for kong's detailed help.
func qosHelp() string {
	var b strings.Builder
	for _, l := range qosLevels {
		b.WriteString("    " + l.name + strings.Repeat(" ", 13-len(l.name)) + l.help + "\n")
	}
	return b.String()
}
