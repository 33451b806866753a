package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TopicCmd groups the topic commands.
type TopicCmd struct {
	Create   TopicCreateCmd   `cmd:"" help:"Create a topic."`
	List     TopicListCmd     `cmd:"" help:"List topics."`
	Describe TopicDescribeCmd `cmd:"" help:"Show a topic's partitions, offsets and settings."`
	Delete   TopicDeleteCmd   `cmd:"" help:"Delete a topic and its records."`
}

// TopicCreateCmd is `tidemark topic create`.
type TopicCreateCmd struct {
	ClientFlags
	Name       string            `arg:"" help:"Topic name."`
	Partitions int32             `help:"Number of partitions." default:"1"`
	Config     map[string]string `help:"Topic setting, key=value; may be given several times." mapsep:"none" placeholder:"KEY=VALUE"`
}

// Help is kong's detailed help.
func (TopicCreateCmd) Help() string {
	return `Settings are Kafka's topic settings that the broker knows.

Examples:

    tidemark topic create orders --partitions 4
    tidemark topic create events --partitions 8 --config max.message.bytes=4194304`
}

// Run creates the topic.
func (c *TopicCreateCmd) Run(e *env) error {
	if c.Partitions < 1 {
		return usageErrorf("--partitions: %d, must be at least 1", c.Partitions)
	}
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		configs := make(map[string]*string, len(c.Config))
		for k, v := range c.Config {
			configs[k] = kadm.StringPtr(v)
		}
		resp, err := admin.CreateTopic(ctx, c.Partitions, -1, configs, c.Name)
		if err != nil {
			return topicError(c.Name, withMessage(err, resp.ErrMessage))
		}
		_, err = fmt.Fprintf(e.stdout, "created %s, partitions: %d\n", c.Name, c.Partitions)
		return err
	})
}

// TopicListCmd is `tidemark topic list`.
type TopicListCmd struct {
	ClientFlags
}

// Help is kong's detailed help.
func (TopicListCmd) Help() string {
	return "One topic a line, sorted by name.\n\nExample:\n\n    tidemark topic list"
}

// Run lists the topics.
func (c *TopicListCmd) Run(e *env) error {
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		topics, err := admin.ListTopics(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "TOPIC\tPARTITIONS")
		for _, t := range topics.Sorted() {
			if t.Err != nil {
				return topicError(t.Topic, t.Err)
			}
			fmt.Fprintf(w, "%s\t%d\n", t.Topic, len(t.Partitions))
		}
		return w.Flush()
	})
}

// TopicDescribeCmd is `tidemark topic describe`.
type TopicDescribeCmd struct {
	ClientFlags
	Name string `arg:"" help:"Topic name."`
}

// Help is kong's detailed help.
func (TopicDescribeCmd) Help() string {
	return `START is the first offset that is kept, END the one that the next record will get.

Example:

    tidemark topic describe orders`
}

// Run describes the topic.
func (c *TopicDescribeCmd) Run(e *env) error {
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		detail, err := topicDetail(ctx, admin, c.Name)
		if err != nil {
			return err
		}
		starts, err := listedOffsets(admin.ListStartOffsets(ctx, c.Name))
		if err != nil {
			return topicError(c.Name, err)
		}
		ends, err := listedOffsets(admin.ListEndOffsets(ctx, c.Name))
		if err != nil {
			return topicError(c.Name, err)
		}
		configs, err := admin.DescribeTopicConfigs(ctx, c.Name)
		if err != nil {
			return topicError(c.Name, err)
		}

		w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintf(w, "topic:\t%s\nid:\t%s\npartitions:\t%d\n\n", c.Name, detail.ID, len(detail.Partitions))
		fmt.Fprintln(w, "PARTITION\tLEADER\tSTART\tEND\tRECORDS")
		for _, p := range detail.Partitions.Sorted() {
			if p.Err != nil {
				return topicError(c.Name, fmt.Errorf("partition %d: %w", p.Partition, p.Err))
			}
			start, _ := starts.Lookup(c.Name, p.Partition)
			end, _ := ends.Lookup(c.Name, p.Partition)
			fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\n", p.Partition, p.Leader, start.Offset, end.Offset, end.Offset-start.Offset)
		}
		fmt.Fprintln(w, "\nSETTING\tVALUE\tFROM")
		for _, resource := range configs {
			if resource.Err != nil {
				return topicError(c.Name, withMessage(resource.Err, resource.ErrMessage))
			}
			values := make(map[string]kadm.Config, len(resource.Configs))
			for _, cfg := range resource.Configs {
				values[cfg.Key] = cfg
			}
			for _, key := range slices.Sorted(maps.Keys(values)) {
				cfg := values[key]
				fmt.Fprintf(w, "%s\t%s\t%s\n", key, cfg.MaybeValue(), cfg.Source)
			}
		}
		return w.Flush()
	})
}

// TopicDeleteCmd is `tidemark topic delete`.
type TopicDeleteCmd struct {
	ClientFlags
	Name string `arg:"" help:"Topic name."`
}

// Help is kong's detailed help.
func (TopicDeleteCmd) Help() string {
	return "Its records cannot be had back.\n\nExample:\n\n    tidemark topic delete orders"
}

// Run deletes the topic.
func (c *TopicDeleteCmd) Run(e *env) error {
	return withAdmin(e, c.ClientFlags, func(ctx context.Context, admin *kadm.Client) error {
		resp, err := admin.DeleteTopic(ctx, c.Name)
		if err != nil {
			return fmt.Errorf("topic %q: %w", c.Name, withMessage(err, resp.ErrMessage)) // no advice to create what was to go
		}
		_, err = fmt.Fprintf(e.stdout, "deleted %s\n", c.Name)
		return err
	})
}

// withAdmin runs an administrative command under its time limit.
func withAdmin(e *env, flags ClientFlags, do func(context.Context, *kadm.Client) error) error {
	ctx, cancel := context.WithTimeout(e.ctx, adminTimeout)
	defer cancel()
	admin, err := flags.admin(ctx)
	if err != nil {
		return err
	}
	defer admin.Close()
	err = do(ctx, admin)
	if err != nil && e.ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// topicDetail looks a topic up; a topic that is not there is an error.
func topicDetail(ctx context.Context, admin *kadm.Client, topic string) (kadm.TopicDetail, error) {
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, topicError(topic, err)
	}
	detail := topics[topic]
	return detail, topicError(topic, detail.Err)
}

// listedOffsets turns a partition's error into the call's.
func listedOffsets(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err == nil {
		err = offsets.Error()
	}
	return offsets, err
}
