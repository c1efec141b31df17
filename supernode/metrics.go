package supernode

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/p2pnode/p2pnode/protocols/assignment"
)

type metrics struct {
	beats, reports *prometheus.CounterVec
	updates        *prometheus.CounterVec
	assigns        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Supernode) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string, value func(c *core) int) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(value(s.core))
		})
	}
	gauge("p2pnode_supernode_members", "Peers whose lease runs.", func(c *core) int { return len(c.members.byID) })
	gauge("p2pnode_supernode_pool_members", "Peers of the published seed pool.", func(c *core) int { return len(c.pool.members) })
	gauge("p2pnode_supernode_tasks", "Tasks that members reported.", func(c *core) int { return c.tasks.byID.Len() })
	gauge("p2pnode_supernode_orders", "Peers that are cordoned or drained.", func(c *core) int { return len(c.orders) })
	gauge("p2pnode_supernode_read_tasks", "Tasks that are being read, or were a moment ago.", func(c *core) int { return len(c.tasks.read) })
	return &metrics{
		beats: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_supernode_beats_total", Help: "Heartbeats, by outcome: taken, refused.",
		}, []string{"outcome"}),
		reports: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_supernode_reports_total", Help: "Reports, by outcome: taken, refused.",
		}, []string{"outcome"}),
		updates: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_supernode_updates_total", Help: "Signed updates, by kind: assign, pool, floor.",
		}, []string{"kind"}),
		assigns: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_supernode_assignments_total", Help: "Assignments published, withdrawals and renewals among them.",
		}),
	}
}

func (m *metrics) beat(ok bool)   { m.beats.WithLabelValues(outcome(ok)).Inc() }
func (m *metrics) report(ok bool) { m.reports.WithLabelValues(outcome(ok)).Inc() }

func (m *metrics) published(u assignment.Update) {
	kind := "floor"
	switch {
	case u.Pool != nil:
		kind = "pool"
	case len(u.Assigns) > 0:
		kind = "assign"
	}
	m.updates.WithLabelValues(kind).Inc()
	m.assigns.Add(float64(len(u.Assigns)))
}

func outcome(ok bool) string {
	if ok {
		return "taken"
	}
	return "refused"
}
