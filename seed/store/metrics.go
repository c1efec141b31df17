package store

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	writes, refused, readBytes, checks, corrupt, recordHits, recordMisses prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, d *Disk) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: "p2pnode_store_" + name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "p2pnode_store_" + name, Help: help}, value)
	}
	gauge("held_bytes", "Bytes of the blocks that are held.", func() float64 { return float64(d.Used()) })
	gauge("pinned_bytes", "Bytes of pinned stripes, held or not.", func() float64 { return float64(d.Pinned()) })
	gauge("free_bytes", "Bytes that can be written before something is evicted.", func() float64 { return float64(d.Free()) })
	gauge("disk_free_bytes", "Bytes free on the disk, of which some are always kept.", func() float64 {
		free, _ := d.cfg.free(d.cfg.Dir)
		return float64(free)
	})
	gauge("capacity_bytes", "Bound on the bytes held.", func() float64 { return float64(d.Capacity()) })
	gauge("files_count", "Files, each a generation of a task.", func() float64 { return float64(d.index.count()) })
	total := func(name, help string, value *atomic.Int64) {
		auto.NewCounterFunc(prometheus.CounterOpts{Name: "p2pnode_store_" + name, Help: help}, func() float64 { return float64(value.Load()) })
	}
	total("evicted_bytes_total", "Bytes of blocks evicted.", &d.quota.evictedBytes)
	total("evicted_stripes_total", "Stripes evicted.", &d.quota.evictedStripes)
	return &metrics{
		writes:       counter("written_blocks_total", "Blocks written with their records."),
		refused:      counter("refused_blocks_total", "Blocks for which there was no room and nothing to evict."),
		readBytes:    counter("read_bytes_total", "Bytes delivered to readers."),
		checks:       counter("checked_blocks_total", "Whole blocks compared with their records."),
		corrupt:      counter("corrupt_blocks_total", "Blocks dropped because they did not match their records."),
		recordHits:   counter("record_hits_total", "Records found in memory."),
		recordMisses: counter("record_misses_total", "Records read from the datastore."),
	}
}
