package host

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

const (
	// moveLook is how often the host looks whether its addresses have changed: more
	// often than a reader waits for a source that is silent.
	moveLook = 500 * time.Millisecond
	// slept is the time between two looks after which the machine must have been
	// asleep, or the process stopped.
	slept = 10 * time.Second
)

// watch follows this machine's addresses until ctx ends. What was connected from
// an address that is gone is closed, all else that may be dead is asked whether it
// is; moved then hears that others are worth a new try.
func (h *Host) watch(ctx context.Context, moved chan<- struct{}) {
	var look interfaces
	seen := sighting{roaming(look.fresh()), time.Now()}
	tick := time.NewTicker(moveLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		was := seen
		seen = sighting{roaming(look.fresh()), time.Now()}
		changed, asleep := seen.since(was)
		if !changed && !asleep {
			continue
		}
		h.log.Info("this machine's addresses changed, or it slept", "addrs", seen.addrs, "before", was.addrs, "slept", asleep)
		h.leave(seen.addrs, was.addrs, asleep)
		select {
		case moved <- struct{}{}:
		default: // one is not yet heard
		}
	}
}

// sighting is one look at the machine's addresses.
type sighting struct {
	addrs []netip.Addr
	at    time.Time
}

// since says what has happened since another look.
func (s sighting) since(o sighting) (changed, asleep bool) {
	// Round strips the monotonic clock, which stands still while the machine sleeps.
	return !slices.Equal(s.addrs, o.addrs), s.at.Round(0).Sub(o.at.Round(0)) > slept
}

// roaming returns those addresses by which others may reach the machine, in order.
// Link-local ones come and go with each container.
func roaming(all []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range all {
		if a := p.Addr(); !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// leave closes the connections that were made from addresses which this machine
// has no longer, and has those asked that may be dead. A QUIC connection may have
// outlived its address: it is closed where its peer is one that is to say where
// this host is seen from, and that is dialled again at once.
func (h *Host) leave(is, was []netip.Addr, asleep bool) {
	gone := slices.DeleteFunc(slices.Clone(was), func(a netip.Addr) bool { return slices.Contains(is, a) })
	for _, c := range h.Network().Conns() {
		left := slices.Contains(gone, h.alive.source(c))
		switch {
		case left && (!isQUIC(c.RemoteMultiaddr()) || h.observes(c.RemotePeer())):
			h.alive.spawn(c, func() { h.alive.bury(c, "this machine has left its address") })
		case left, asleep:
			h.alive.doubt(c, aliveWithin)
		}
	}
	for _, id := range h.Peerstore().PeersWithAddrs() {
		h.Redial(id)
	}
	h.near.left()
	if h.cfg.Moved != nil {
		h.cfg.Moved()
	}
}

// observes reports whether a peer is one that the host joins through.
func (h *Host) observes(id peer.ID) bool {
	return slices.ContainsFunc(h.cfg.Bootstrap, func(p peer.AddrInfo) bool { return p.ID == id })
}

// Redial ends libp2p's pause, 5 s or more, between dials to a peer's addresses: it
// may be reached again. It dials nobody.
func (h *Host) Redial(id peer.ID) {
	if s, ok := h.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(id)
	}
}
