package control

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	fetched, refused, full prometheus.Counter
	asked                  *prometheus.CounterVec
	topics                 prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		asked: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_control_fetches_total", Help: "Times that the map was asked for, by whom: supernode, neighbour.",
		}, []string{"from"}),
		fetched: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_control_fetched_updates_total", Help: "Signed updates that gossip had not brought, or again.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_control_refused_updates_total", Help: "Fetched updates that no trusted supernode signed.",
		}),
		topics: f.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_control_shard_topics", Help: "Topics of shards that are followed; 0 where all is published to all.",
		}),
		full: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_control_full_reports_total", Help: "Times that all that is held was reported to a supernode.",
		}),
	}
}
