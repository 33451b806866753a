package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/internal/kwire"
	"tidemark/qos"
)

// dialAs is dial under a client id.
func (n *node) dialAs(t *testing.T, id string) *client {
	t.Helper()
	c, err := kwire.Dial(t.Context(), n.srv.Addr(), kwire.Options{ClientID: id, SkipApiVersions: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, t}
}

func (n *node) set(t *testing.T, p qos.Policy) {
	t.Helper()
	if err := n.srv.broker.SetPolicy(t.Context(), p, func(*qos.Policy) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

func level(l qos.Level) *qos.Level { return &l }

// Every acks under every floor and ceiling, with the disk held back: who waits for it has to wait, and nobody else may.
func TestPoliciesSayWhatIsWaitedFor(t *testing.T) {
	choices := []*qos.Level{nil, level(qos.Receive), level(qos.Persistence), level(qos.Replication), level(qos.All)}
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		type pair struct {
			floor, ceiling *qos.Level
			id             string
		}
		var pairs []pair
		for _, floor := range choices {
			for _, ceiling := range choices {
				p := pair{floor, ceiling, fmt.Sprintf("client-%d", len(pairs))}
				policy := qos.Policy{Name: p.id, Client: p.id, Floor: floor, Ceiling: ceiling, AcksOne: level(qos.Receive)}
				if policy.Validate() == nil {
					n.set(t, policy)
					pairs = append(pairs, p)
				}
			}
		}
		n.gate.Hold()
		var waiting []asked
		for _, p := range pairs {
			for _, acks := range []int16{1, -1, 101, 102, 103, 104} {
				marks := map[int16]qos.Level{1: qos.Receive, -1: qos.All, 101: qos.Receive, 102: qos.Persistence, 103: qos.Replication, 104: qos.All}[acks].Marks()
				if p.ceiling != nil {
					marks &= p.ceiling.Marks()
				}
				if p.floor != nil {
					marks |= p.floor.Marks()
				}
				a := asked{n.dialAs(t, p.id), produceTo("t", 0, acks, values("x")), 0}
				a.id = a.send(a.req)
				if marks&(qos.Flushed|qos.Committed) != 0 {
					waiting = append(waiting, a)
				} else if got := a.once(); got.ErrorCode != 0 {
					t.Errorf("acks %d of %+v: error %d", acks, p, got.ErrorCode)
				}
			}
		}
		if len(pairs) != 18 || len(waiting) == 0 || len(waiting) == 6*len(pairs) {
			t.Fatalf("%d pairs, %d requests wait", len(pairs), len(waiting))
		}
		silent(t, "it waits for the disk", clients(waiting)...)
		n.gate.Release()
		for _, w := range waiting {
			if got := w.once(); got.ErrorCode != 0 {
				t.Errorf("acks %d: error %d", w.req.Acks, got.ErrorCode)
			}
		}
	})
}

// A request whose topics differ waits for the marks of all, and for the shortest deadline.
func TestTopicsOfOneRequestShareTheirMarks(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dial(t)
		c.create("t", 1)
		c.create("audit", 1)
		n.set(t, qos.Policy{Name: "audit", Topic: "audit", Floor: level(qos.Persistence), Deadline: qos.Duration(50 * time.Millisecond)})
		n.gate.Hold()
		if base := c.produce("t", 0, 101, values("x")); base != 0 {
			t.Errorf("base %d", base)
		}
		req := produceTo("t", 0, 101, values("x"))
		req.Topics = append(req.Topics, produceTo("audit", 0, 101, values("y")).Topics...)
		if got := onlyPart(ask[*kmsg.ProduceResponse](c, req)); got.ErrorCode != kerr.RequestTimedOut.Code {
			t.Errorf("error %d, want the deadline of the topic that has one", got.ErrorCode)
		}
	})
}

// acks=0 under a floor is not answered, and what it holds counts as in flight until the floor's marks have passed.
func TestFloorUnderOneWay(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		n.dial(t).create("t", 1)
		n.set(t, qos.Policy{Name: "p", Client: "c*", Floor: level(qos.Persistence), InFlight: 4 << 10})
		first, second, other := n.dialAs(t, "c1"), n.dialAs(t, "c1"), n.dialAs(t, "c2")
		n.gate.Hold()
		first.send(produceTo("t", 0, 0, values(strings.Repeat("x", 8<<10))))
		n.dial(t).fence("t", 0, 1)
		ask := &kmsg.ApiVersionsRequest{}
		ids := []int32{first.send(ask), second.send(ask)}
		other.receive(ask, other.send(ask))
		silent(t, "the client's bytes in flight are used up", first, second)
		n.gate.Release()
		first.receive(ask, ids[0])
		second.receive(ask, ids[1])
	})
}

