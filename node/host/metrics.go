package host

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	dials *prometheus.CounterVec
	saved prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, h *Host) *metrics {
	auto := promauto.With(reg)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "p2pnode_host_connections",
		Help: "Open connections.",
	}, func() float64 { return float64(len(h.Network().Conns())) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "p2pnode_host_peers",
		Help: "Connected peers.",
	}, func() float64 { return float64(len(h.Network().Peers())) })
	if gate := h.cfg.Gate; gate != nil {
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "p2pnode_host_members",
			Help: "Connected peers that have shown a certificate of the swarm.",
		}, func() float64 { return float64(gate.Members()) })
		auto.NewCounterFunc(prometheus.CounterOpts{
			Name: "p2pnode_host_refused_streams_total",
			Help: "Streams refused for want of membership or of a role.",
		}, func() float64 { return float64(gate.refusals.Load()) })
	}
	return &metrics{
		dials: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_host_dials_total",
			Help: "Dials to peers that the host keeps connections to, by result (ok, failed).",
		}, []string{"result"}),
		saved: auto.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_host_saved_peers",
			Help: "Peers remembered for the next start.",
		}),
	}
}
