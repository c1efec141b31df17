package host

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/membership"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// autonatDialBack is opened by a peer that was asked whether it can dial this
// host, on a connection of its own: AutoNAT v2. It carries a nonce and nothing
// else.
const autonatDialBack protocol.ID = "/libp2p/autonat/2/dial-back"

// open reports whether a protocol passes before membership is known.
func open(id protocol.ID, dir network.Direction) bool {
	switch id {
	case identify.ID, identify.IDPush, ping.ID, membership.Protocol:
		return true
	case autonatDialBack:
		return dir == network.DirInbound
	}
	return false
}

// roles lists the protocols that not every member may speak, with the least
// role of a peer that opens a stream, and of one to whom a stream is opened.
var roles = map[protocol.ID]struct{ in, out membership.Role }{
	heartbeat.Protocol: {membership.Reader, membership.Supernode},
	report.Protocol:    {membership.Seed, membership.Supernode},
}

// wrap puts the gate in front of the resource manager of a host for maxPeers.
func (g *Gate) wrap(r network.ResourceManager, maxPeers int) network.ResourceManager {
	if g.cfg.MaxPending == 0 {
		g.cfg.MaxPending = maxPending(maxPeers)
	}
	g.unsaid.most, g.unsaid.byPeer = transientStreams(maxPeers), make(map[peer.ID]int)
	return gatedManager{r, g}
}

type gatedManager struct {
	network.ResourceManager
	gate *Gate
}

// OpenStream implements network.ResourceManager.
func (m gatedManager) OpenStream(p peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	said := func() {}
	if dir == network.DirInbound {
		var err error
		if said, err = m.gate.unsaid.enter(p, m.gate.isIn(p)); err != nil {
			m.gate.refusals.Add(1)
			return nil, err
		}
	}
	s, err := m.ResourceManager.OpenStream(p, dir)
	if err != nil {
		said()
		return nil, err
	}
	return gatedStream{s, m.gate, p, dir, said}, nil
}

type gatedStream struct {
	network.StreamManagementScope
	gate *Gate
	peer peer.ID
	dir  network.Direction
	said func() // its protocol is known, or it has ended
}

// Done implements network.StreamManagementScope.
func (s gatedStream) Done() {
	s.said()
	s.StreamManagementScope.Done()
}

// SetProtocol implements network.StreamManagementScope. libp2p calls it before
// the handler of an inbound stream, and before a byte of an outbound one.
func (s gatedStream) SetProtocol(id protocol.ID) error {
	s.said()
	if err := s.gate.pass(s.peer, id, s.dir); err != nil {
		s.gate.refusals.Add(1)
		return err
	}
	return s.StreamManagementScope.SetProtocol(id)
}

// isIn reports whether a peer is admitted.
func (g *Gate) isIn(id peer.ID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.members[id].in
}

// pass decides on a stream; an outbound one may have to wait.
func (g *Gate) pass(id peer.ID, proto protocol.ID, dir network.Direction) error {
	if open(proto, dir) {
		return nil
	}
	var (
		l    level
		ok   bool
		need membership.Role
	)
	if dir == network.DirInbound {
		g.mu.RLock()
		l = g.members[id]
		g.mu.RUnlock()
		ok, need = l.in, roles[proto].in
	} else {
		l, ok = g.await(id)
		need = roles[proto].out
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: %s, protocol %s", ErrNotMember, id, proto)
	case l.role < need:
		return fmt.Errorf("%w: %s is a %s, %s wants a %s", ErrRole, id, l.role, proto, need)
	}
	return nil
}
