package read

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	originRequests, originBytes prometheus.Counter
	peerFills, peerBytes        prometheus.Counter
	fromProviders, fallbacks    prometheus.Counter
	wrongAnswers, fromHolders   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_read_" + name, Help: help})
	}
	return &metrics{
		originRequests: counter("origin_requests_total", "Reads of origins, each of one request or more."),
		originBytes:    counter("origin_bytes_total", "Body bytes read from origins."),
		peerFills:      counter("peer_reads_total", "Answers of peers that fills began to read."),
		peerBytes:      counter("peer_bytes_total", "Verified bytes that fills read from peers."),
		wrongAnswers:   counter("wrong_answers_total", "Answers of peers with bytes that are not what was signed."),
		fromProviders:  counter("provider_reads_total", "Reads from peers that the DHT named."),
		fromHolders:    counter("holder_reads_total", "Reads from peers to which a busy source referred."),
		fallbacks:      counter("origin_fallbacks_total", "Reads of the origin because every source failed."),
	}
}
