package server

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics registers everything that the endpoint counts.
func (s *Server) Metrics(reg prometheus.Registerer) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidemark_server_open_connections", Help: "Open client connections."},
		func() float64 { return float64(s.Connections()) }))
	count := func(name, help string, v *atomic.Int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(v.Load()) }))
	}
	count("tidemark_server_accepted_connections_total", "Client connections accepted.", &s.counters.accepted)
	count("tidemark_server_refused_connections_total", "Client connections refused because there were too many.", &s.counters.tooMany)
	reg.MustRegister(policyMetrics{s})
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
