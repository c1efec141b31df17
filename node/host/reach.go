package host

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxSights bounds the remembered observations; the oldest go.
const maxSights = 64

// sight is how one peer saw one of this host's sockets.
type sight struct {
	observer peer.ID
	by       netip.Addr // the observer's address
	udp      bool
	local    netip.AddrPort // of the socket; its address may be unspecified
	from     netip.Addr     // the host's address that it spoke from; the zero value for not known
	seen     netip.AddrPort
}

// reach knows what speaks for and against a NAT before this host: how peers saw
// its connections, which of its addresses AutoNAT has confirmed.
type reach struct {
	forced Reachability
	own    func() []netip.Addr // this host's addresses, at most a second old
	look   func()              // makes them those of now
	// listening returns what the host listens on; it is nil before the host starts.
	listening atomic.Pointer[func() []multiaddr.Multiaddr]

	mu sync.Mutex
	// mu guards the following.
	sights    []sight
	reachable map[string]bool // addresses by their bytes
	refuted   bool            // AutoNAT found one of the interfaces' addresses out of reach
}

func newReach(forced Reachability) *reach {
	lan := new(interfaces)
	return &reach{forced: forced, own: lan.addrs, look: func() { lan.fresh() }, reachable: map[string]bool{}}
}

// identified notes how a peer saw this host.
func (r *reach) identified(e event.EvtPeerIdentificationCompleted) {
	if e.ObservedAddr == nil || e.Conn == nil || isCircuit(e.Conn.RemoteMultiaddr()) {
		return
	}
	seen, udp, ok := addrPort(e.ObservedAddr)
	local, _, okLocal := addrPort(e.Conn.LocalMultiaddr())
	by, _, okBy := addrPort(e.Conn.RemoteMultiaddr())
	if !ok || !okLocal || !okBy || seen.Addr().IsLoopback() || seen.Addr().Is6() != local.Addr().Is6() && !local.Addr().IsUnspecified() {
		return
	}
	r.add(sight{observer: e.Peer, by: by.Addr(), udp: udp, local: local, from: sourceTo(by), seen: seen})
}

// sourceTo returns the address of this host from which it speaks to another; the
// zero value where there is no way to it. Nothing is sent.
func sourceTo(to netip.AddrPort) netip.Addr {
	c, err := new(net.Dialer).DialContext(context.Background(), "udp", to.String())
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	at, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return at.AddrPort().Addr().Unmap()
}

func (r *reach) add(s sight) {
	if a := s.local.Addr(); !a.IsUnspecified() {
		s.from = a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sights = slices.DeleteFunc(r.sights, func(o sight) bool { return o.observer == s.observer && o.udp == s.udp })
	if len(r.sights) == maxSights {
		r.sights = r.sights[1:]
	}
	r.sights = append(r.sights, s)
}

// confirmed takes in AutoNAT's findings.
func (r *reach) confirmed(e event.EvtHostReachableAddrsChanged) {
	own := r.own()
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.reachable)
	for _, a := range e.Reachable {
		r.reachable[string(a.Bytes())] = true
	}
	r.refuted = slices.ContainsFunc(e.Unreachable, func(a multiaddr.Multiaddr) bool {
		at, _, ok := addrPort(a)
		return ok && slices.Contains(own, at.Addr())
	})
}

// prune forgets what was seen of this host at addresses that it has no longer: it
// moved to another network. It reports whether there was any. What was seen at an
// address that stays counts on: there may be nobody who would say it again.
func (r *reach) prune() bool {
	r.look()
	own := r.own()
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.sights)
	r.sights = slices.DeleteFunc(r.sights, func(s sight) bool { return s.from.IsValid() && !slices.Contains(own, s.from) })
	return len(r.sights) < before
}

// now returns what this host is, by all that is known.
func (r *reach) now() Reachability {
	if r.forced != ReachUnknown {
		return r.forced
	}
	own := r.own()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.reachable) > 0 {
		return ReachPublic
	}
	if !r.refuted && !r.natted(own) {
		return ReachUnknown
	}
	// A hole needs one transport whose mapping stays.
	if tcp, udp := r.mapping(own, false), r.mapping(own, true); tcp == MapPerDestination && udp != MapSame || udp == MapPerDestination && tcp != MapSame {
		return ReachRelayed
	}
	return ReachPunchable
}

// natted reports whether a peer saw an address that is none of this host's own.
// The caller holds mu.
func (r *reach) natted(own []netip.Addr) bool {
	return slices.ContainsFunc(r.sights, func(s sight) bool { return !slices.Contains(own, s.seen.Addr()) })
}

// Mapping says what a NAT does with the source port of one transport.
type Mapping string

// What was seen of a NAT.
const (
	// MapUnknown: too few peers have seen this host.
	MapUnknown Mapping = "unknown"
	// MapNone: there is no NAT.
	MapNone Mapping = "none"
	// MapSame: one port for all destinations (RFC 4787's endpoint-independent
	// mapping).
	MapSame Mapping = "same"
	// MapPerDestination: a port for each destination ("symmetric").
	MapPerDestination Mapping = "per-destination"
)

