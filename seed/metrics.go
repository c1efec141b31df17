package seed

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	checkedDigests, wrongDigests prometheus.Counter
	jobs                         prometheus.Gauge
	blocksStored, storeFailures  prometheus.Counter
	servedBytes                  prometheus.Counter
	verdicts, granted, badGrants prometheus.Counter
	madePrivate, referrals       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		jobs:           f.NewGauge(prometheus.GaugeOpts{Name: "p2pnode_seed_fills", Help: "Fills that run."}),
		blocksStored:   f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_blocks_stored_total", Help: "Blocks stored."}),
		storeFailures:  f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_store_failures_total", Help: "Blocks that the store refused."}),
		checkedDigests: f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_checked_digests_total", Help: "Files that are what their digest says."}),
		wrongDigests:   f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_wrong_digests_total", Help: "Files deleted because they were not what their digest says."}),
		servedBytes:    f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_served_bytes_total", Help: "Bytes sent to peers."}),
		referrals:      f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_referrals_total", Help: "Readers referred to others who receive the same stripe."}),
		verdicts:       f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_credential_checks_total", Help: "Questions to origins whether credentials open a file."}),
		granted:        f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_grants_total", Help: "Grants given to peers."}),
		badGrants:      f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_bad_grants_total", Help: "Requests of peers with a grant that counted for nothing."}),
		madePrivate:    f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_seed_made_private_total", Help: "Files dropped because they have become private."}),
	}
}
