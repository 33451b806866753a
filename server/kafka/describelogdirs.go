package kafka

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// DescribeLogDirs, API key 35, versions 0 to 5. There is one: the data directory. A partition's size is that of its batches in the journal, which all partitions share. A null list of topics means all; partitions that are not there are left out, as Kafka does.
func (b *Broker) describeLogDirs(ctx context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = b.p.DataDir()
	dir.TotalBytes, dir.UsableBytes = -1, -1
	if free, err := b.p.Free(); err == nil {
		dir.UsableBytes = free
	}
	b.p.CatchUp()
	view := b.p.View()
	asked := make(map[string][]*catalog.Partition)
	if req.Topics == nil {
		for name, t := range view.Topics {
			asked[name] = t.Partitions
		}
	}
	for _, rt := range req.Topics {
		for _, index := range rt.Partitions {
			if part := view.Partition(rt.Topic, index); part != nil && !slices.Contains(asked[rt.Topic], part) {
				asked[rt.Topic] = append(asked[rt.Topic], part)
			}
		}
	}
	for name, parts := range asked {
		t := kmsg.NewDescribeLogDirsResponseDirTopic()
		t.Topic = name
		for _, part := range parts {
			if ctx.Err() != nil { // nobody waits for it any more
				return resp
			}
			p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			p.Partition, p.Size = part.Index, int64(b.p.Available(part, part.LogStart(), part.HighWatermark(), math.MaxInt))
			t.Partitions = append(t.Partitions, p)
		}
		dir.Topics = append(dir.Topics, t)
	}
	slices.SortFunc(dir.Topics, func(a, b kmsg.DescribeLogDirsResponseDirTopic) int { return strings.Compare(a.Topic, b.Topic) })
	resp.Dirs = append(resp.Dirs, dir)
	return resp
}
