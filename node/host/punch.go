package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// punchTimeout bounds each of the three attempts at a hole, and the direct dial
	// that is tried before: both ends begin at once, so that a hole opens within a
	// round trip or not at all.
	punchTimeout = 3 * time.Second
	// punchAgain is the pause after the first three attempts. It doubles up to
	// punchRarely. The first may have come before the peer was ready for it, or
	// before either knew its address.
	punchAgain  = time.Second
	punchRarely = 10 * time.Minute
	// maxPunches bounds the holes that are tried at once.
	maxPunches = 16
)

// puncher tries for direct connections to the peers that came through a relay.
// The library tries once, when they come; puncher tries on while they stay. It
// is the side that was dialled that begins (DCUtR). A peer that seems to be on
// the same LAN is dialled there first, by both sides: DCUtR knows public
// addresses alone.
type puncher struct {
	h       corehost.Host
	reach   *reach
	service *holepunch.Service
	lan     interfaces

	work sync.WaitGroup
	// Of the goroutine of traversal.run.
	tries map[peer.ID]*try
	free  chan struct{}
}

// try is what was done about one peer.
type try struct {
	next  time.Time
	pause time.Duration
}

func newPuncher(h corehost.Host, r *reach, p *paths) (*puncher, error) {
	ids, ok := h.(interface{ IDService() identify.IDService })
	if !ok {
		return nil, fmt.Errorf("a %T has no identify", h)
	}
	u := &puncher{h: h, reach: r, tries: map[peer.ID]*try{}, free: make(chan struct{}, maxPunches)}
	var err error
	u.service, err = holepunch.NewService(h, ids.IDService(), u.offers, holepunch.WithTracer(p), holepunch.DirectDialTimeout(punchTimeout))
	return u, err
}

// close ends all attempts.
func (u *puncher) close() error {
	err := u.service.Close()
	u.work.Wait()
	return err
}

// offers returns the addresses that the host offers for a hole: where others saw
// its listening sockets, and the public ones that it has. Of a transport by which
// nobody has seen it yet, it offers the port that it listens on: a host that
// reaches its relays by QUIC has no TCP address to offer one that has TCP alone,
// but a NAT that keeps one port mostly keeps the very port.
func (u *puncher) offers() []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	add := func(a multiaddr.Multiaddr) {
		if manet.IsPublicAddr(a) && !multiaddr.Contains(out, a) {
			out = append(out, a)
		}
	}
	if all, ok := u.h.(interface{ AllAddrs() []multiaddr.Multiaddr }); ok {
		for _, a := range all.AllAddrs() {
			add(a)
		}
	}
	tcp, udp := u.reach.mappings()
	listening := u.h.Network().ListenAddresses()
	for _, l := range listening {
		at, isUDP, ok := addrPort(l)
		if !ok || manet.IsIPLoopback(l) || isCircuit(l) {
			continue
		}
		seen := u.reach.seenAt(at.Port(), isUDP)
		for _, s := range seen {
			add(at2addr(l, s))
		}
		if mapping := map[bool]Mapping{false: tcp, true: udp}[isUDP]; len(seen) > 0 || mapping == MapNone || mapping == MapPerDestination {
			continue
		}
		for _, ip := range u.reach.outside() {
			if ip.Is4() == at.Addr().Is4() {
				add(at2addr(l, netip.AddrPortFrom(ip, at.Port())))
			}
		}
	}
	return out
}

// at2addr returns a listening address with another IP and port; l itself where
// the two do not go together.
func at2addr(l multiaddr.Multiaddr, at netip.AddrPort) multiaddr.Multiaddr {
	ip, err := manet.FromIP(at.Addr().AsSlice())
	if err != nil {
		return l
	}
	port, err := multiaddr.NewComponent(l[1].Protocol().Name, fmt.Sprint(at.Port()))
	if err != nil {
		return l
	}
	return slices.Concat(ip, multiaddr.Multiaddr{*port}, l[2:])
}

// dialLAN reports whether a peer answers at one of its own addresses.
func (u *puncher) dialLAN(id peer.ID) bool {
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(context.Background(), "same LAN"), punchTimeout)
	defer cancel()
	return u.h.Connect(ctx, peer.AddrInfo{ID: id}) == nil
}

// step tries again for those whose time has come.
func (u *puncher) step(now time.Time) {
	waiting := map[peer.ID]bool{}
	for _, c := range u.h.Network().Conns() {
		id := c.RemotePeer()
		if !isCircuit(c.RemoteMultiaddr()) || u.h.Network().Connectedness(id) == network.Connected {
			continue
		}
		near := slices.ContainsFunc(u.h.Peerstore().Addrs(id), u.lan.onLink)
		inbound := c.Stat().Direction == network.DirInbound
		if !near && !inbound {
			continue
		}
		waiting[id] = true
		t := u.tries[id]
		if t == nil {
			u.tries[id] = &try{next: now.Add(punchAgain), pause: punchAgain}
			continue
		}
		if now.Before(t.next) {
			continue
		}
		select {
		case u.free <- struct{}{}:
		default:
			return
		}
		t.pause = min(2*t.pause, punchRarely)
		t.next = now.Add(t.pause)
		u.work.Go(func() {
			defer func() { <-u.free }()
			if near && u.dialLAN(id) || !inbound {
				return
			}
			_ = u.service.DirectConnect(id) // paths hears why not
		})
	}
	for id := range u.tries {
		if !waiting[id] {
			delete(u.tries, id)
		}
	}
}