// flood sends batches of 64 KiB as fast as they are taken, throttle or not, until so many bytes are acknowledged.
func (c *client) flood(records []byte, batches int) (throttled int32) {
	const window = 8
	req := produceTo("t", 0, 101, records)
	var ids []int32
	for i := range batches + window {
		if i < batches {
			ids = append(ids, c.send(req))
		}
		if i >= window {
			resp := c.receive(req, ids[i-window]).(*kmsg.ProduceResponse)
			if code := onlyPart(resp).ErrorCode; code != 0 {
				c.t.Fatalf("error %d", code)
			}
			throttled = max(throttled, resp.ThrottleMillis)
		}
	}
	return throttled
}

func TestProduceRate(t *testing.T) {
	records := values(strings.Repeat("x", 64<<10))
	const rate, batches = 2 << 20, 80 // 5 MiB: a second's worth at once, and 3 MiB in a second and a half
	least := time.Duration(float64(batches*len(records)-rate-len(records)) / rate * float64(time.Second))
	each(t, func(t *testing.T, n *node) {
		c := n.dialAs(t, "loader")
		c.create("t", 1)
		n.set(t, qos.Policy{Name: "p", Client: "loader", ProduceRate: rate})
		begin := time.Now()
		if throttled := c.flood(records, batches); throttled == 0 {
			t.Error("no answer says that the client has to wait")
		}
		if took := time.Since(begin); took < least || took > 2*least {
			t.Errorf("%d bytes took %v at %d a second, want %v", batches*len(records), took, rate, least)
		}
		// Another connection is no way around it, nor does it hold up another client.
		n.dialAs(t, "other").produce("t", 0, 101, records)
		for range 20 {
			fresh := n.dialAs(t, "loader")
			fresh.produce("t", 0, 101, records)
			fresh.Close()
		}
		least := least + time.Duration(float64(20*len(records))/rate*float64(time.Second))
		if took := time.Since(begin); took < least-100*time.Millisecond {
			t.Errorf("with new connections for each batch it took %v, want %v", took, least)
		}
		if got := n.srv.policyCounts()["p"]; got.Throttled == 0 || got.WaitS == 0 {
			t.Errorf("counts %+v", got)
		}
	})
}

// The rate of a policy for a topic holds for a new connection, too, and not for another topic's sake once it is gone.
func TestDebtOutlivesAConnection(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		records := values(strings.Repeat("x", 64<<10))
		c := n.dialAs(t, "c")
		c.create("t", 1)
		n.set(t, qos.Policy{Name: "t", Topic: "t", ProduceRate: 1000})
		c.produce("t", 0, 101, records)
		c.Close()
		fresh := n.dialAs(t, "c")
		req := produceTo("t", 0, 101, values("x"))
		id := fresh.send(req)
		silent(t, "the client owes for a minute", fresh)
		n.dialAs(t, "other").produce("t", 0, 101, values("x"))
		if err := n.srv.broker.UnsetPolicy(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		fresh.receive(req, id)
	})
}

// A change of the policy counts at once for a connection that waits under the old one.
func TestPolicyChangesWhileAConnectionWaits(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		c := n.dialAs(t, "c")
		c.create("t", 1)
		n.set(t, qos.Policy{Name: "p", Client: "c", ProduceRate: 100}) // the next batch costs 11 minutes
		req := produceTo("t", 0, 101, values(strings.Repeat("x", 64<<10)))
		resp := ask[*kmsg.ProduceResponse](c, req)
		if resp.ThrottleMillis < 600_000 {
			t.Errorf("throttled for %d ms", resp.ThrottleMillis)
		}
		id := c.send(req)
		silent(t, "it has to wait", c)
		begin := time.Now()
		n.set(t, qos.Policy{Name: "p", Client: "c", ProduceRate: 100 << 20})
		c.receive(req, id)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v", took)
		}
		n.set(t, qos.Policy{Name: "p", Client: "c", ProduceRate: 100})
		id = c.send(req)
		c.receive(req, id)
		id = c.send(req)
		silent(t, "it has to wait", c)
		if err := n.srv.broker.UnsetPolicy(t.Context(), "p"); err != nil {
			t.Fatal(err)
		}
		c.receive(req, id)
		c.produce("t", 0, 101, values("x"))
	})
}

