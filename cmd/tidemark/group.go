package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/dustin/go-humanize/english"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// GroupCmd groups the consumer group commands.
type GroupCmd struct {
	List     GroupListCmd     `cmd:"" help:"List consumer groups."`
	Describe GroupDescribeCmd `cmd:"" help:"Show a group's members, and how far it has read."`
	Reset    GroupResetCmd    `cmd:"" help:"Set where a group without members reads on."`
	Delete   GroupDeleteCmd   `cmd:"" help:"Delete groups that have no members, with what they committed."`
}

// groupError names the group in front of err, and says the way out of what can be helped.
func groupError(group string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.NonEmptyGroup), errors.Is(err, kerr.UnknownMemberID):
		return fmt.Errorf("group %q: it has members: stop them first: %w", group, err)
	case errors.Is(err, kerr.GroupIDNotFound):
		return fmt.Errorf("group %q: no group of this name has members or committed offsets: %w", group, err)
	}
	return fmt.Errorf("group %q: %w", group, err)
}

// printable is a name as it is, or quoted if a terminal would take some of it for something else.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

// GroupListCmd is `tidemark group list`.
type GroupListCmd struct {
	ClientFlags
}

// Run prints a line for each group.
func (c *GroupListCmd) Run(e *env) error {
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		groups, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		lags := make(kadm.DescribedGroupLags)
		if len(groups) > 0 {
			if lags, err = admin.Lag(ctx, groups.Groups()...); err != nil {
				return err
			}
		}
		w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "GROUP\tSTATE\tMEMBERS\tLAG")
		for _, g := range groups.Sorted() {
			l := lags[g.Group]
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", printable(g.Group), g.State, len(l.Members), l.Lag.Total())
		}
		return w.Flush()
	})
}

// GroupDescribeCmd is `tidemark group describe`.
type GroupDescribeCmd struct {
	ClientFlags
	Name string `arg:"" help:"Group name."`
}

// Help is kong's detailed help.
func (GroupDescribeCmd) Help() string {
	return `A line for each partition that the group has committed an offset of or that a member has: the offset that is read next, where the partition ends, how many
records lie between, and whose it is. "-" is nothing committed, or nobody's.

Example:

    tidemark group describe billing`
}

// Run prints the group.
func (c *GroupDescribeCmd) Run(e *env) error {
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		lags, err := admin.Lag(ctx, c.Name)
		if err != nil {
			return groupError(c.Name, err)
		}
		g := lags[c.Name]
		switch {
		case g.Error() != nil:
			return groupError(c.Name, g.Error())
		case g.State == "Dead":
			return groupError(c.Name, kerr.GroupIDNotFound)
		}
		fmt.Fprintf(e.stdout, "group %s: %s, %d members", printable(g.Group), g.State, len(g.Members))
		if g.Protocol != "" {
			fmt.Fprintf(e.stdout, ", protocol %s", g.Protocol)
		}
		fmt.Fprintln(e.stdout)
		w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "TOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tMEMBER\tCLIENT\tHOST")
		for _, l := range g.Lag.Sorted() {
			committed, lag, end := fmt.Sprint(l.Commit.At), fmt.Sprint(l.Lag), fmt.Sprint(l.End.Offset)
			if l.Commit.At < 0 {
				committed = "-"
			}
			if l.Err != nil {
				lag, end = "-", "-"
			}
			member, client, host := "-", "-", "-"
			if l.Member != nil {
				member, client, host = l.Member.MemberID, l.Member.ClientID, strings.TrimPrefix(l.Member.ClientHost, "/")
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Topic, l.Partition, committed, end, lag, member, client, host)
		}
		return w.Flush()
	})
}

// GroupResetCmd is `tidemark group reset`.
type GroupResetCmd struct {
	ClientFlags
	Name   string   `arg:"" help:"Group name."`
	To     string   `required:"" help:"Where to read on: earliest, latest, an offset, or a time like 2026-01-31T08:00:00Z."`
	Topic  []string `help:"Only these topics, comma-separated; without it, all of which the group has committed offsets."`
	DryRun bool     `help:"Show what would be set, and set nothing."`
}

// Help is kong's detailed help.
func (GroupResetCmd) Help() string {
	return `The group may have no members: they would go on where they are. An offset outside of what a partition holds becomes the nearest that it holds; a time
becomes the first record of that time or later, or the partition's end.

Examples:

    tidemark group reset billing --to earliest --dry-run
    tidemark group reset billing --to 2026-01-31T08:00:00Z --topic orders
    tidemark group reset billing --to latest`
}

