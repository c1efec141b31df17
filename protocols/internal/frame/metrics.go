package frame

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what went wrong in one protocol, as client and as server.
type Metrics struct {
	// Malformed and Oversized count messages; Refused counts streams over a
	// limit; Failed counts streams that ended otherwise than they should.
	Malformed, Oversized, Refused, Failed prometheus.Counter
}

// NewMetrics returns the counters p2pnode_<proto>_…_total. All users of one
// protocol and registerer share them. A nil registerer is none.
func NewMetrics(reg prometheus.Registerer, proto string) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "p2pnode", Subsystem: proto, Name: name, Help: help,
		}))
	}
	return &Metrics{
		Malformed: counter("malformed_total", "Messages of peers that broke the protocol's rules."),
		Oversized: counter("oversized_total", "Messages of peers that were larger than the protocol allows."),
		Refused:   counter("refused_streams_total", "Streams refused because of a limit."),
		Failed:    counter("failed_streams_total", "Streams that ended with an error."),
	}
}

// Count counts the outcome of a stream; nil counts nothing.
func (m *Metrics) Count(err error) {
	if err == nil {
		return
	}
	m.Failed.Inc()
	switch {
	case errors.Is(err, ErrTooLarge):
		m.Oversized.Inc()
	case errors.Is(err, ErrMalformed):
		m.Malformed.Inc()
	}
}

// Register registers c, or returns what is registered in its place: a daemon
// and the supernode in its process count the same protocols into one registry.
// It panics where another kind of metric has the name.
func Register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return already.ExistingCollector.(C)
	}
	if err != nil {
		panic("frame: register metric: " + err.Error())
	}
	return c
}
