package host

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// mdnsRenew is how often the host asks and answers anew, ±20 %: what was heard
	// once is not heard again before that. It does so at once when the machine's
	// addresses change, or it slept.
	mdnsRenew = 10 * time.Minute
	// mdnsRetry is the pause where no interface takes multicast.
	mdnsRetry = 30 * time.Second
	// mdnsJoin is how often the host looks whether it has a certificate to show.
	mdnsJoin = 200 * time.Millisecond
	// mdnsClose is what its end may take: where a machine has no IPv6 at all,
	// libp2p's waits for itself for ever.
	mdnsClose = 2 * time.Second
	// nearTTL is how long the addresses of a found peer are good.
	nearTTL = 3 * mdnsRenew
	// maxNear bounds the peers that are remembered as found, maxNearAddrs the
	// addresses of each. Anybody on the link can claim to be any number of peers:
	// beyond it those give way that are not connected.
	maxNear      = 256
	maxNearAddrs = 8
)

// near finds the hosts of the swarm on the same links by multicast DNS (RFC
// 6762, libp2p's discovery/mdns). What it hears is a hint: it believes addresses
// of the links alone, and who is there shows its certificate as everybody does.
type near struct {
	h       *Host
	service string
	lan     interfaces
	found   chan peer.AddrInfo // for the keeper
	moved   chan struct{}      // gets an element when the machine's addresses have changed

	mu sync.Mutex
	// mu guards the following.
	known map[peer.ID]bool
}

func newNear(h *Host, service string) *near {
	return &near{h: h, service: service, found: make(chan peer.AddrInfo, maxNear), moved: make(chan struct{}, 1), known: map[peer.ID]bool{}}
}

// run answers and asks until ctx ends, from when the host is a member on: before,
// those whom it meets would turn it away, and for a while later too.
func (n *near) run(ctx context.Context) {
	for gate := n.h.cfg.Gate; gate != nil && len(gate.Chain()) == 0; {
		timer := time.NewTimer(mdnsJoin)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
	failed := false
	for ctx.Err() == nil {
		s := mdns.NewMdnsService(asOfNow{n.h.Host}, n.service, n)
		wait := time.Duration((0.8 + 0.4*rand.Float64()) * float64(mdnsRenew))
		if err := s.Start(); err != nil {
			wait = mdnsRetry
			if !failed {
				n.h.log.Info("cannot look for neighbours by multicast DNS, trying on", "err", err)
			}
			failed = true
		} else {
			failed = false
		}
		n.rest(ctx, wait)
		_ = n.h.closeWithin(mdnsClose, s) // it is always nil
	}
}

// rest waits until the addresses change, for at most d.
func (n *near) rest(ctx context.Context, d time.Duration) {
	end := time.NewTimer(d)
	defer end.Stop()
	select {
	case <-ctx.Done():
	case <-end.C:
	case <-n.moved:
	}
}

// left says that the machine's addresses have changed, or that it slept.
func (n *near) left() {
	if n == nil {
		return
	}
	select {
	case n.moved <- struct{}{}:
	default: // one is not yet heard
	}
}

// asOfNow is a host that names the addresses that its machine has now to libp2p's
// mDNS, which announces them until it ends. The swarm's own are up to a minute old.
type asOfNow struct{ host.Host }

// Network implements host.Host.
func (h asOfNow) Network() network.Network { return networkNow{h.Host.Network()} }

type networkNow struct{ network.Network }

// InterfaceListenAddresses implements network.Network.
func (n networkNow) InterfaceListenAddresses() ([]multiaddr.Multiaddr, error) {
	return manet.ResolveUnspecifiedAddresses(n.ListenAddresses(), nil)
}

// HandlePeerFound implements mdns.Notifee.
func (n *near) HandlePeerFound(info peer.AddrInfo) { n.hear(info, n.lan.onLink) }

// hear takes in that a peer says it is on the link.
func (n *near) hear(info peer.AddrInfo, onLink func(multiaddr.Multiaddr) bool) {
	addrs := slices.DeleteFunc(slices.Clone(info.Addrs), func(a multiaddr.Multiaddr) bool {
		return !isTCP(a) && !isQUIC(a) || manet.IsIPLoopback(a) || !onLink(a)
	})
	addrs = addrs[:min(len(addrs), maxNearAddrs)]
	if len(addrs) == 0 || info.ID == n.h.ID() || !n.remember(info.ID) {
		return
	}
	// Who has announced others in its name before must not crowd out what is known
	// of it otherwise: the peerstore has room for 64 addresses of a peer.
	of := n.h.Peerstore().Addrs(info.ID)
	if known := len(slices.DeleteFunc(of, func(a multiaddr.Multiaddr) bool { return !onLink(a) })); known < maxNearAddrs {
		n.h.Peerstore().AddAddrs(info.ID, addrs, nearTTL)
	}
	select {
	case n.found <- peer.AddrInfo{ID: info.ID, Addrs: addrs}:
	default: // the keeper has enough to do; it is said again
	}
}

// remember notes a peer; false where there is no room.
func (n *near) remember(id peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for o := range n.known {
		if len(n.known) < maxNear || n.known[id] {
			break
		}
		if !n.h.connected(o) {
			delete(n.known, o)
		}
	}
	if len(n.known) >= maxNear && !n.known[id] {
		return false
	}
	n.known[id] = true
	return true
}

// isKnown reports whether a peer was found.
func (n *near) isKnown(id peer.ID) bool {
	if n == nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[id]
}

// Near returns the members that are connected and near: those of Config.Site,
// and those that were found by multicast DNS and are connected over a link of
// this machine, which nobody else can pretend. By ID.
func (h *Host) Near() []peer.ID {
	var out []peer.ID
	for _, id := range h.Network().Peers() {
		of := slices.ContainsFunc(h.cfg.Site, func(p peer.AddrInfo) bool { return p.ID == id })
		if !of && h.near.isKnown(id) {
			of = slices.ContainsFunc(h.Network().ConnsToPeer(id), func(c network.Conn) bool { return h.near.lan.onLink(c.RemoteMultiaddr()) })
		}
		if of && h.connected(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
