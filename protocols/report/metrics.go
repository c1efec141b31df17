package report

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// metrics are those of the sender; frame.Metrics has those of the streams.
type metrics struct {
	queued                 prometheus.Gauge
	lost, refused, resent  prometheus.Counter
	acknowledged, repeated prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return frame.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
	}
	return &metrics{
		queued: frame.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_report_queued_tasks", Help: "Tasks that wait to be reported.",
		})),
		lost:         counter("p2pnode_report_lost_tasks_total", "Tasks that left the full queue unreported."),
		refused:      counter("p2pnode_report_refused_tasks_total", "Tasks that cannot be reported: a field is out of bounds."),
		acknowledged: counter("p2pnode_report_acknowledged_total", "Reports that the supernode took."),
		resent:       counter("p2pnode_report_resent_total", "Reports sent again for want of an acknowledgement."),
		repeated:     counter("p2pnode_report_repeated_total", "Reports received again, acknowledged and not taken twice."),
	}
}
