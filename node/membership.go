package node

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/membership"
	"github.com/p2pnode/p2pnode/supernode"
)

// openMember opens the node's membership and makes its gate; nil for a node
// without a swarm.
func (n *Node) openMember() (*host.Gate, error) {
	join := n.cfg.Join
	if n.embedded != nil {
		if err := n.selfAdmit(); err != nil {
			return nil, err
		}
		join = "" // it was for the supernode
	}
	m, chain, err := openMember(n.cfg.DataDir, join, n.self, n.cfg.Logger)
	if err != nil {
		return nil, err
	}
	if m == nil {
		n.cfg.Logger.Info("no swarm: listening on loopback only; `p2pnode swarm init` makes one, --join joins it")
		return nil, nil
	}
	switch m.role(chain) {
	case membership.Supernode:
		return nil, fmt.Errorf("%s belongs to a supernode: a daemon joins with a token of role reader or seed, in a data directory of its own", m.path(chainFile))
	case membership.Reader:
		if n.cfg.Seed {
			n.cfg.Logger.Info("this node's role is reader: it is not offered as a seed")
			n.cfg.Seed = false
		}
	}
	n.member = m
	return m.newGate(chain, nil, max(0, n.cfg.OfflineGrace)), nil
}

// selfAdmit makes the node a member by its embedded supernode, where that is one.
func (n *Node) selfAdmit() error {
	s := n.embedded
	if s.member == nil {
		if n.cfg.member {
			return checkMember(n.cfg)
		}
		return nil
	}
	if old, _, err := openMember(n.cfg.DataDir, "", n.self, n.cfg.Logger); err != nil {
		return err
	} else if old != nil && old.swarm != s.member.swarm {
		return fmt.Errorf("%s is of swarm %s, and the supernode is of %s: delete that file to change swarms", old.path(chainFile), old.swarm, s.member.swarm)
	}
	role := membership.Reader
	if n.cfg.Seed {
		role = membership.Seed
	}
	chain, err := s.issuer.Admit(n.self, role, DefaultLifetime)
	if err != nil {
		return fmt.Errorf("join the swarm by the embedded supernode: %w", err)
	}
	return (&member{dir: n.cfg.DataDir}).keep(chain)
}

// supernodeReached reports whether any supernode has answered lately.
func (n *Node) supernodeReached() bool {
	for _, s := range n.control.Status() {
		if s.Connected {
			return true
		}
	}
	return false
}

// revocations are those that supernodes tell of; nil without a swarm.
func (n *Node) revocations() control.Revocations {
	if n.member == nil {
		return nil
	}
	return n.member
}

// believes reports whether what a peer signs is believed, its role apart.
func (n *Node) believes(id peer.ID) bool { return n.member == nil || n.member.believes(id) }

// mayReport reports whether supernodes take reports from this node: a reader's
// word on what it holds does not count.
func (n *Node) mayReport() bool {
	if n.member == nil {
		return true
	}
	c, ok := n.member.cert()
	return ok && c.Role >= membership.Seed
}

// trustedSigner reports whether blocks that a peer signed are believed: it was
// in a pool that a supernode signed, which takes the role of seed, and is not
// revoked.
func (n *Node) trustedSigner(id peer.ID) bool {
	return n.seeds.TrustedSigner(id) && n.believes(id)
}

// mayGrant reports whether a peer's grants count, and whether it may be shown
// credentials.
func (n *Node) mayGrant(id peer.ID) bool { return n.seeds.MayGrant(id) && n.believes(id) }

// supernodeWarning is how long before its end an operator is told of a
// supernode's certificate at the start.
const supernodeWarning = 30 * 24 * time.Hour

// openMember opens a supernode's membership, and makes its gate and its issuer;
// nil for one without a swarm.
func (p supernodeParams) openMember(key crypto.PrivKey) (*member, *host.Gate, *supernode.Issuer, error) {
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	m, chain, err := openMember(p.memberDir, p.join, self, p.logger)
	if err != nil {
		return nil, nil, nil, err
	}
	if m == nil {
		if p.keyFile != embeddedFile { // of which its node speaks
			p.logger.Info("no swarm: listening on loopback only; `p2pnode swarm init` makes one, and `p2pnode swarm token --role supernode --peer ID` a certificate for --join")
		}
		return nil, nil, nil, nil
	}
	if role := m.role(chain); role != membership.Supernode {
		return nil, nil, nil, fmt.Errorf("join: the secret makes a %s: `p2pnode swarm token --role supernode --peer %s` makes one for this supernode", role, self)
	}
	if c, _, err := chain.Open(m.swarm); err == nil && time.Until(c.Expires) < supernodeWarning {
		p.logger.Warn("the certificate of this supernode ends soon, and with it all that it issued: make a new one with `p2pnode swarm token --role supernode`, and start with --join", "expires", c.Expires)
	}
	issuer, err := supernode.NewIssuer(supernode.IssuerConfig{
		Key: key, Chain: chain, Revocations: m.revocations, Grace: p.grace, File: m.path(usesFile),
	})
	if err != nil {
		return nil, nil, nil, err
	}
	m.count = issuer.Seen
	return m, m.newGate(chain, issuer, p.grace), issuer, nil
}

// maySeed returns who may be elected; nil for all.
func (m *member) maySeed() func(peer.ID) bool {
	if m == nil {
		return nil
	}
	return func(id peer.ID) bool { return m.gate.Role(id) >= membership.Seed }
}

// told is what a supernode tells its members; nil for nothing.
func (m *member) told() supernode.Revocations {
	if m == nil {
		return nil
	}
	return m
}

// revoke returns what takes in an operator's revocation; nil without a swarm.
func (s *supernodeHost) revoke() func(string) error {
	if s.member == nil {
		return nil
	}
	return func(text string) error {
		signed, err := membership.ParseRevocation(text)
		if err != nil {
			return err
		}
		return s.member.revoke(signed)
	}
}

// SupernodeStatus is what /v1/status of a supernode alone shows.
type SupernodeStatus struct {
	supernode.Status
	// Membership says whether it serves a closed swarm.
	Membership MembershipStatus `json:"membership"`
}

func (n *SupernodeNode) status() SupernodeStatus {
	s := SupernodeStatus{Status: n.s.supernode.Status(), Membership: openStatus()}
	if n.s.member != nil {
		s.Membership = n.s.member.status()
	}
	return s
}
