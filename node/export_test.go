package node

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
)

// Beat returns what supernodes are told of the node.
func (n *Node) Beat() heartbeat.Beat { return n.beat() }

// DataDir is where the node keeps what it has.
func (n *Node) DataDir() string { return n.cfg.DataDir }

// ReadStatus returns what /v1/status shows.
func (n *Node) ReadStatus() Status { return n.status() }

// Heard returns how many supernodes the map holds updates of.
func (n *Node) Heard() (supernodes int) {
	for _, c := range n.seeds.Cursors() {
		if c.Seq > 0 {
			supernodes++
		}
	}
	return supernodes
}

// ReadStatus returns what /v1/status shows.
func (n *SupernodeNode) ReadStatus() SupernodeStatus { return n.status() }

// Keeps reports whether the node keeps a connection to a peer, whatever else is
// trimmed.
func (n *Node) Keeps(id peer.ID) bool { return n.host.ConnManager().IsProtected(id, "p2pnode/keep") }

// TrustedSigner reports whether the node believes what a peer signs.
func (n *Node) TrustedSigner(id peer.ID) bool { return n.trustedSigner(id) }

// HeardOf returns up to which number the map lacks nothing of a supernode's.
func (n *Node) HeardOf(id peer.ID) uint64 {
	for _, c := range n.seeds.Cursors() {
		if c.Supernode == id {
			return c.Seq
		}
	}
	return 0
}
