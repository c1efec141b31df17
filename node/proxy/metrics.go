package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// sourceDirect labels what came from the origin without the swarm.
const sourceDirect = "direct"

type metrics struct {
	requests  *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	inFlight  prometheus.Gauge
	firstByte *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_proxy_requests_total",
			Help: "Requests of clients that ended, by face and outcome.",
		}, []string{"face", "outcome"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_proxy_sent_bytes_total",
			Help: "Body bytes sent to clients, by where they came from.",
		}, []string{"source"}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_proxy_in_flight_requests",
			Help: "Requests of clients being served, tunnels included.",
		}),
		firstByte: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "p2pnode_proxy_first_byte_seconds",
			Help:    "Time from a request to the start of its response, by source of the first byte.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}, []string{"source"}),
	}
}
