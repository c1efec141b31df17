package assignment

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

type metrics struct {
	accepted, ignored prometheus.Counter
	rejected          *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		accepted: frame.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_assignment_updates_total",
			Help: "Signed updates accepted from gossip.",
		})),
		ignored: frame.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_assignment_ignored_messages_total",
			Help: "Gossip messages that brought nothing new.",
		})),
		rejected: frame.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_assignment_rejected_messages_total",
			Help: "Gossip messages rejected, by reason: untrusted, signature, oversized, malformed.",
		}, []string{"reason"})),
	}
}
