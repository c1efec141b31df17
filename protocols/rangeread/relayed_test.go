package rangeread

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// pathHost connects by a relay until direct is set; it counts its streams.
type pathHost struct {
	host.Host
	direct bool
	opened int
	asked  context.Context
}

type pathNetwork struct {
	network.Network
	h *pathHost
}

type pathStream struct {
	memStream
	limited bool
	reset   bool
}

type pathConn struct {
	network.Conn
	limited bool
}

func (h *pathHost) Network() network.Network { return pathNetwork{h: h} }

func (h *pathHost) NewStream(ctx context.Context, _ peer.ID, _ ...protocol.ID) (network.Stream, error) {
	h.opened++
	h.asked = ctx
	return &pathStream{limited: !h.direct}, nil
}

func (n pathNetwork) Connectedness(peer.ID) network.Connectedness {
	if n.h.direct {
		return network.Connected
	}
	return network.Limited
}

func (s *pathStream) Conn() network.Conn { return pathConn{limited: s.limited} }
func (s *pathStream) Reset() error       { s.reset = true; return nil }

func (c pathConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Limited: c.limited}}
}

func TestReadsMoveToTheDirectConnection(t *testing.T) {
	h := &pathHost{}
	c := NewClient(ClientConfig{
		Host: h, Trusted: func(peer.ID) bool { return true }, Far: func(c network.Conn) bool { return c.Stat().Limited },
	})
	p, err := c.enter(t.Context(), "source")
	if err != nil {
		t.Fatal(err)
	}
	take := func() *conn {
		cn, _, err := c.take(t.Context(), "source", p, 0)
		if err != nil {
			t.Fatal(err)
		}
		return cn
	}
	relayed := take()
	if limited, _ := network.GetAllowLimitedConn(h.asked); !limited || !relayed.relayed || !relayed.far {
		t.Fatal("no stream through the relay was asked for")
	}
	c.put(p, relayed, true)
	if take() != relayed {
		t.Error("a relayed stream is not used again while there is nothing better")
	}
	c.put(p, relayed, true)
	h.direct = true
	direct := take()
	if direct == relayed || direct.relayed || direct.far || h.opened != 2 || !relayed.stream.(*pathStream).reset {
		t.Errorf("%d streams, the new one relayed: %v", h.opened, direct.relayed)
	}
	c.put(p, direct, true)
	if take() != direct {
		t.Error("a direct stream is not used again")
	}
}

func TestRefusedConnection(t *testing.T) {
	c := NewClient(ClientConfig{Host: &pathHost{}, Allow: func(c network.Conn) bool { return !c.Stat().Limited }})
	if _, err := c.Open(t.Context(), "source", Request{}); !errors.Is(err, ErrConnection) {
		t.Errorf("error %v", err)
	}
}

// A source is silent when nobody hears it, or one read for much longer.
func TestWhenSourcesAreSilent(t *testing.T) {
	const ticks, now = silenceTicks, 1000
	for name, c := range map[string]struct {
		relayed     bool
		far         bool
		began, peer int64 // ticks before now
		want        bool
	}{
		"in time":                    {began: ticks, peer: ticks},
		"silent":                     {began: ticks + 1, peer: ticks + 1, want: true},
		"never heard":                {began: ticks + 1, peer: now, want: true},
		"read began later":           {began: ticks, peer: 50 * ticks},
		"heard elsewhere":            {began: streamPatience * ticks, peer: 0},
		"heard elsewhere, earlier":   {began: 2 * ticks, peer: ticks + 1, want: true},
		"heard elsewhere, for long":  {began: streamPatience*ticks + 1, peer: 0, want: true},
		"far":                        {far: true, began: farPatience * ticks, peer: now},
		"far, silent":                {far: true, began: farPatience*ticks + 1, peer: now, want: true},
		"relayed":                    {relayed: true, began: relayedPatience * ticks, peer: now},
		"relayed, silent":            {relayed: true, began: relayedPatience*ticks + 1, peer: now, want: true},
		"relayed, heard elsewhere":   {relayed: true, began: relayedPatience * streamPatience * ticks, peer: relayedPatience * ticks},
		"relayed, heard, for longer": {relayed: true, began: relayedPatience*streamPatience*ticks + 1, peer: 0, want: true},
	} {
		var clock, heard atomic.Int64
		clock.Store(now)
		heard.Store(now - c.peer)
		cn := &conn{clock: &clock, peer: &heard, relayed: c.relayed, far: c.far}
		cn.waiting.Store(now - c.began)
		if got := cn.giveUp(); got != c.want {
			t.Errorf("%s: given up: %v", name, got)
		}
		if marked := cn.waiting.Load() == given; marked != c.want {
			t.Errorf("%s: marked: %v", name, marked)
		}
	}
}
