package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// CreateTopics, API key 19, versions 0 to 7. The replication factor is 1 (or −1: the default); a manual assignment may name only this node.
func (b *Broker) createTopics(ctx context.Context, c *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.CreateTopicsRequest)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	named := make(map[string]int)
	for _, rt := range req.Topics {
		named[rt.Topic]++
	}
	for _, rt := range req.Topics {
		t := kmsg.NewCreateTopicsResponseTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = rt.Topic, -1, -1
		cmd, code, err := b.planTopic(rt)
		if err == nil && named[rt.Topic] > 1 {
			code, err = kerr.InvalidRequest.Code, fmt.Errorf("topic %q is named twice in one request", rt.Topic)
		}
		if err == nil && !(req.Version >= 1 && req.ValidateOnly) {
			result := b.command(ctx, c, catalog.Command{CreateTopic: cmd}, millis(req.TimeoutMillis))
			code, err = Code(result.Err), result.Err
		}
		if err != nil {
			t.ErrorCode, t.ErrorMessage = code, ptr(err.Error())
		} else {
			t.TopicID, t.NumPartitions, t.ReplicationFactor = cmd.ID, cmd.Partitions, 1
			t.Configs = b.createdConfigs(cmd.Config)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// planTopic checks a topic and makes the command that creates it.
func (b *Broker) planTopic(rt kmsg.CreateTopicsRequestTopic) (*catalog.CreateTopic, int16, error) {
	if err := checkTopicName(rt.Topic); err != nil {
		return nil, kerr.InvalidTopicException.Code, err
	}
	partitions := rt.NumPartitions
	if len(rt.ReplicaAssignment) > 0 {
		if rt.NumPartitions != -1 || rt.ReplicationFactor != -1 {
			return nil, kerr.InvalidRequest.Code, fmt.Errorf("a replica assignment goes with -1 partitions and replication factor -1")
		}
		partitions = int32(len(rt.ReplicaAssignment))
		seen := make(map[int32]bool)
		for _, a := range rt.ReplicaAssignment {
			if a.Partition < 0 || a.Partition >= partitions || seen[a.Partition] || len(a.Replicas) != 1 || a.Replicas[0] != b.nodeID {
				return nil, kerr.InvalidReplicaAssignment.Code, fmt.Errorf("partition %d: each of the partitions 0 to %d has one replica, on node %d", a.Partition, partitions-1, b.nodeID)
			}
			seen[a.Partition] = true
		}
	} else if rt.ReplicationFactor != -1 && rt.ReplicationFactor != 1 {
		return nil, kerr.InvalidReplicationFactor.Code, fmt.Errorf("replication factor %d: this is a single node, so it is 1", rt.ReplicationFactor)
	}
	if partitions == -1 {
		partitions = b.cfg.DefaultPartitions
	}
	if partitions < 1 || partitions > catalog.MaxPartitions {
		return nil, kerr.InvalidPartitions.Code, fmt.Errorf("%d partitions: 1 to %d are allowed", partitions, catalog.MaxPartitions)
	}
	cmd := &catalog.CreateTopic{Name: rt.Topic, ID: newTopicID(), Partitions: partitions}
	for _, c := range rt.Configs {
		if err := b.checkTopicConfig(c.Name, c.Value); err != nil {
			return nil, kerr.InvalidConfig.Code, err
		}
		if cmd.Config == nil {
			cmd.Config = make(map[string]string)
		}
		cmd.Config[c.Name] = *c.Value
	}
	if b.p.View().Topics[rt.Topic] != nil {
		return nil, kerr.TopicAlreadyExists.Code, fmt.Errorf("topic %q exists already", rt.Topic)
	}
	return cmd, 0, nil
}
