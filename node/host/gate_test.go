package host_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/heartbeat"
	"github.com/p2pnode/p2pnode/protocols/membership"
	"github.com/p2pnode/p2pnode/protocols/report"
)

// swarm is a swarm key with one supernode that issues certificates.
type swarm struct {
	key, superKey crypto.PrivKey
	id            peer.ID
	chain         membership.Chain
	registry      *prometheus.Registry // of the hosts to come; nil for none
}

func newSwarm(t testing.TB) *swarm {
	t.Helper()
	s := &swarm{key: newKey(t), superKey: newKey(t)}
	var err error
	if s.id, err = membership.SwarmID(s.key); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.chain, err = membership.IssueSupernode(s.key, membership.Certificate{Peer: peerID(t, s.superKey), NotBefore: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func peerID(t testing.TB, key crypto.PrivKey) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// issue returns a certificate of a key.
func (s *swarm) issue(t testing.TB, key crypto.PrivKey, role membership.Role, life time.Duration) membership.Chain {
	t.Helper()
	now := time.Now()
	c, err := membership.Issue(s.superKey, s.chain, membership.Certificate{Peer: peerID(t, key), Role: role, NotBefore: now, Expires: now.Add(life)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// gated makes a host behind a gate; change may alter its configuration.
func (s *swarm) gated(t testing.TB, chain membership.Chain, key crypto.PrivKey, listen string, change func(*host.GateConfig)) (*host.Host, *host.Gate) {
	t.Helper()
	var reg prometheus.Registerer
	if s.registry != nil {
		reg = s.registry
	}
	cfg := host.GateConfig{Swarm: s.id, Chain: chain, Logger: slog.New(slog.DiscardHandler), HelloWait: 4 * time.Second}
	if change != nil {
		change(&cfg)
	}
	g := host.NewGate(cfg)
	return newHost(t, host.Config{Key: key, Gate: g, DHTServer: true, Registerer: reg, Listen: []multiaddr.Multiaddr{maddr(t, listen)}}), g
}

// member makes a member of a role.
func (s *swarm) member(t testing.TB, role membership.Role, listen string) (*host.Host, *host.Gate) {
	t.Helper()
	if role == membership.Supernode {
		return s.gated(t, s.chain, s.superKey, listen, nil)
	}
	key := newKey(t)
	return s.gated(t, s.issue(t, key, role, time.Hour), key, listen, nil)
}

// until waits for a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	limit := time.After(patient)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}

const echo protocol.ID = "/test/echo/1"

// listenEcho answers with what it gets, and counts.
func listenEcho(h *host.Host, id protocol.ID) *atomic.Int64 {
	var n atomic.Int64
	h.SetStreamHandler(id, func(st network.Stream) {
		n.Add(1)
		_, _ = io.Copy(st, st)
		_ = st.Close()
	})
	return &n
}

// say opens a stream and exchanges a byte on it.
func say(ctx context.Context, from *host.Host, to peer.ID, id protocol.ID) error {
	st, err := from.NewStream(ctx, to, id)
	if err != nil {
		return err
	}
	defer func() { _ = st.Reset() }()
	if err := st.SetDeadline(time.Now().Add(patient)); err != nil {
		return err
	}
	if _, err := st.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(st, make([]byte, 1))
	return err
}

func TestGateAdmitsMembers(t *testing.T) {
	for _, listen := range []string{tcpAny, quicAny} {
		s := newSwarm(t)
		a, ga := s.member(t, membership.Seed, listen)
		b, gb := s.member(t, membership.Reader, listen)
		listenEcho(b, echo)
		listenEcho(a, echo)
		connect(t, a, b)
		if err := say(t.Context(), a, b.ID(), echo); err != nil {
			t.Fatalf("%s: a member's stream at once after the connection: %v", listen, err)
		}
		if err := say(t.Context(), b, a.ID(), echo); err != nil {
			t.Fatalf("%s: the other way: %v", listen, err)
		}
		if ga.Role(b.ID()) != membership.Reader || gb.Role(a.ID()) != membership.Seed {
			t.Errorf("roles are %s and %s", ga.Role(b.ID()), gb.Role(a.ID()))
		}
	}
}

// Two members mesh within 2 s of connecting: each gets the other's messages.
func TestGateMembersMesh(t *testing.T) {
	s := newSwarm(t)
	a, _ := s.member(t, membership.Seed, tcpAny)
	b, _ := s.member(t, membership.Seed, tcpAny)
	topic, err := a.PubSub.Join("t")
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.PubSub.Join("t")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := other.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Subscribe(); err != nil {
		t.Fatal(err)
	}
	connect(t, a, b)
	start := time.Now()
	until(t, "a sees b in the topic", func() bool { return slices.Contains(topic.ListPeers(), b.ID()) })
	if err := topic.Publish(t.Context(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if _, err := sub.Next(ctx); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("meshed %v after Connect", took)
	if took > 2*time.Second {
		t.Errorf("meshed %v after Connect, want 2 s", took)
	}
	until(t, "the DHTs know one another", func() bool { return a.DHT.RoutingTable().Size() == 1 && b.DHT.RoutingTable().Size() == 1 })
}

// Nobody without a good certificate gets a stream, a message, or a place in a
// table; and he is gone soon.
func TestGateRefuses(t *testing.T) {
	t.Parallel()
	s, other := newSwarm(t), newSwarm(t)
	revoked := newKey(t)
	for _, tc := range []struct {
		name  string
		key   crypto.PrivKey
		chain func(key crypto.PrivKey) membership.Chain
	}{
		{"another swarm", newKey(t), func(k crypto.PrivKey) membership.Chain { return other.issue(t, k, membership.Seed, time.Hour) }},
		{"another peer's", newKey(t), func(crypto.PrivKey) membership.Chain { return s.issue(t, newKey(t), membership.Seed, time.Hour) }},
		{"the supernode's", newKey(t), func(crypto.PrivKey) membership.Chain { return s.chain }},
		{"expired", newKey(t), func(k crypto.PrivKey) membership.Chain { return s.issue(t, k, membership.Seed, -time.Minute) }},
		{"revoked", revoked, func(k crypto.PrivKey) membership.Chain { return s.issue(t, k, membership.Seed, time.Hour) }},
		{"forged", newKey(t), func(k crypto.PrivKey) membership.Chain {
			c := s.issue(t, k, membership.Seed, time.Hour)
			c[len(c)-1] ^= 1
			return c
		}},
		{"none", newKey(t), func(crypto.PrivKey) membership.Chain { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var heard atomic.Int64
			honest, gate := honestHost(t, s, revoked)
			count := listenEcho(honest, echo)
			// The attacker's own gate believes itself: it claims the swarm.
			bad := newHost(t, host.Config{Key: tc.key, DHTServer: true})
			chain := tc.chain(tc.key)
			publish, messages := gossips(t, honest, bad)
			start := time.Now()
			// Who is revoked for good may not even get a connection.
			err := bad.Connect(t.Context(), info(honest))
			if err != nil && tc.name != "revoked" {
				t.Fatal(err)
			}
			if conns := bad.Network().ConnsToPeer(honest.ID()); len(chain) > 0 && len(conns) > 0 {
				if err := membership.Hello(t.Context(), conns[0], fakeChecker{chain, &heard}); err == nil {
					t.Error("the hello succeeds")
				}
			}
			if err := say(t.Context(), bad, honest.ID(), echo); err == nil {
				t.Error("a stream is served")
			}
			if count.Load() != 0 || gate.Role(bad.ID()) != 0 || honest.DHT.RoutingTable().Size() != 0 {
				t.Errorf("%d streams reached the handler, role %s, %d in the routing table", count.Load(), gate.Role(bad.ID()), honest.DHT.RoutingTable().Size())
			}
			closed := func() bool { publish(); return !connected(honest, bad) }
			if tc.name == "none" { // which may be on its way
				p2ptest.Eventually(t, 3*patient, closed, "the connection is closed")
				if took := time.Since(start); took < 10*time.Second || took > patient {
					t.Errorf("closed after %v, want about 10 s", took)
				}
			}
			until(t, "the connection is closed", closed)
			if n := messages(); n != 0 {
				t.Errorf("%d messages of gossip came through", n)
			}
		})
	}
}

// gossips has two hosts follow a topic, and returns what publishes to it at both,
// and how many messages have come from one to the other.
func gossips(t *testing.T, a, b *host.Host) (publish func(), messages func() int64) {
	t.Helper()
	var topics []*pubsub.Topic
	var came atomic.Int64
	for _, h := range []*host.Host{a, b} {
		topic, err := h.PubSub.Join("t")
		if err != nil {
			t.Fatal(err)
		}
		sub, err := topic.Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		topics = append(topics, topic)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				m, err := sub.Next(ctx)
				if err != nil {
					return
				}
				if m.ReceivedFrom != h.ID() {
					came.Add(1)
				}
			}
		}()
		t.Cleanup(func() { cancel(); <-ended })
	}
	return func() {
		for _, topic := range topics {
			_ = topic.Publish(t.Context(), []byte("x")) // after the end it may fail
		}
	}, came.Load
}

// honestHost is a member that knows of a revocation.
func honestHost(t *testing.T, s *swarm, revoked crypto.PrivKey) (*host.Host, *host.Gate) {
	t.Helper()
	signed, err := membership.Revoke(s.key, membership.Revocation{Peer: peerID(t, revoked)})
	if err != nil {
		t.Fatal(err)
	}
	set := membership.NewRevocations(s.id)
	if _, err := set.Add(signed); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	return s.gated(t, s.issue(t, key, membership.Seed, time.Hour), key, tcpAny, func(c *host.GateConfig) { c.Revocations, c.HelloWait = set, 0 })
}

// fakeChecker shows a chain and believes anybody.
type fakeChecker struct {
	chain membership.Chain
	heard *atomic.Int64
}

func (f fakeChecker) Chain() membership.Chain                    { return f.chain }
func (f fakeChecker) Check(network.Conn, membership.Chain) error { return nil }
func (f fakeChecker) Admit(network.Conn, membership.Chain, bool) { f.heard.Add(1) }
func (f fakeChecker) Confirm(network.Conn)                       {}

// slowChecker believes when it is told to.
type slowChecker struct {
	fakeChecker
	until chan struct{}
}

func (s slowChecker) Check(network.Conn, membership.Chain) error { <-s.until; return nil }

// A role allows what it allows: no reader reports, and nobody takes one who is
// no supernode for one.
func TestGateRoles(t *testing.T) {
	s := newSwarm(t)
	super, _ := s.member(t, membership.Supernode, tcpAny)
	reader, _ := s.member(t, membership.Reader, tcpAny)
	seed, _ := s.member(t, membership.Seed, tcpAny)
	for _, h := range []*host.Host{super, reader, seed} {
		listenEcho(h, heartbeat.Protocol)
		listenEcho(h, report.Protocol)
	}
	connect(t, reader, super)
	connect(t, seed, super)
	connect(t, seed, reader)
	for _, tc := range []struct {
		name     string
		from, to *host.Host
		proto    protocol.ID
		ok       bool
	}{
		{"reader beats to supernode", reader, super, heartbeat.Protocol, true},
		{"seed beats to supernode", seed, super, heartbeat.Protocol, true},
		{"seed reports to supernode", seed, super, report.Protocol, true},
		{"reader reports to supernode", reader, super, report.Protocol, false},
		{"seed beats to reader", seed, reader, heartbeat.Protocol, false},
		{"reader reports to seed", reader, seed, report.Protocol, false},
	} {
		err := say(t.Context(), tc.from, tc.to.ID(), tc.proto)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v, want success %t", tc.name, err, tc.ok)
		}
	}
}

// A certificate that ends, or is revoked, ends the connection.
func TestGateClosesAtEnd(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	set := membership.NewRevocations(s.id)
	key := newKey(t)
	a, ga := s.gated(t, s.issue(t, key, membership.Seed, time.Hour), key, tcpAny, func(c *host.GateConfig) { c.Revocations = set })

	short := newKey(t)
	b, _ := s.gated(t, s.issue(t, short, membership.Seed, 2*time.Second), short, tcpAny, nil)
	connect(t, b, a)
	until(t, "b is a member", func() bool { return ga.Role(b.ID()) == membership.Seed })
	until(t, "b is none any more", func() bool { return ga.Role(b.ID()) == 0 && !connected(a, b) })

	c, _ := s.member(t, membership.Seed, tcpAny)
	connect(t, c, a)
	until(t, "c is a member", func() bool { return ga.Role(c.ID()) == membership.Seed })
	signed, err := membership.Revoke(s.key, membership.Revocation{Peer: c.ID()})
	if err != nil {
		t.Fatal(err)
	}
	if fresh, err := set.Add(signed); !fresh || err != nil {
		t.Fatalf("add revocation: %t, %v", fresh, err)
	}
	until(t, "c is none any more", func() bool { return ga.Role(c.ID()) == 0 && !connected(a, c) })
}

// A renewed certificate is shown on the connections there are.
func TestGateRenews(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	a, ga := s.member(t, membership.Seed, tcpAny)
	key := newKey(t)
	b, gb := s.gated(t, s.issue(t, key, membership.Reader, 8*time.Second), key, tcpAny, nil)
	connect(t, b, a)
	until(t, "b is a reader", func() bool { return ga.Role(b.ID()) == membership.Reader })
	gb.SetChain(t.Context(), s.issue(t, key, membership.Seed, time.Hour))
	until(t, "b is a seed", func() bool { return ga.Role(b.ID()) == membership.Seed })
	wait := time.NewTimer(9 * time.Second)
	<-wait.C // past the end of the first certificate
	if ga.Role(b.ID()) != membership.Seed || !connected(a, b) {
		t.Error("the renewed member is gone")
	}
}

// A hello that is confirmed late says nothing of a certificate that was shown
// meanwhile.
func TestGateLateConfirmation(t *testing.T) {
	s := newSwarm(t)
	a, ga := s.member(t, membership.Seed, tcpAny)
	key := newKey(t)
	b := newHost(t, host.Config{Key: key})
	connect(t, b, a)
	conn := b.Network().ConnsToPeer(a.ID())[0]
	var heard atomic.Int64
	slow := slowChecker{fakeChecker{s.issue(t, key, membership.Reader, time.Hour), &heard}, make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- membership.Hello(t.Context(), conn, slow) }()
	until(t, "b is a reader", func() bool { return ga.Role(b.ID()) == membership.Reader })
	if err := membership.Hello(t.Context(), conn, fakeChecker{s.issue(t, key, membership.Seed, time.Hour), &heard}); err != nil {
		t.Fatal(err)
	}
	close(slow.until)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	until(t, "both hellos are over at a", func() bool {
		for _, c := range a.Network().ConnsToPeer(b.ID()) {
			for _, st := range c.GetStreams() {
				if st.Protocol() == membership.Protocol {
					return false
				}
			}
		}
		return true
	})
	if r := ga.Role(b.ID()); r != membership.Seed {
		t.Errorf("b is a %s", r)
	}
}

// A hello with a renewed certificate that is lost on the way is said again.
func TestGateSaysHelloAgain(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	a, ga := s.member(t, membership.Seed, tcpAny)
	key := newKey(t)
	b, gb := s.gated(t, s.issue(t, key, membership.Reader, time.Hour), key, tcpAny, nil)
	connect(t, b, a)
	until(t, "b is a reader", func() bool { return ga.Role(b.ID()) == membership.Reader })
	var lost atomic.Bool
	a.SetStreamHandler(membership.Protocol, func(st network.Stream) {
		if lost.CompareAndSwap(false, true) {
			_ = st.Reset()
			return
		}
		_ = membership.Handle(st, ga, nil, s.id)
	})
	gb.SetChain(t.Context(), s.issue(t, key, membership.Seed, time.Hour))
	until(t, "b is a seed", func() bool { return ga.Role(b.ID()) == membership.Seed })
	if !lost.Load() {
		t.Error("no hello was lost")
	}
}

// While no supernode can be reached an ended certificate is good for a time, and
// a clock before the program's own date says nothing.
func TestGateOfflineGraceAndClocks(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	for _, tc := range []struct {
		name    string
		offline bool
		grace   time.Duration
		now     time.Duration
		built   time.Duration
		ok      bool
	}{
		{"in time", false, 0, 0, 0, true},
		{"over", false, time.Hour, 90 * time.Minute, 0, false},
		{"over and offline", true, time.Hour, 90 * time.Minute, 0, true},
		{"over for long and offline", true, time.Hour, 3 * time.Hour, 0, false},
		{"clock of 1970", false, 0, -time.Since(time.Unix(0, 0)), -24 * time.Hour, true},
		{"clock a week behind", false, 0, -7 * 24 * time.Hour, -30 * 24 * time.Hour, false},
		{"clock an hour behind", false, 0, -time.Hour, -30 * 24 * time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key := newKey(t)
			a, _ := s.gated(t, s.issue(t, key, membership.Seed, time.Hour), key, tcpAny, func(c *host.GateConfig) {
				c.Offline, c.Grace = func() bool { return tc.offline }, tc.grace
				c.Now = func() time.Time { return time.Now().Add(tc.now) }
				c.Built = time.Now().Add(tc.built)
				if tc.built == 0 {
					c.Built = time.Time{}
				}
			})
			b, _ := s.member(t, membership.Seed, tcpAny)
			listenEcho(a, echo)
			connect(t, b, a)
			if err := say(t.Context(), b, a.ID(), echo); (err == nil) != tc.ok {
				t.Errorf("a member's stream: %v, want success %t", err, tc.ok)
			}
		})
	}
}

// A host joins over a connection on which it is nobody yet.
func TestGateJoin(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	issuer := issuerFunc(func(from peer.ID, tok membership.Token) (membership.Chain, error) {
		now := time.Now()
		return membership.Issue(s.superKey, s.chain, membership.Certificate{
			Peer: from, Role: tok.Role, NotBefore: now, Expires: now.Add(tok.Lifetime), Token: tok.ID,
		})
	})
	super, gs := s.gated(t, s.chain, s.superKey, tcpAny, func(c *host.GateConfig) { c.Issuer = issuer })
	listenEcho(super, echo)
	s.registry = prometheus.NewRegistry()
	h, g := s.gated(t, nil, newKey(t), tcpAny, nil)
	connect(t, h, super)
	if err := say(t.Context(), h, super.ID(), echo); !errors.Is(err, host.ErrNotMember) {
		t.Fatalf("a stream before the join: %v", err)
	}
	secret, _, err := membership.NewSecret(s.key, membership.Token{Role: membership.Seed, Expires: time.Now().Add(time.Hour), Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := membership.Join(t.Context(), h, super.ID(), secret)
	if err != nil {
		t.Fatal(err)
	}
	g.SetChain(t.Context(), chain)
	if err := say(t.Context(), h, super.ID(), echo); err != nil {
		t.Fatalf("a stream after the join: %v", err)
	}
	if n, err := testutil.GatherAndCount(s.registry, "p2pnode_host_members", "p2pnode_host_refused_streams_total"); err != nil || n != 2 {
		t.Errorf("%d metrics of the gate, %v", n, err)
	}
	if gs.Role(h.ID()) != membership.Seed {
		t.Errorf("role %s after the join", gs.Role(h.ID()))
	}
}

type issuerFunc func(peer.ID, membership.Token) (membership.Chain, error)

func (f issuerFunc) Join(from peer.ID, t membership.Token) (membership.Chain, error) {
	return f(from, t)
}
func (f issuerFunc) Renew(peer.ID, membership.Chain) (membership.Chain, error) {
	return nil, membership.ErrUnable
}

// A member that is refused is not dialled in a tight loop.
func TestGateRefusedIsNotHammered(t *testing.T) {
	t.Parallel()
	s, other := newSwarm(t), newSwarm(t)
	a, _ := s.member(t, membership.Seed, tcpAny)
	var conns atomic.Int64
	a.Network().Notify(&network.NotifyBundle{ConnectedF: func(network.Network, network.Conn) { conns.Add(1) }})
	b, _ := other.member(t, membership.Seed, tcpAny)
	stop := run(t, b, func() []peer.AddrInfo { return []peer.AddrInfo{info(a)} })
	wait := time.NewTimer(4 * time.Second)
	<-wait.C
	stop()
	if n := conns.Load(); n == 0 || n > 6 {
		t.Errorf("%d connections in 4 s, want 1 to 6", n)
	}
}
