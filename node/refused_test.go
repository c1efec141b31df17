package node

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// counting issues certificates and counts them.
type counting struct {
	key    crypto.PrivKey
	chain  membership.Chain
	issued atomic.Int64
}

func (c *counting) Join(peer.ID, membership.Token) (membership.Chain, error) {
	return nil, membership.ErrUnable
}

func (c *counting) Renew(from peer.ID, _ membership.Chain) (membership.Chain, error) {
	c.issued.Add(1)
	now := time.Now()
	return membership.Issue(c.key, c.chain, membership.Certificate{Peer: from, Role: membership.Seed, NotBefore: now, Expires: now.Add(time.Hour)})
}

// TestRefusalsAreNoLoop: a member that says of every certificate that it has
// expired makes a node renew its own once, not again and again.
func TestRefusalsAreNoLoop(t *testing.T) {
	swarmKey, swarm := p2ptest.Key(t)
	superKey, superID := p2ptest.Key(t)
	key, self := p2ptest.Key(t)
	now := time.Now()
	issuer := &counting{key: superKey}
	var err error
	if issuer.chain, err = membership.IssueSupernode(swarmKey, membership.Certificate{Peer: superID, NotBefore: now, Expires: now.Add(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	own, err := membership.Issue(superKey, issuer.chain, membership.Certificate{Peer: self, Role: membership.Seed, NotBefore: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	open := func(key crypto.PrivKey, gate *host.Gate) *host.Host {
		addrs, err := multiaddrs([]string{"/ip4/127.0.0.1/tcp/0"})
		if err != nil {
			t.Fatal(err)
		}
		h, err := host.New(host.Config{Key: key, Gate: gate, Listen: addrs, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h
	}
	super := open(superKey, host.NewGate(host.GateConfig{Swarm: swarm, Chain: issuer.chain, Issuer: issuer, Logger: log}))
	m := &member{dir: t.TempDir(), self: self, swarm: swarm, log: log, revocations: membership.NewRevocations(swarm), refused: make(chan struct{}, 1)}
	h := open(key, m.newGate(own, nil, 0))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx, h, []peer.AddrInfo{{ID: super.ID(), Addrs: super.Addrs()}}) }()
	m.onRefused(membership.ErrExpired)
	p2ptest.Eventually(t, 20*time.Second, func() bool { return issuer.issued.Load() == 1 }, "the certificate is renewed")
	for range 50 {
		m.onRefused(membership.ErrExpired)
		<-time.After(10 * time.Millisecond)
	}
	if n := issuer.issued.Load(); n != 1 {
		t.Errorf("renewed %d times", n)
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
