package host

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// loopHost makes a host that listens on loopback, at an address of a kind.
func loopHost(t *testing.T, listen string, change func(*Config)) *Host {
	t.Helper()
	cfg := Config{Key: key(t), Listen: addrsOf(t, listen)}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// checked waits until no connection is in doubt.
func (h *Host) checked(t *testing.T) {
	t.Helper()
	p2ptest.Eventually(t, 30*time.Second, func() bool {
		h.alive.mu.Lock()
		defer h.alive.mu.Unlock()
		return len(h.alive.asked) == 0
	}, "all connections in doubt were asked")
}

func infoOf(h *Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// TestLeavesAddress: connections from an address that is gone are closed, those of
// QUIC, which may outlive it, only to the peers that the host joins through; others
// stay. Pauses between dials end.
func TestLeavesAddress(t *testing.T) {
	const tcp, quic = "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"
	for _, c := range []struct {
		name, listen string
		bootstrap    bool
		gone         string
		closed       bool
	}{
		{"TCP", tcp, false, "127.0.0.1", true},
		{"QUIC", quic, false, "127.0.0.1", false},
		{"QUIC, to join through", quic, true, "127.0.0.1", true},
		{"from another address", tcp, true, "192.0.2.1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			there := loopHost(t, c.listen, nil)
			moved := 0
			here := loopHost(t, c.listen, func(cfg *Config) {
				cfg.Moved = func() { moved++ }
				if c.bootstrap {
					cfg.Bootstrap = []peer.AddrInfo{infoOf(there)}
				}
			})
			if err := here.Connect(t.Context(), infoOf(there)); err != nil {
				t.Fatal(err)
			}
			conn := here.Network().ConnsToPeer(there.ID())[0]
			lost, at := idOf(t), addrsOf(t, "/ip4/127.0.0.1/tcp/1")
			backoff := here.Network().(*swarm.Swarm).Backoff()
			here.Peerstore().AddAddrs(lost, at, time.Hour)
			backoff.AddBackoff(lost, at[0])
			here.leave([]netip.Addr{netip.MustParseAddr("192.0.2.9")}, []netip.Addr{netip.MustParseAddr(c.gone)}, false)
			if c.closed {
				p2ptest.Eventually(t, 10*time.Second, conn.IsClosed, "the connection is closed")
			} else {
				here.checked(t)
				if conn.IsClosed() {
					t.Error("the connection was closed")
				}
			}
			if backoff.Backoff(lost, at[0]) || moved != 1 {
				t.Errorf("a dial must wait: %v; told of the move %d times", backoff.Backoff(lost, at[0]), moved)
			}
		})
	}
}

// silentConn is a connection that opens streams for nobody, and counts.
type silentConn struct {
	network.Conn
	asked chan struct{}
}

func (c silentConn) NewStream(context.Context) (network.Stream, error) {
	c.asked <- struct{}{}
	return nil, context.DeadlineExceeded
}

// TestAskedOnce: a connection in doubt is asked once at a time, and a host that is
// closed asks nobody.
func TestAskedOnce(t *testing.T) {
	here, there := loopHost(t, "/ip4/127.0.0.1/tcp/0", nil), loopHost(t, "/ip4/127.0.0.1/tcp/0", nil)
	if err := here.Connect(t.Context(), infoOf(there)); err != nil {
		t.Fatal(err)
	}
	c := silentConn{here.Network().ConnsToPeer(there.ID())[0], make(chan struct{})}
	for range 10 {
		here.alive.doubt(c, time.Second)
	}
	<-c.asked
	here.checked(t)
	if c.IsClosed() {
		t.Error("closed because all its streams are in use")
	}
	if err := here.Close(); err != nil {
		t.Error(err)
	}
	here.alive.doubt(c, time.Second)
	here.alive.wait()
}

func TestSighting(t *testing.T) {
	a, b := []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	now := time.Now()
	for _, c := range []struct {
		is              []netip.Addr
		after           time.Duration
		changed, asleep bool
	}{{a, moveLook, false, false}, {b, moveLook, true, false}, {nil, moveLook, true, false}, {a, time.Hour, false, true}} {
		// A wall clock alone, as after a sleep, which the monotonic clock leaves out.
		changed, asleep := sighting{c.is, now.Round(0).Add(c.after)}.since(sighting{a, now})
		if changed != c.changed || asleep != c.asleep {
			t.Errorf("%v after %v: changed %v, asleep %v", c.is, c.after, changed, asleep)
		}
	}
}

func TestRoaming(t *testing.T) {
	var all []netip.Prefix
	for _, s := range []string{"192.0.2.7/24", "127.0.0.1/8", "::1/128", "fe80::1/64", "169.254.1.1/16", "2001:db8::1/64", "10.0.0.1/8", "10.0.0.1/24"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	var got []string
	for _, a := range roaming(all) {
		got = append(got, a.String())
	}
	if want := []string{"10.0.0.1", "192.0.2.7", "2001:db8::1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// stale is a network that remembers an address which the machine had.
type stale struct{ network.Network }

func (stale) InterfaceListenAddresses() ([]multiaddr.Multiaddr, error) {
	return []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/9")}, nil
}

type staleHost struct{ host.Host }

func (h staleHost) Network() network.Network { return stale{h.Host.Network()} }

// TestAnnouncesAddressesOfNow: mDNS is told the machine's addresses as they are,
// not those that the swarm remembers, and anew when they change.
func TestAnnouncesAddressesOfNow(t *testing.T) {
	h := loopHost(t, "/ip4/0.0.0.0/tcp/0", func(c *Config) { c.AllowPublic = true })
	got, err := asOfNow{staleHost{h.Host}}.Network().InterfaceListenAddresses()
	if err != nil || len(got) == 0 || got[0].String() == "/ip4/192.0.2.1/tcp/9" {
		t.Errorf("%v, error %v", got, err)
	}
	h.near = newNear(h, "_p2pnode-test._udp")
	rested := make(chan struct{})
	go func() {
		h.near.rest(t.Context(), time.Hour)
		close(rested)
	}()
	h.leave(nil, nil, false)
	select {
	case <-rested:
	case <-time.After(10 * time.Second):
		t.Error("goes on with the addresses that it had")
	}
}
