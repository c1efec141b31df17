package rangeread

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/p2pnode/p2pnode/protocols/rangeread/pb"
)

// byStatus is a counter vector with its children looked up once.
type byStatus []prometheus.Counter

func newByStatus(v *prometheus.CounterVec) byStatus {
	b := make(byStatus, len(pb.Status_name))
	for i := range b {
		b[i] = v.WithLabelValues(Status(i).String())
	}
	return b
}

// inc counts a status; one that is unknown here counts as INTERNAL.
func (b byStatus) inc(s Status) {
	if s < 0 || int(s) >= len(b) {
		s = StatusInternal
	}
	b[s].Inc()
}

type clientMetrics struct {
	answers            byStatus
	bytes              prometheus.Counter
	streams, stale     prometheus.Counter
	silent, stalled    prometheus.Counter
	corrupt            prometheus.Counter
	protocolViolations prometheus.Counter
}

func newClientMetrics(reg prometheus.Registerer) *clientMetrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_rangeread_client_" + name, Help: help})
	}
	return &clientMetrics{
		answers: newByStatus(f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_rangeread_client_answers_total", Help: "Answers received, by status.",
		}, []string{"status"})),
		bytes:              counter("verified_bytes_total", "Bytes received and verified."),
		streams:            counter("streams_opened_total", "Streams opened."),
		stale:              counter("stale_streams_total", "Pooled streams that turned out closed."),
		silent:             counter("silent_total", "Reads given up because the source was silent."),
		stalled:            counter("stalled_total", "Reads given up because the source said nothing but WAIT."),
		corrupt:            counter("corrupt_total", "Reads given up because of a wrong leaf or signature."),
		protocolViolations: counter("violations_total", "Reads given up because the source broke the protocol."),
	}
}

type serverMetrics struct {
	answers           byStatus
	bytes             prometheus.Counter
	malformed, refuse prometheus.Counter
	active            prometheus.Gauge
}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	f := promauto.With(reg)
	return &serverMetrics{
		answers: newByStatus(f.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_rangeread_server_answers_total", Help: "Answers sent, by status.",
		}, []string{"status"})),
		bytes:     f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_rangeread_server_bytes_total", Help: "Bytes of files sent."}),
		malformed: f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_rangeread_server_malformed_total", Help: "Streams reset because of a malformed or oversized request."}),
		refuse:    f.NewCounter(prometheus.CounterOpts{Name: "p2pnode_rangeread_server_refused_streams_total", Help: "Streams reset because their peer has too many."}),
		active:    f.NewGauge(prometheus.GaugeOpts{Name: "p2pnode_rangeread_server_active_requests", Help: "Requests being answered."}),
	}
}
