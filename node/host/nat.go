package host

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
)

// Reachability says who can dial a host.
type Reachability string

// What a host may know of itself, or be told.
const (
	// ReachUnknown: nothing speaks for a NAT, and nobody has confirmed an
	// address from outside: a host on a LAN. In a Config: find out.
	ReachUnknown Reachability = ""
	// ReachPublic: everybody, at one of its addresses.
	ReachPublic Reachability = "public"
	// ReachPunchable: through a relay, and directly by a punched hole: its NAT
	// keeps one port for all destinations, or is not known well enough.
	ReachPunchable Reachability = "punchable"
	// ReachRelayed: through a relay; its NAT takes a new port for each
	// destination, so that holes are rarely punched.
	ReachRelayed Reachability = "relayed"
)

// NAT says how a host behaves towards hosts behind NAT, and where it is behind
// one itself. The zero value finds out where it stands, reserves at the relays
// that it is connected to where it cannot be reached, and is none itself.
type NAT struct {
	// Reach is what the host takes itself for, ReachUnknown to find out.
	// Supernodes and relays are ReachPublic, so that they are of use at once.
	Reach Reachability
	// PortMapping asks the router for ports, by UPnP and NAT-PMP.
	PortMapping bool
	// Relay makes the host a relay (circuit relay v2); RelayData says for what.
	Relay bool
	// RelayData is RelayLimited where it is empty.
	RelayData RelayData
}

// Validate names the field that breaks a rule.
func (n NAT) Validate() error {
	if !slices.Contains([]Reachability{ReachUnknown, ReachPublic, ReachPunchable, ReachRelayed}, n.Reach) {
		return fmt.Errorf("reachability is %q, want %q, %q, %q or nothing", n.Reach, ReachPublic, ReachPunchable, ReachRelayed)
	}
	if n.RelayData != "" && !slices.Contains(RelayDataPolicies, n.RelayData) {
		return fmt.Errorf("relay data is %q, want one of %q", n.RelayData, RelayDataPolicies)
	}
	return nil
}

// oneObserver lets an address count that one peer has seen: the swarm is closed,
// small ones have one supernode, and AutoNAT tests the address all the same.
// go-libp2p wants four observers, by a variable of the package.
var oneObserver = sync.OnceFunc(func() { observedaddrs.ActivationThresh = 1 })

// traversal is what a host does about NAT. A host without has a nil one.
type traversal struct {
	cfg   NAT
	reach *reach
	// Of a host that has started; nil before.
	meter     *meter
	relay     *relay.Relay
	reserver  *reserver
	puncher   *puncher
	addrs     event.Emitter // of event.EvtAutoRelayAddrsUpdated
	reachable event.Emitter // of event.EvtLocalReachabilityChanged
}

func newTraversal(cfg NAT) *traversal {
	oneObserver()
	return &traversal{cfg: cfg, reach: newReach(cfg.Reach)}
}

// options are those of libp2p.
func (t *traversal) options() []libp2p.Option {
	opts := []libp2p.Option{
		libp2p.EnableRelay(),
		libp2p.EnableAutoNATv2(),
		libp2p.AddrsFactory(t.reach.dialable),
	}
	if t.cfg.PortMapping {
		opts = append(opts, libp2p.NATPortMap())
	}
	return opts
}

// start begins to relay for others, before the host listens.
func (t *traversal) start(h *Host, base corehost.Host) error {
	var err error
	listening := base.Network().ListenAddresses
	t.reach.listening.Store(&listening)
	t.meter = newMeter(h.cfg.Registerer, t.cfg.RelayData)
	if t.cfg.Relay {
		if t.relay, err = relay.New(base, relayOptions(t.cfg.RelayData, h.cfg.MaxPeers, t.meter)...); err != nil {
			return fmt.Errorf("make relay: %w", err)
		}
	}
	if t.puncher, err = newPuncher(base, t.reach, h.paths); err != nil {
		return fmt.Errorf("make hole punching: %w", err)
	}
	t.reserver = newReserver(base, h.log)
	bus := base.EventBus()
	if t.addrs, err = bus.Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful); err != nil {
		return fmt.Errorf("announce relays: %w", err)
	}
	if t.reachable, err = bus.Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful); err != nil {
		return fmt.Errorf("announce reachability: %w", err)
	}
	return nil
}

// close ends what start began.
func (t *traversal) close() error {
	var errs []error
	if t.meter != nil {
		close(t.meter.ended)
	}
	if t.puncher != nil {
		errs = append(errs, t.puncher.close())
	}
	if t.relay != nil {
		errs = append(errs, t.relay.Close())
	}
	for _, e := range []event.Emitter{t.addrs, t.reachable} {
		if e != nil {
			errs = append(errs, e.Close())
		}
	}
	return errors.Join(errs...)
}
