package host

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/multiformats/go-multiaddr"
)

// How says how a host is connected to a peer.
type How string

// The ways to a peer, best first.
const (
	Direct  How = "direct"
	Punched How = "punched"
	Relayed How = "relayed"
)

// Path is the way to a connected peer.
type Path struct {
	Peer peer.ID `json:"peer"`
	How  How     `json:"how"`
	// Transport is "tcp" or "quic"; of a relayed path that of its first half.
	Transport string `json:"transport"`
	Addr      string `json:"addr"`
	// Relay is the relay of a relayed path.
	Relay peer.ID `json:"relay,omitempty"`
	// DirectAfterMs is the time from the first connection, through a relay or
	// not, to the first direct one, in milliseconds; -1 where there is none.
	DirectAfterMs int64 `json:"direct_after_ms"`
	// Attempts counts the holes that were tried, LastError says why the last one
	// failed.
	Attempts  int    `json:"attempts,omitempty"`
	LastError string `json:"last_error,omitempty"`
}

// contact is what paths remembers of a peer while it is connected, and the
// attempts of a peer that is not yet.
type contact struct {
	first, direct time.Time
	punched       bool
	attempts      int
	failure       string
}

// paths follows how peers are connected. It implements network.Notifiee and
// holepunch.EventTracer.
type paths struct {
	network network.Network

	mu sync.Mutex
	// mu guards the following; contacts has the connected peers.
	contacts map[peer.ID]*contact
}

func newPaths(n network.Network) *paths {
	return &paths{network: n, contacts: map[peer.ID]*contact{}}
}

// Connected implements network.Notifiee.
func (p *paths) Connected(_ network.Network, c network.Conn) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.contacts[c.RemotePeer()]
	if k == nil {
		k = &contact{first: now}
		p.contacts[c.RemotePeer()] = k
	}
	if k.direct.IsZero() && !isCircuit(c.RemoteMultiaddr()) {
		k.direct = now
	}
}

// Disconnected implements network.Notifiee.
func (p *paths) Disconnected(n network.Network, c network.Conn) {
	id := c.RemotePeer()
	left := n.ConnsToPeer(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(left) == 0 {
		delete(p.contacts, id)
		return
	}
	if k := p.contacts[id]; k != nil && !slices.ContainsFunc(left, func(c network.Conn) bool { return !isCircuit(c.RemoteMultiaddr()) }) {
		k.direct, k.punched = time.Time{}, false
	}
}

// Listen implements network.Notifiee.
func (p *paths) Listen(network.Network, multiaddr.Multiaddr) {}

// ListenClose implements network.Notifiee.
func (p *paths) ListenClose(network.Network, multiaddr.Multiaddr) {}

// Trace implements holepunch.EventTracer.
func (p *paths) Trace(e *holepunch.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.contacts[e.Remote]
	if k == nil {
		return // it left
	}
	switch evt := e.Evt.(type) {
	case *holepunch.HolePunchAttemptEvt:
		k.attempts++
	case *holepunch.EndHolePunchEvt:
		k.punched = k.punched || evt.Success
		k.failure = evt.Error
	case *holepunch.ProtocolErrorEvt:
		k.failure = evt.Error
	case *holepunch.DirectDialEvt:
		if !evt.Success {
			k.failure = "direct dial: " + evt.Error
		}
	}
}

// all returns the paths to all connected peers, by peer ID.
func (p *paths) all() []Path {
	out := []Path{}
	for _, id := range p.network.Peers() {
		if path, ok := p.to(id); ok {
			out = append(out, path)
		}
	}
	slices.SortFunc(out, func(a, b Path) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// to returns the path to a peer, false where it is not connected.
func (p *paths) to(id peer.ID) (Path, bool) {
	path := Path{Peer: id, DirectAfterMs: -1}
	for _, c := range p.network.ConnsToPeer(id) {
		a := c.RemoteMultiaddr()
		how := Direct
		if isCircuit(a) {
			how = Relayed
		}
		if path.How != "" && (path.How == Direct || how == Relayed) {
			continue
		}
		path.How, path.Addr = how, a.String()
		path.Transport = transport(a)
		path.Relay = ""
		if how == Relayed {
			path.Relay = relayOf(a)
		}
	}
	if path.How == "" {
		return path, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.contacts[id]; k != nil {
		path.Attempts, path.LastError = k.attempts, k.failure
		if path.How == Direct && !k.direct.IsZero() {
			path.DirectAfterMs = k.direct.Sub(k.first).Milliseconds()
			path.LastError = ""
			if k.punched {
				path.How = Punched
			}
		}
	}
	return path, true
}

// transport names what the first hop of an address is made with.
func transport(a multiaddr.Multiaddr) string {
	for _, c := range a {
		switch c.Protocol().Code {
		case multiaddr.P_TCP:
			return "tcp"
		case multiaddr.P_QUIC_V1:
			return "quic"
		case multiaddr.P_CIRCUIT:
			return ""
		}
	}
	return ""
}

// relayOf returns the relay of a circuit address.
func relayOf(a multiaddr.Multiaddr) peer.ID {
	first, _ := multiaddr.SplitFunc(a, func(c multiaddr.Component) bool { return c.Protocol().Code == multiaddr.P_CIRCUIT })
	text, err := first.ValueForProtocol(multiaddr.P_P2P)
	if err != nil {
		return ""
	}
	id, err := peer.Decode(text)
	if err != nil {
		return ""
	}
	return id
}
