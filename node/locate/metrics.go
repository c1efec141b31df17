package locate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// mapMetrics are the Map's; without a registerer they count unseen.
type mapMetrics struct {
	entries  prometheus.Gauge
	evicted  prometheus.Counter
	updates  *prometheus.CounterVec
	breakers prometheus.Counter
	bans     prometheus.Counter
}

func newMapMetrics(reg prometheus.Registerer) *mapMetrics {
	f := promauto.With(reg)
	return &mapMetrics{
		entries: f.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_locate_map_entries",
			Help: "Tasks in the seed map, withdrawn ones that are remembered included.",
		}),
		evicted: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_locate_map_evictions_total",
			Help: "Tasks forgotten because the seed map was full.",
		}),
		updates: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_locate_updates_total",
			Help: "Signed updates by what became of them: applied, stale, unknown_supernode.",
		}, []string{"outcome"}),
		breakers: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_locate_breaker_opens_total",
			Help: "Times a peer was moved behind the healthy ones after a failure.",
		}),
		bans: f.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_locate_bans_total",
			Help: "Times a peer was banned for wrong bytes.",
		}),
	}
}

// providerMetrics are those of Providers.
type providerMetrics struct {
	lookups  *prometheus.CounterVec
	provides *prometheus.CounterVec
	provided prometheus.Gauge
}

func newProviderMetrics(reg prometheus.Registerer) *providerMetrics {
	f := promauto.With(reg)
	return &providerMetrics{
		lookups: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_locate_dht_lookups_total",
			Help: "Searches for providers by outcome: found, none, cancelled, or cached where the DHT was not asked.",
		}, []string{"outcome"}),
		provides: f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_locate_dht_provides_total",
			Help: "Announcements of a task in the DHT by outcome: ok, failed.",
		}, []string{"outcome"}),
		provided: f.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_locate_dht_provided_entries",
			Help: "Tasks that this node announces in the DHT.",
		}),
	}
}
