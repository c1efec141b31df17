package node

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/host"
)

// PeerStatus is one peer in /v1/peers.
type PeerStatus struct {
	Peer peer.ID `json:"peer"`
	// Role is "supernode" of one that this node follows, "pool" of one that may be
	// elected to seed, else empty.
	Role string `json:"role,omitempty"`
	Site string `json:"site,omitempty"`
	// How, Transport, Addr and Relay say how it is connected, as host.Path does; How
	// is empty of a source that is not connected any more.
	How       host.How `json:"how,omitempty"`
	Transport string   `json:"transport,omitempty"`
	Addr      string   `json:"addr,omitempty"`
	Relay     peer.ID  `json:"relay,omitempty"`
	// Breaker and FirstByteMs are those of SourceStatus, where this node has read
	// from the peer.
	Breaker     string  `json:"breaker,omitempty"`
	FirstByteMs float64 `json:"first_byte_ms,omitempty"`
}

// peers returns the peers that this node is connected to or has lately read
// from, by peer ID.
func (n *Node) peers(now time.Time) []PeerStatus {
	known := make(map[peer.ID]*PeerStatus)
	get := func(id peer.ID) *PeerStatus {
		if known[id] == nil {
			known[id] = &PeerStatus{Peer: id}
		}
		return known[id]
	}
	for _, p := range n.host.NetworkStatus().Paths {
		s := get(p.Peer)
		s.How, s.Transport, s.Addr, s.Relay = p.How, p.Transport, p.Addr, p.Relay
	}
	for _, from := range n.sources(now) {
		s := get(from.Peer)
		s.Breaker, s.FirstByteMs = from.Breaker, from.FirstByteMs
	}
	for _, m := range n.seeds.Pool() {
		if s := known[m.ID]; s != nil {
			s.Role, s.Site = "pool", m.Site
		}
	}
	for _, super := range n.control.Status() {
		if s := known[super.Supernode]; s != nil {
			s.Role = "supernode"
		}
	}
	out := make([]PeerStatus, 0, len(known))
	for _, s := range known {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}
