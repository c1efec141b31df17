package host_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/protocols/membership"
)

// rawStreams opens n streams from one host to another that never say which
// protocol they are of, as many as the transport opens, and returns the last.
func rawStreams(t *testing.T, from, to *host.Host, n int) (last network.Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for range n {
		st, err := from.Network().NewStream(ctx, to.ID())
		if err != nil {
			t.Logf("a raw stream: %v", err)
			break
		}
		t.Cleanup(func() { _ = st.Reset() })
		last = st
	}
	return last
}

// silentInbound counts the streams without a protocol that a host holds.
func silentInbound(h *host.Host) (n int) {
	for _, c := range h.Network().Conns() {
		for _, st := range c.GetStreams() {
			if st.Protocol() == "" && st.Stat().Direction == network.DirInbound {
				n++
			}
		}
	}
	return n
}

// Strangers that open streams and do not say what for keep no member out: of each
// a few are taken, and the others reset.
func TestGateHalfOpenStreams(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	key := newKey(t)
	a, g := s.gated(t, s.issue(t, key, membership.Seed, time.Hour), key, tcpAny, func(c *host.GateConfig) { c.HelloWait = time.Minute })
	listenEcho(a, echo)
	const strangers, streams = 25, 250 // 6,250 in all, of 5,120 that there may be
	for range strangers {
		h := newHost(t, host.Config{})
		connect(t, h, a)
		last := rawStreams(t, h, a, streams)
		_ = last.SetReadDeadline(time.Now().Add(patient))
		var reset *network.StreamError
		if _, err := last.Read(make([]byte, 1)); !errors.As(err, &reset) {
			t.Fatalf("the last of a stranger's streams: %v, want that it is reset", err)
		}
	}
	if n := silentInbound(a); n == 0 || n > 8*strangers {
		t.Errorf("%d silent streams are held of %d strangers", n, strangers)
	}
	b, _ := s.member(t, membership.Reader, tcpAny)
	connect(t, b, a)
	if err := say(t.Context(), b, a.ID(), echo); err != nil {
		t.Errorf("a member's stream beside half-open ones: %v", err)
	}
	if g.Role(b.ID()) != membership.Reader {
		t.Errorf("the member's role is %s", g.Role(b.ID()))
	}
}

// The same of members with valid certificates: they share what there is, and
// leave a part of it.
func TestGateHalfOpenStreamsOfMembers(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	a, _ := s.member(t, membership.Seed, tcpAny)
	listenEcho(a, echo)
	for range 4 {
		h, _ := s.member(t, membership.Reader, tcpAny)
		connect(t, h, a)
		if err := say(t.Context(), h, a.ID(), echo); err != nil {
			t.Fatal(err)
		}
		rawStreams(t, h, a, 1600) // what its own limits allow
	}
	until(t, "they are held", func() bool { return silentInbound(a) > 1000 })
	b, _ := s.member(t, membership.Reader, tcpAny)
	connect(t, b, a)
	for range 20 {
		if err := say(t.Context(), b, a.ID(), echo); err != nil {
			t.Fatalf("a member's stream beside half-open ones: %v", err)
		}
	}
}

// Who says nothing gives its place to the next one, and not to the end of the
// wait: silent strangers keep no member out.
func TestGateSilentStrangersGiveWay(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	key := newKey(t)
	a, g := s.gated(t, s.issue(t, key, membership.Seed, time.Hour), key, tcpAny, func(c *host.GateConfig) {
		c.MaxPending, c.HelloWait = 4, time.Hour
	})
	listenEcho(a, echo)
	first := newHost(t, host.Config{})
	connect(t, first, a)
	for range 7 {
		connect(t, newHost(t, host.Config{}), a)
	}
	until(t, "the oldest is gone", func() bool { return !connected(a, first) && len(a.Network().Peers()) == 4 })
	b, _ := s.member(t, membership.Seed, tcpAny)
	connect(t, b, a)
	if err := say(t.Context(), b, a.ID(), echo); err != nil || g.Role(b.ID()) != membership.Seed {
		t.Errorf("a member beside silent strangers: role %s, %v", g.Role(b.ID()), err)
	}
}

// Connections that never say hello get a quarter of the places, leave them to
// members while they hold all of that, and end.
func TestGateMuteConnections(t *testing.T) {
	t.Parallel()
	s := newSwarm(t)
	key := newKey(t)
	g := host.NewGate(host.GateConfig{
		Swarm: s.id, Chain: s.issue(t, key, membership.Seed, time.Hour), Logger: slog.New(slog.DiscardHandler), HelloWait: patient,
	})
	const places = 280 // and no fewer: of 256 and fewer the mute have 64
	a := newHost(t, host.Config{Key: key, Gate: g, MaxPeers: places})
	listenEcho(a, echo)
	for _, h := range p2ptest.Hosts(t, places/4+20) {
		p2ptest.Connect(t, h, a)
	}
	until(t, "the mute have a quarter", func() bool { return len(a.Network().Peers()) == places/4 })
	b, _ := s.member(t, membership.Seed, tcpAny)
	connect(t, b, a)
	if err := say(t.Context(), b, a.ID(), echo); err != nil || g.Role(b.ID()) != membership.Seed {
		t.Errorf("a member beside the mute: role %s, %v", g.Role(b.ID()), err)
	}
	if n := len(a.Network().Peers()); n < places/4 {
		t.Errorf("%d peers are left: the member did not come while the mute held all they may", n)
	}
	p2ptest.Eventually(t, 3*patient, func() bool { return len(a.Network().Peers()) == 1 }, "the mute are gone, and the member is not")
}
