package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeConfigs, API key 32, versions 0 to 4: effective values with their source, of topics and of this node as broker.
func (b *Broker) describeConfigs(_ context.Context, _ *Client, kreq kmsg.Request) kmsg.Response {
	req := kreq.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for _, rr := range req.Resources {
		r := kmsg.NewDescribeConfigsResponseResource()
		r.ResourceType, r.ResourceName = rr.ResourceType, rr.ResourceName
		rows, source, code, err := b.settingsOf(rr.ResourceType, rr.ResourceName)
		if err != nil {
			r.ErrorCode, r.ErrorMessage = code, ptr(err.Error())
		}
		for _, s := range rows {
			if rr.ConfigNames != nil && !slices.Contains(rr.ConfigNames, s.name) {
				continue
			}
			r.Configs = append(r.Configs, describeSetting(s, source, req))
		}
		resp.Resources = append(resp.Resources, r)
	}
	return resp
}

func (b *Broker) settingsOf(kind kmsg.ConfigResourceType, name string) ([]setting, kmsg.ConfigSource, int16, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		t := b.p.View().Topics[name]
		if t == nil {
			return nil, 0, kerr.UnknownTopicOrPartition.Code, fmt.Errorf("no topic %q", name)
		}
		return b.topicSettings(t.Config), kmsg.ConfigSourceDynamicTopicConfig, 0, nil
	case kmsg.ConfigResourceTypeBroker:
		if name != "" && name != strconv.Itoa(int(b.nodeID)) {
			return nil, 0, kerr.InvalidRequest.Code, fmt.Errorf("broker %q is not this node, %d", name, b.nodeID)
		}
		return b.brokerSettings(), kmsg.ConfigSourceStaticBrokerConfig, 0, nil
	}
	return nil, 0, kerr.InvalidRequest.Code, fmt.Errorf("resource type %d has no settings here: topics and this broker have", kind)
}

// brokerSettings are the server's settings under the names by which Kafka's tools look for them.
func (b *Broker) brokerSettings() []setting {
	row := func(name, value, doc string, kind kmsg.ConfigType) setting {
		return setting{name: name, value: value, fallback: value, set: true, kind: kind, readOnly: true, doc: doc}
	}
	return []setting{
		row("message.max.bytes", strconv.Itoa(b.cfg.MaxMessageBytes), "The largest record batch of a topic that says nothing else, in bytes.", kmsg.ConfigTypeInt),
		row("socket.request.max.bytes", strconv.Itoa(b.cfg.RequestMaxBytes), "The largest request, in bytes.", kmsg.ConfigTypeInt),
		row("fetch.max.bytes", strconv.Itoa(b.cfg.FetchMaxBytes), "The largest Fetch answer, in bytes; one whole batch is sent in any case.", kmsg.ConfigTypeInt),
		row("num.partitions", strconv.Itoa(int(b.cfg.DefaultPartitions)), "Partitions of a topic that is created without a number.", kmsg.ConfigTypeInt),
		row("auto.create.topics.enable", strconv.FormatBool(b.cfg.AutoCreate), "Whether asking for a topic makes it.", kmsg.ConfigTypeBoolean),
		row("qos.acks_1", b.cfg.Acks.One.String(), "The level that acks=1 asks for.", kmsg.ConfigTypeString),
		row("qos.acks_all", b.cfg.Acks.All.String(), "The level that acks=-1 asks for.", kmsg.ConfigTypeString),
	}
}

func describeSetting(s setting, source kmsg.ConfigSource, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.IsDefault, c.ConfigType = s.name, ptr(s.value), s.readOnly, !s.set, s.kind
	c.Source = kmsg.ConfigSourceDefaultConfig
	if s.set {
		c.Source = source
	}
	if req.IncludeSynonyms {
		if s.set {
			c.ConfigSynonyms = append(c.ConfigSynonyms, synonym(s.name, s.value, source))
		}
		c.ConfigSynonyms = append(c.ConfigSynonyms, synonym(s.name, s.fallback, kmsg.ConfigSourceDefaultConfig))
	}
	if req.IncludeDocumentation {
		c.Documentation = ptr(s.doc)
	}
	return c
}

func synonym(name, value string, source kmsg.ConfigSource) kmsg.DescribeConfigsResponseResourceConfigConfigSynonym {
	y := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
	y.Name, y.Value, y.Source = name, ptr(value), source
	return y
}