// mapping says what was seen of one transport. The caller holds mu.
func (r *reach) mapping(own []netip.Addr, udp bool) Mapping {
	ports := map[uint16]map[uint16]netip.Addr{} // by local port the seen ones, with an observer's address
	observers := map[netip.Addr]bool{}
	any := false
	kept := false
	for _, s := range r.sights {
		if s.udp != udp {
			continue
		}
		any = true
		if slices.Contains(own, s.seen.Addr()) {
			continue
		}
		observers[s.by] = true
		kept = kept || s.local.Port() == s.seen.Port()
		if ports[s.local.Port()] == nil {
			ports[s.local.Port()] = map[uint16]netip.Addr{}
		}
		ports[s.local.Port()][s.seen.Port()] = s.by
	}
	switch {
	case !any:
		return MapUnknown
	case len(observers) == 0:
		return MapNone
	}
	for seen := range maps.Values(ports) {
		if len(seen) > 1 {
			return MapPerDestination
		}
	}
	if kept || len(observers) > 1 && len(ports) == 1 {
		return MapSame
	}
	return MapUnknown
}

// Mappings returns what was seen of TCP and of UDP.
func (r *reach) mappings() (tcp, udp Mapping) {
	own := r.own()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mapping(own, false), r.mapping(own, true)
}

// seenAt returns where peers saw a listening port.
func (r *reach) seenAt(port uint16, udp bool) []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []netip.AddrPort
	for _, s := range r.sights {
		if s.udp == udp && s.local.Port() == port && !slices.Contains(out, s.seen) {
			out = append(out, s.seen)
		}
	}
	return out
}

// outside returns the addresses at which peers saw this host that are not its
// own, sorted.
func (r *reach) outside() []netip.Addr {
	own := r.own()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []netip.Addr
	for _, s := range r.sights {
		if a := s.seen.Addr(); !slices.Contains(own, a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// uplink returns the public address at which most of the members that saw this
// host did, the smallest where as many saw another; false where none did, or it
// is one of the host's own. What strangers say they saw, before they are turned
// away, does not count.
func (r *reach) uplink(member func(peer.ID) bool) (best netip.Addr, ok bool) {
	own := r.own()
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[netip.Addr]map[peer.ID]bool{}
	for _, s := range r.sights {
		a := s.seen.Addr()
		if ip, err := manet.FromIP(a.AsSlice()); err != nil || !manet.IsPublicAddr(ip) || !member(s.observer) {
			continue
		}
		if seen[a] == nil {
			seen[a] = map[peer.ID]bool{}
		}
		seen[a][s.observer] = true
	}
	for a, by := range seen {
		if n, most := len(by), len(seen[best]); n > most || n == most && a.Less(best) {
			best, ok = a, true
		}
	}
	if !ok || slices.Contains(own, best) {
		return netip.Addr{}, false
	}
	return best, true
}

// dialable leaves out of a host's addresses the public ones that are only seen
// from outside, until AutoNAT has confirmed them: who dialled them would wait
// for a NAT that answers nobody. Hole punching has its own list. Those of the
// interfaces are looked up anew: libp2p keeps them for a minute.
func (r *reach) dialable(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	own := r.own()
	var out []multiaddr.Multiaddr
	if listening := r.listening.Load(); listening != nil {
		out = resolve((*listening)(), own)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addrs {
		at, _, ok := addrPort(a)
		switch {
		case multiaddr.Contains(out, a):
		case isCircuit(a), !ok, r.forced == ReachPublic, slices.Contains(own, at.Addr()), r.reachable[string(a.Bytes())]:
			out = append(out, a)
		}
	}
	return out
}

// resolve returns listening addresses with this host's own in the place of the
// unspecified ones.
func resolve(listening []multiaddr.Multiaddr, own []netip.Addr) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, l := range listening {
		at, _, ok := addrPort(l)
		if !ok || isCircuit(l) {
			continue
		}
		if !at.Addr().IsUnspecified() {
			out = append(out, l)
			continue
		}
		for _, ip := range own {
			if ip.Is4() == at.Addr().Is4() && !ip.IsLinkLocalUnicast() {
				out = append(out, at2addr(l, netip.AddrPortFrom(ip, at.Port())))
			}
		}
	}
	return out
}

// addrPort returns the IP address and port that a TCP or QUIC address begins
// with.
func addrPort(a multiaddr.Multiaddr) (at netip.AddrPort, udp, ok bool) {
	if len(a) < 2 {
		return at, false, false
	}
	n, err := manet.ToNetAddr(a[:2])
	if err != nil {
		return at, false, false
	}
	switch n := n.(type) {
	case *net.TCPAddr:
		at = n.AddrPort()
	case *net.UDPAddr:
		at, udp = n.AddrPort(), true
	default:
		return at, false, false
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), udp, true
}

// isCircuit reports whether an address leads through a relay.
func isCircuit(a multiaddr.Multiaddr) bool {
	return slices.ContainsFunc(a, func(c multiaddr.Component) bool { return c.Protocol().Code == multiaddr.P_CIRCUIT })
}
