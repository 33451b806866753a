package server

import (
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics registers everything that the endpoint counts.
func (s *Server) Metrics(reg prometheus.Registerer) {
	gauge := func(name, help string, v func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, v))
	}
	gauge("tidemark_server_open_connections", "Open client connections.", func() float64 { return float64(s.Connections()) })
	gauge("tidemark_server_fetch_memory_bytes", "Memory of Fetch answers that are being made or sent.", func() float64 { return float64(s.broker.FetchMemory().Bytes) })
	gauge("tidemark_server_waiting_fetches", "Fetch answers that wait for memory.", func() float64 { return float64(s.broker.FetchMemory().Waiting) })
	count := func(name, help string, v *atomic.Int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(v.Load()) }))
	}
	count("tidemark_server_accepted_connections_total", "Client connections accepted.", &s.counters.accepted)
	count("tidemark_server_refused_connections_total", "Client connections refused because there were too many.", &s.counters.tooMany)
	reg.MustRegister(policyMetrics{s}, groupMetrics{s})
	count("tidemark_server_misbehaved_connections_total", "Client connections closed for what they sent.", &s.counters.misbehaved)
}

// policyMetrics shows what the rates of policies did; there are as many as policies.
type policyMetrics struct{ s *Server }

var (
	throttledDesc = prometheus.NewDesc("tidemark_qos_throttled_requests_total", "Requests after which their client had to wait, by policy.", []string{"policy"}, nil)
	throttleDesc  = prometheus.NewDesc("tidemark_qos_throttled_seconds_total", "Time that clients were told to wait, by policy.", []string{"policy"}, nil)
)

func (p policyMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- throttledDesc
	out <- throttleDesc
}

func (p policyMetrics) Collect(out chan<- prometheus.Metric) {
	for name, c := range p.s.policyCounts() {
		out <- prometheus.MustNewConstMetric(throttledDesc, prometheus.CounterValue, float64(c.Throttled), name)
		out <- prometheus.MustNewConstMetric(throttleDesc, prometheus.CounterValue, c.WaitS, name)
	}
}

// groupMetrics shows the consumer groups that are most behind.
type groupMetrics struct{ s *Server }

// maxGroupMetrics bounds the groups that are shown one by one.
const maxGroupMetrics = 1000

var (
	groupsDesc       = prometheus.NewDesc("tidemark_group_groups", "Consumer groups that have members or committed offsets.", nil, nil)
	groupLagDesc     = prometheus.NewDesc("tidemark_group_lag_records", "Records that a consumer group has not committed, of the partitions of which it has committed an offset; the 1,000 groups with the most.", []string{"group"}, nil)
	groupMembersDesc = prometheus.NewDesc("tidemark_group_members", "Members of a consumer group; of the same groups.", []string{"group"}, nil)
)

func (g groupMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- groupsDesc
	out <- groupLagDesc
	out <- groupMembersDesc
}

func (g groupMetrics) Collect(out chan<- prometheus.Metric) {
	most, n := g.s.broker.GroupLags(maxGroupMetrics)
	out <- prometheus.MustNewConstMetric(groupsDesc, prometheus.GaugeValue, float64(n))
	shown := make(map[string]bool, len(most))
	for _, one := range most {
		name := strings.ToValidUTF8(one.Group, "\uFFFD") // Prometheus takes no other
		if shown[name] {
			continue // nor one twice
		}
		shown[name] = true
		out <- prometheus.MustNewConstMetric(groupLagDesc, prometheus.GaugeValue, float64(one.Lag), name)
		out <- prometheus.MustNewConstMetric(groupMembersDesc, prometheus.GaugeValue, float64(one.Members), name)
	}
}
