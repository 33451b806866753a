package kafka

import (
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/catalog"
)

// The topic settings that are taken. Others are refused by name: a setting that is stored and has no effect would be a lie.
const (
	configCleanupPolicy = "cleanup.policy"
	configTimestampType = "message.timestamp.type"
)

// whyNot explains the settings that Kafka users reach for and that cannot be had.
var whyNot = map[string]string{
	"retention.ms":        "the journal is shared by all topics: set journal.retention.age on the server, or delete records",
	"retention.bytes":     "the journal is shared by all topics: set journal.retention.bytes on the server, or delete records",
	"segment.bytes":       "segments belong to the journal: set journal.segment.bytes before its first start",
	"min.insync.replicas": "how durable an acknowledgement is, is each request's level (acks)",
	"compression.type":    "batches are kept as the producer compressed them",
}

// RequestRoom is what a Produce request may take beside its batch, bytes: client id, topic and the like. A batch that is allowed has to fit into a request.
const RequestRoom = 4 << 10

// checkTopicConfig says why a topic cannot have a setting.
func (b *Broker) checkTopicConfig(name string, value *string) error {
	if value == nil {
		return fmt.Errorf("%s: no value", name)
	}
	v := *value
	switch name {
	case catalog.ConfigMaxMessageBytes:
		most := b.cfg.RequestMaxBytes - RequestRoom
		if n, err := strconv.Atoi(v); err != nil || n < 61 || n > most {
			return fmt.Errorf("%s: %q is not a number of bytes from 61 to %d (request.max, less %d for the rest of a request)", name, v, most, RequestRoom)
		}
	case configCleanupPolicy:
		if v != "delete" {
			return fmt.Errorf("%s: %q is not supported, delete is: the journal is shared by all topics and is not compacted", name, v)
		}
	case configTimestampType:
		if v != "CreateTime" {
			return fmt.Errorf("%s: %q is not supported, CreateTime is: batches are kept as the producer summed them", name, v)
		}
	default:
		why := whyNot[name]
		if why == "" {
			why = fmt.Sprintf("topics take %s, %s=delete and %s=CreateTime", catalog.ConfigMaxMessageBytes, configCleanupPolicy, configTimestampType)
		}
		return fmt.Errorf("%s is not supported: %s", name, why)
	}
	return nil
}

// setting is one row of DescribeConfigs.
type setting struct {
	name, value, fallback string
	set                   bool
	kind                  kmsg.ConfigType
	readOnly              bool
	doc                   string
}

// topicSettings lists a topic's effective settings.
func (b *Broker) topicSettings(config map[string]string) []setting {
	rows := []setting{
		{name: catalog.ConfigMaxMessageBytes, fallback: strconv.Itoa(b.cfg.MaxMessageBytes), kind: kmsg.ConfigTypeInt, doc: "The largest record batch, in bytes."},
		{name: configCleanupPolicy, fallback: "delete", kind: kmsg.ConfigTypeList, doc: "Old segments of the shared journal are deleted."},
		{name: configTimestampType, fallback: "CreateTime", kind: kmsg.ConfigTypeString, doc: "A record's time is its producer's."},
	}
	for i := range rows {
		r := &rows[i]
		r.value = r.fallback
		if v, ok := config[r.name]; ok {
			r.value, r.set = v, true
		}
	}
	return rows
}

// createdConfigs is what CreateTopics reports of a new topic's settings.
func (b *Broker) createdConfigs(config map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
	var out []kmsg.CreateTopicsResponseTopicConfig
	for _, s := range b.topicSettings(config) {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.Source = s.name, ptr(s.value), int8(kmsg.ConfigSourceDefaultConfig)
		if s.set {
			c.Source = int8(kmsg.ConfigSourceDynamicTopicConfig)
		}
		out = append(out, c)
	}
	return out
}