func TestRequestAndFetchRate(t *testing.T) {
	each(t, func(t *testing.T, n *node) {
		w := n.dial(t)
		w.create("t", 1)
		for range 8 {
			w.produce("t", 0, -1, values(strings.Repeat("x", 64<<10)))
		}
		n.set(t, qos.Policy{Name: "asks", Client: "asks", RequestRate: 50})
		n.set(t, qos.Policy{Name: "reads", Client: "reads", FetchRate: 128 << 10})
		asks, reads := n.dialAs(t, "asks"), n.dialAs(t, "reads")
		begin := time.Now()
		for range 80 { // 50 at once
			ask[*kmsg.MetadataResponse](asks, &kmsg.MetadataRequest{Version: 12})
		}
		if took := time.Since(begin); took < 560*time.Millisecond {
			t.Errorf("80 requests at 50 a second took %v", took)
		}
		begin = time.Now()
		if got := reads.read("t", 0); len(got) != 8 {
			t.Errorf("%d records", len(got))
		}
		if took := time.Since(begin); took < 2500*time.Millisecond { // half a MiB less a second's worth at 128 KiB a second
			t.Errorf("half a MiB at 128 KiB a second took %v", took)
		}
	})
}

func TestPoliciesOverHTTP(t *testing.T) {
	n := start(t, TransportNet)
	a := n.admin(t, prometheus.NewRegistry())
	if code, _ := a.ask(t, http.MethodGet, "/qos", ""); code != http.StatusServiceUnavailable {
		t.Errorf("before there is a server: status %d", code)
	}
	a.Serves(n.srv)
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/qos", "", 200, "[]"},
		{"PUT", "/qos/a%2Fb", `{"client":"c*","floor":"all","produce_rate":"5MiB/s"}`, 200, `"name": "a/b"`},
		{"GET", "/qos/a%2Fb", "", 200, `"produce_rate": "5MiB/s"`},
		{"GET", "/qos/b", "", 404, `no such policy: "b"`},
		{"DELETE", "/qos/b", "", 404, "no such policy"},
		{"DELETE", "/qos/%FF", "", 404, "no such policy"},
		{"PUT", "/qos/%FF", `{"weight":1}`, 400, "is no name"},
		{"PUT", "/qos/b", `{"produce_rate":"5 apples"}`, 400, "produce_rate: \"5 apples\""},
		{"PUT", "/qos/b", `{"client":7,"weight":1}`, 400, "client: 7 is no text"},
		{"PUT", "/qos/b", ``, 400, "no JSON object"},
		{"PUT", "/qos/b", `{"client":"c*","weight":1}`, 409, `"a/b" is for client=c*`},
		{"PUT", "/qos/b", `{"name":"c","weight":1}`, 400, `"c" in the body and "b" in the path`},
		{"PUT", "/qos/b", `{"wieght":1}`, 400, "wieght: there is no such setting"},
		{"PUT", "/qos/b", `{"weight":1} {}`, 400, "more behind"},
		{"PUT", "/qos/b", `{"weight":1.5}`, 400, "weight"},
		{"PUT", "/qos/b", strings.Repeat(" ", maxPolicyBody+1), 400, "more than 65536 bytes"},
		{"PUT", "/qos/b", `{"floor":"all","ceiling":"receive"}`, 400, "does not allow"},
		{"POST", "/qos/b", `{}`, 405, ""},
		{"GET", "/qos?explain=1&client=c1&topic=t&acks=1", "", 200, `"level": "all"`},
		{"GET", "/qos?explain=1&acks=7", "", 400, "101 to 104 (100 and the code of a level): 7"},
		{"GET", "/qos?explain=1&acks=x", "", 400, `: "x"`},
		{"GET", "/status", "", 200, `"throttled_requests_total": 0`},
		{"DELETE", "/qos/a%2Fb", "", 204, ""},
		{"GET", "/qos?explain=1&client=c1", "", 200, `"reasons": []`},
		{"GET", "/qos", "", 200, "[]"},
	} {
		if code, got := a.ask(t, c.method, c.path, c.body); code != c.code || !strings.Contains(got, c.says) {
			t.Errorf("%s %s %.80s: status %d, want %d with %q: %s", c.method, c.path, c.body, code, c.code, c.says, got)
		}
	}
}

func (a *Admin) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+a.Addr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