// Run sets the offsets.
func (c *GroupResetCmd) Run(e *env) error {
	to, err := parseStart("--to", c.To)
	if err != nil {
		return err
	}
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		have, err := admin.FetchOffsets(ctx, c.Name)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // what some brokers say of a group that has committed nothing
			return groupError(c.Name, err)
		}
		topics := c.Topic
		if slices.Contains(topics, "") {
			return usageErrorf("--topic: an empty name")
		}
		if len(topics) == 0 {
			for topic := range have {
				topics = append(topics, topic)
			}
			if len(topics) == 0 {
				return usageErrorf("group %q has committed nothing: name the topics with --topic", c.Name)
			}
		}
		slices.Sort(topics)
		set, outside, err := c.offsets(ctx, admin, topics, to)
		if err != nil {
			return err
		}
		if !c.DryRun {
			done, err := admin.CommitOffsets(ctx, c.Name, set)
			if err == nil {
				err = done.Error()
			}
			if err != nil {
				return groupError(c.Name, err)
			}
		}
		w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "TOPIC\tPARTITION\tFROM\tTO")
		for _, o := range set.Sorted() {
			from := "-"
			if was, ok := have.Lookup(o.Topic, o.Partition); ok && was.At >= 0 {
				from = fmt.Sprint(was.At)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", o.Topic, o.Partition, from, o.At)
		}
		if outside > 0 {
			fmt.Fprintf(e.stderr, "warning: offset %d is not in %s: there it is the nearest end; a time is given like 2026-01-31T08:00:00Z\n", to.offset, english.Plural(outside, "partition", ""))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if c.DryRun {
			c.sayDryRun(ctx, e, admin)
		}
		return nil
	})
}

// sayDryRun says what a reset would do that is not seen in its table.
func (c *GroupResetCmd) sayDryRun(ctx context.Context, e *env, admin *kadm.Client) {
	fmt.Fprintln(e.stderr, "nothing was set: --dry-run")
	if described, err := admin.DescribeGroups(ctx, c.Name); err == nil && len(described[c.Name].Members) > 0 {
		fmt.Fprintf(e.stderr, "warning: group %q has %s: a reset is refused until they have stopped\n", c.Name, english.Plural(len(described[c.Name].Members), "member", ""))
	}
}

// offsets is what to means in each partition of the topics, and in how many of them an offset is before the first or behind the last.
func (c *GroupResetCmd) offsets(ctx context.Context, admin *kadm.Client, topics []string, to start) (set kadm.Offsets, outside int, err error) {
	set = make(kadm.Offsets)
	for _, topic := range topics {
		starts, ends, err := listedBounds(ctx, admin, topic)
		if err != nil {
			return nil, 0, err
		}
		var times kadm.ListedOffsets
		if !to.time.IsZero() {
			if times, err = listedOffsets(admin.ListOffsetsAfterMilli(ctx, to.time.UnixMilli(), topic)); err != nil {
				return nil, 0, topicError(topic, err)
			}
		}
		for id, first := range starts[topic] {
			end, ok := ends.Lookup(topic, id)
			if !ok {
				return nil, 0, topicError(topic, fmt.Errorf("partition %d: the broker gave no end offset", id))
			}
			at := first.Offset
			switch {
			case to.latest:
				at = end.Offset
			case to.offset >= 0:
				if at = min(max(to.offset, first.Offset), end.Offset); at != to.offset {
					outside++
				}
			case !to.time.IsZero():
				found, ok := times.Lookup(topic, id)
				if !ok {
					return nil, 0, topicError(topic, fmt.Errorf("partition %d: the broker gave no offset for the time", id))
				}
				at = found.Offset
			}
			set.AddOffset(topic, id, at, -1)
		}
	}
	return set, outside, nil
}

// GroupDeleteCmd is `tidemark group delete`.
type GroupDeleteCmd struct {
	ClientFlags
	Names []string `arg:"" help:"Group names."`
}

// Run deletes the groups, all that can be.
func (c *GroupDeleteCmd) Run(e *env) error {
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		done, err := admin.DeleteGroups(ctx, c.Names...)
		if err != nil {
			return err
		}
		var errs []error
		for _, r := range done.Sorted() {
			if r.Err != nil {
				errs = append(errs, groupError(r.Group, r.Err))
				continue
			}
			fmt.Fprintf(e.stdout, "deleted %s\n", printable(r.Group))
		}
		return errors.Join(errs...)
	})
}
