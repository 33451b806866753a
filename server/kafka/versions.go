package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// api is one row of what is served.
type api struct {
	key      kmsg.Key
	min, max int16
	handle   func(*Broker, context.Context, *Client, kmsg.Request) kmsg.Response // nil: handled by its own path
}

// apis is the table that ApiVersions answers with; docs/kafka.md explains its bounds. Produce begins at 0, though 0 to 2 are refused with an error per partition: librdkafka before 2.11.1 takes a higher begin to mean
// that a broker knows no compression.
var apis []api

func init() {
	apis = []api{
		{kmsg.Produce, 0, 13, nil},
		{kmsg.Fetch, 4, 18, nil},
		{kmsg.ListOffsets, 1, 11, (*Broker).listOffsets},
		{kmsg.Metadata, 0, 13, (*Broker).metadata},
		{kmsg.OffsetCommit, 2, 10, (*Broker).offsetCommit},
		{kmsg.OffsetFetch, 1, 10, (*Broker).offsetFetch},
		{kmsg.FindCoordinator, 0, 6, (*Broker).findCoordinator},
		{kmsg.JoinGroup, 0, 9, (*Broker).joinGroup},
		{kmsg.Heartbeat, 0, 4, (*Broker).heartbeat},
		{kmsg.LeaveGroup, 0, 5, (*Broker).leaveGroup},
		{kmsg.SyncGroup, 0, 5, (*Broker).syncGroup},
		{kmsg.DescribeGroups, 0, 6, (*Broker).describeGroups},
		{kmsg.ListGroups, 0, 5, (*Broker).listGroups},
		{kmsg.ApiVersions, 0, 4, (*Broker).apiVersions},
		{kmsg.CreateTopics, 0, 7, (*Broker).createTopics},
		{kmsg.DeleteTopics, 0, 6, (*Broker).deleteTopics},
		{kmsg.DeleteRecords, 0, 2, (*Broker).deleteRecords},
		{kmsg.InitProducerID, 0, 5, (*Broker).initProducerID},
		{kmsg.AddPartitionsToTxn, 0, 3, (*Broker).addPartitionsToTxn},
		{kmsg.AddOffsetsToTxn, 0, 4, (*Broker).addOffsetsToTxn},
		{kmsg.EndTxn, 0, 5, (*Broker).endTransaction},
		{kmsg.TxnOffsetCommit, 0, 6, (*Broker).txnOffsetCommit},
		{kmsg.DescribeTransactions, 0, 0, (*Broker).describeTransactions},
		{kmsg.ListTransactions, 0, 2, (*Broker).listTransactions},
		{kmsg.OffsetForLeaderEpoch, 2, 4, (*Broker).offsetForLeaderEpoch},
		{kmsg.AlterConfigs, 0, 2, (*Broker).alterConfigs},
		{kmsg.DescribeLogDirs, 0, 5, (*Broker).describeLogDirs},
		{kmsg.ElectLeaders, 0, 2, (*Broker).electLeaders},
		{kmsg.ConsumerGroupHeartbeat, 0, 1, (*Broker).consumerGroupHeartbeat},
		{kmsg.ConsumerGroupDescribe, 0, 1, (*Broker).consumerGroupDescribe},
		{kmsg.DescribeProducers, 0, 0, (*Broker).describeProducers},
		{kmsg.DescribeConfigs, 0, 4, (*Broker).describeConfigs},
		{kmsg.DeleteGroups, 0, 2, (*Broker).deleteGroups},
		{kmsg.IncrementalAlterConfigs, 0, 1, (*Broker).incrementalAlterConfigs},
		{kmsg.OffsetDelete, 0, 0, (*Broker).offsetDelete},
		{kmsg.DescribeClientQuotas, 0, 1, (*Broker).describeClientQuotas},
		{kmsg.AlterClientQuotas, 0, 1, (*Broker).alterClientQuotas},
		{kmsg.CreatePartitions, 0, 3, (*Broker).createPartitions},
		{kmsg.DescribeCluster, 0, 2, (*Broker).describeCluster},
	}
	for i := range apis {
		byKey[apis[i].key] = &apis[i]
	}
}

// byKey is the table by API key. Both are filled at init, since ApiVersions' handler reads them.
var byKey [128]*api

func lookup(key int16) *api {
	if key < 0 || int(key) >= len(byKey) {
		return nil
	}
	return byKey[key]
}

// Served says whether a version of a key is served, and whether the key is at all.
func Served(key, version int16) (ok, known bool) {
	a := lookup(key)
	return a != nil && version >= a.min && version <= a.max, a != nil
}