// Kafka's own tools set and read rates, and leave all else as it is.
func TestKafkaQuotas(t *testing.T) {
	n := start(t, TransportGnet)
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.srv.Addr()), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	n.set(t, qos.Policy{Name: "floor", Client: "a", Floor: level(qos.All)})
	n.set(t, qos.Policy{Name: "prefix", Client: "orders-*", ProduceRate: 7})
	n.set(t, qos.Policy{Name: "topic", Client: "a", Topic: "t", ProduceRate: 8})
	entity := func(pairs ...string) (e kadm.ClientQuotaEntity) {
		for i := 0; i < len(pairs); i += 2 {
			c := kadm.ClientQuotaEntityComponent{Type: pairs[i], Name: &pairs[i+1]}
			if pairs[i+1] == "<default>" {
				c.Name = nil
			}
			e = append(e, c)
		}
		return e
	}
	alter := func(e kadm.ClientQuotaEntity, want *kerr.Error, ops ...kadm.AlterClientQuotaOp) string {
		t.Helper()
		got, err := admin.AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{Entity: e, Ops: ops}})
		if err != nil || len(got) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		if want == nil && got[0].Err != nil || want != nil && got[0].Err != want {
			t.Errorf("%v %v: %v (%s), want %v", e, ops, got[0].Err, got[0].ErrMessage, want)
		}
		return got[0].ErrMessage
	}
	produce := func(v float64) kadm.AlterClientQuotaOp {
		return kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Value: v}
	}
	alter(entity("client-id", "a"), nil, produce(1000), kadm.AlterClientQuotaOp{Key: "consumer_byte_rate", Value: 2000})
	alter(entity("client-id", "<default>"), nil, produce(3000))
	alter(entity("user", "ANONYMOUS", "client-id", "b"), nil, produce(4000))
	alter(entity("user", "<default>"), nil, produce(5000))
	if says := alter(entity("client-id", "a"), kerr.InvalidRequest, kadm.AlterClientQuotaOp{Key: "request_percentage", Value: 10}); !strings.Contains(says, "--request-rate") {
		t.Errorf("request_percentage: %q", says)
	}
	alter(entity("client-id", "x"), kerr.InvalidRequest, produce(0))
	alter(entity("client-id", "x*"), kerr.InvalidRequest, produce(1))
	alter(entity("ip", "127.0.0.1"), kerr.InvalidRequest, produce(1))

	describe := func(strict bool, cs ...kadm.DescribeClientQuotaComponent) string {
		t.Helper()
		got, err := admin.DescribeClientQuotas(t.Context(), strict, cs)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, q := range got {
			s := q.Entity.String() + ":"
			for _, v := range q.Values {
				s += fmt.Sprintf(" %s=%g", v.Key, v.Value)
			}
			out = append(out, s)
		}
		return strings.Join(out, "; ")
	}
	type component = kadm.DescribeClientQuotaComponent
	all := describe(false)
	for _, want := range []string{"producer_byte_rate=1000 consumer_byte_rate=2000", "producer_byte_rate=3000", "producer_byte_rate=4000", "producer_byte_rate=5000"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
	if strings.Count(all, ";") != 3 {
		t.Errorf("what Kafka cannot say is said: %s", all)
	}
	for _, c := range []struct {
		strict bool
		of     []component
		n      int
	}{
		{false, []component{{Type: "client-id", MatchType: kmsg.QuotasMatchTypeAny}}, 3},
		{true, []component{{Type: "client-id", MatchType: kmsg.QuotasMatchTypeAny}}, 2},
		{false, []component{{Type: "client-id", MatchType: kmsg.QuotasMatchTypeDefault}}, 1},
		{false, []component{{Type: "client-id", MatchName: ptr("b"), MatchType: kmsg.QuotasMatchTypeExact}}, 1},
		{true, []component{{Type: "client-id", MatchName: ptr("b"), MatchType: kmsg.QuotasMatchTypeExact}}, 0},
		{false, []component{{Type: "user", MatchName: ptr("ANONYMOUS"), MatchType: kmsg.QuotasMatchTypeExact}}, 1},
	} {
		got := describe(c.strict, c.of...)
		if n := strings.Count(got, ":"); n != c.n {
			t.Errorf("strict %v, %+v: %d entries, want %d: %s", c.strict, c.of, n, c.n, got)
		}
	}
	set := n.srv.broker.Policies()
	if p := set.Get("floor"); p == nil || *p.Floor != qos.All || p.ProduceRate != 1000 {
		t.Errorf("the policy of client a is %+v", p)
	}
	if e := set.For("User:ANONYMOUS", "b", ""); e.Produce.Rate != 4000 {
		t.Errorf("client b has %+v", e.Produce)
	}
	remove := func(key string) kadm.AlterClientQuotaOp { return kadm.AlterClientQuotaOp{Key: key, Remove: true} }
	alter(entity("client-id", "a"), nil, remove("producer_byte_rate"), remove("consumer_byte_rate"))
	alter(entity("client-id", "<default>"), nil, remove("producer_byte_rate"))
	alter(entity("client-id", "nobody"), nil, remove("producer_byte_rate"))
	set = n.srv.broker.Policies()
	if set.Get("floor") == nil || set.Get("prefix") == nil || set.Get("topic") == nil || set.Len() != 5 {
		b, _ := json.Marshal(set.All())
		t.Errorf("left are %s", b)
	}
}

