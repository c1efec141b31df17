package host

import (
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"
)

// RelayData says how much a relay carries for others, besides what they need to
// talk about a direct connection.
type RelayData string

// The policies of a relay.
const (
	// RelayOff: enough of a circuit for the control protocols and for punching a
	// hole. Files do not go through.
	RelayOff RelayData = "off"
	// RelayLimited: all circuits together 8 MiB a second.
	RelayLimited RelayData = "limited"
	// RelayUnlimited: what the link gives.
	RelayUnlimited RelayData = "unlimited"
)

// RelayDataPolicies are all policies.
var RelayDataPolicies = []RelayData{RelayOff, RelayLimited, RelayUnlimited}

const (
	// relayRate is what RelayLimited carries a second, in bytes, over all
	// circuits; relayBurst at once.
	relayRate  = 8 << 20
	relayBurst = 4 << 20
	// relayBuffer is what a circuit reads at once in each direction. The
	// library's 2 KiB cost three times the CPU.
	relayBuffer = 64 << 10
	// A circuit of RelayOff ends after offData bytes in one direction or offTime:
	// heartbeats of an hour, or one block of a file.
	offData = 1 << 20
	offTime = time.Hour
	// A circuit of the others ends after so much, too: one that is forgotten does
	// not stay for ever. Whoever uses it opens another.
	circuitData = 64 << 30
	circuitTime = 12 * time.Hour
	// FileCircuit is the least limit of a circuit through which files may be
	// read, in bytes.
	FileCircuit = offData + 1
	// reservationTTL is how long a relay holds a slot that is not renewed.
	reservationTTL = 30 * time.Minute
)

// relayOptions make a relay for maxPeers: a whole site stands behind one
// address, so an address has no bound of its own.
func relayOptions(policy RelayData, maxPeers int, m *meter) []relay.Option {
	limit := &relay.RelayLimit{Data: circuitData, Duration: circuitTime}
	if policy == RelayOff {
		limit = &relay.RelayLimit{Data: offData, Duration: offTime}
	}
	return []relay.Option{
		relay.WithResources(relay.Resources{
			Limit:                 limit,
			ReservationTTL:        reservationTTL,
			MaxReservations:       maxPeers,
			MaxReservationsPerIP:  maxPeers,
			MaxReservationsPerASN: maxPeers,
			MaxCircuits:           max(64, maxPeers/8),
			BufferSize:            relayBuffer,
		}),
		// A relay on a LAN is one for its site.
		relay.WithReservationAddressFilter(func(multiaddr.Multiaddr) bool { return true }),
		relay.WithMetricsTracer(m),
	}
}

// meter counts what a relay carries, and slows it down to what the policy
// allows: the relay calls it between two buffers of a circuit. It implements
// relay.MetricsTracer.
type meter struct {
	limit   *rate.Limiter // nil for none
	ended   chan struct{}
	bytes   prometheus.Counter
	open    prometheus.Gauge
	slots   prometheus.Gauge
	refused *prometheus.CounterVec
}

func newMeter(reg prometheus.Registerer, policy RelayData) *meter {
	auto := promauto.With(reg)
	m := &meter{
		ended: make(chan struct{}),
		bytes: auto.NewCounter(prometheus.CounterOpts{
			Name: "p2pnode_host_relayed_bytes_total",
			Help: "Bytes carried for others as a relay.",
		}),
		open: auto.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_host_relay_circuits",
			Help: "Open circuits of others through this relay.",
		}),
		slots: auto.NewGauge(prometheus.GaugeOpts{
			Name: "p2pnode_host_relay_reservations",
			Help: "Peers that hold a reservation at this relay.",
		}),
		refused: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_host_relay_refused_total",
			Help: "Requests that this relay refused, by kind (reservation, circuit).",
		}, []string{"kind"}),
	}
	if policy == RelayLimited || policy == "" {
		m.limit = rate.NewLimiter(relayRate, relayBurst)
	}
	return m
}

// RelayStatus implements relay.MetricsTracer.
func (m *meter) RelayStatus(bool) {}

// ConnectionOpened implements relay.MetricsTracer.
func (m *meter) ConnectionOpened() { m.open.Inc() }

// ConnectionClosed implements relay.MetricsTracer.
func (m *meter) ConnectionClosed(time.Duration) { m.open.Dec() }

// ConnectionRequestHandled implements relay.MetricsTracer.
func (m *meter) ConnectionRequestHandled(status pb.Status) { m.count("circuit", status) }

// ReservationAllowed implements relay.MetricsTracer.
func (m *meter) ReservationAllowed(renewal bool) {
	if !renewal {
		m.slots.Inc()
	}
}

// ReservationClosed implements relay.MetricsTracer.
func (m *meter) ReservationClosed(n int) { m.slots.Sub(float64(n)) }

// ReservationRequestHandled implements relay.MetricsTracer.
func (m *meter) ReservationRequestHandled(status pb.Status) { m.count("reservation", status) }

func (m *meter) count(kind string, status pb.Status) {
	if status != pb.Status_OK {
		m.refused.WithLabelValues(kind).Inc()
	}
}

// BytesTransferred implements relay.MetricsTracer. It blocks the circuit while
// the relay is over its rate.
func (m *meter) BytesTransferred(n int) {
	m.bytes.Add(float64(n))
	if m.limit == nil {
		return
	}
	wait := m.limit.ReserveN(time.Now(), n).Delay()
	if wait == 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.ended:
	}
}