func (w *wire) clientQuotas(v int16) {
	id := w.topic
	op := kmsg.AlterClientQuotasRequestEntryOp{Key: "producer_byte_rate", Value: 1 << 20}
	entry := kmsg.AlterClientQuotasRequestEntry{Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "client-id", Name: &id}}, Ops: []kmsg.AlterClientQuotasRequestEntryOp{op}}
	alter := &kmsg.AlterClientQuotasRequest{Version: v, Entries: []kmsg.AlterClientQuotasRequestEntry{entry}}
	describe := &kmsg.DescribeClientQuotasRequest{Version: v, Components: []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "client-id", MatchType: kmsg.QuotasMatchTypeExact, Match: &id}}}
	entries := func() int {
		resp := ask[*kmsg.DescribeClientQuotasResponse](w.client, describe)
		w.code("describe", resp.ErrorCode, nil)
		return len(resp.Entries)
	}
	alter.ValidateOnly = true
	w.code("validate", ask[*kmsg.AlterClientQuotasResponse](w.client, alter).Entries[0].ErrorCode, nil)
	w.same("entries after validation", entries(), 0)
	alter.ValidateOnly = false
	w.code("alter", ask[*kmsg.AlterClientQuotasResponse](w.client, alter).Entries[0].ErrorCode, nil)
	w.same("entries", entries(), 1)
	alter.Entries[0].Ops[0].Remove = true
	w.code("remove", ask[*kmsg.AlterClientQuotasResponse](w.client, alter).Entries[0].ErrorCode, nil)
	w.same("entries after removal", entries(), 0)
	describe.Components[0].EntityType = "ip"
	w.code("ip", ask[*kmsg.DescribeClientQuotasResponse](w.client, describe).ErrorCode, kerr.InvalidRequest)
}

func (w *wire) incrementalAlterConfigs(v int16) {
	type config = kmsg.IncrementalAlterConfigsRequestResourceConfig
	alter := func(kind kmsg.ConfigResourceType, name string, want *kerr.Error, configs ...config) {
		w.t.Helper()
		req := &kmsg.IncrementalAlterConfigsRequest{Version: v, Resources: []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kind, ResourceName: name, Configs: configs}}}
		got := ask[*kmsg.IncrementalAlterConfigsResponse](w.client, req).Resources[0]
		w.code(fmt.Sprint("alter ", name, configs), got.ErrorCode, want)
		w.same("a message beside an error", got.ErrorMessage != nil, want != nil)
	}
	limit := func() int { return w.n.srv.pipeline.View().Topics[w.topic].MaxMessageBytes }
	const topic, size = kmsg.ConfigResourceTypeTopic, "max.message.bytes"
	alter(topic, w.topic, nil, config{Name: size, Value: ptr("1000")})
	w.same("limit", limit(), 1000)
	alter(topic, w.topic, kerr.InvalidConfig, config{Name: size, Value: ptr("2000")}, config{Name: "retention.ms", Value: ptr("1")})
	alter(topic, w.topic, kerr.InvalidConfig, config{Name: size, Value: ptr("1")})
	alter(topic, w.topic, kerr.InvalidConfig, config{Name: size, Op: kmsg.IncrementalAlterConfigOpAppend, Value: ptr("1")})
	alter(topic, w.topic, kerr.InvalidConfig, config{Name: "nonsense", Op: kmsg.IncrementalAlterConfigOpDelete})
	alter(topic, w.topic, kerr.InvalidRequest, config{Name: size, Value: ptr("2000")}, config{Name: size, Op: kmsg.IncrementalAlterConfigOpDelete})
	alter(topic, "no-such-topic", kerr.UnknownTopicOrPartition, config{Name: size, Value: ptr("2000")})
	alter(kmsg.ConfigResourceTypeBroker, "7", kerr.InvalidRequest, config{Name: "message.max.bytes", Value: ptr("2000")})
	w.same("limit after refusals", limit(), 1000)
	got := onlyPart(ask[*kmsg.ProduceResponse](w.client, produceTo(w.topic, 0, -1, values(strings.Repeat("x", 1000)))))
	w.code("a batch over the limit", got.ErrorCode, kerr.MessageTooLarge)
	alter(topic, w.topic, nil, config{Name: size, Op: kmsg.IncrementalAlterConfigOpDelete})
	w.same("limit", limit(), 0)
}
