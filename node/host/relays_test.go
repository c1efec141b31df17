package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
)

// newRelay returns a relay.
func newRelay(t testing.TB, cfg host.Config, data host.RelayData) *host.Host {
	t.Helper()
	cfg.NAT = &host.NAT{Reach: host.ReachPublic, Relay: true, RelayData: data}
	return newHost(t, cfg)
}

// TestSeveralRelays: a host that nobody can dial reserves at three of the relays
// that it is connected to, and announces itself behind each; when one dies it
// announces that one no more, takes the next, and is reached through it.
func TestSeveralRelays(t *testing.T) {
	t.Parallel()
	natted := newHost(t, host.Config{NAT: &host.NAT{Reach: host.ReachPunchable}})
	listenEcho(natted, echo)
	run(t, natted, func() []peer.AddrInfo { return nil })
	relays := map[peer.ID]*host.Host{}
	for i := range 4 {
		r := newRelay(t, host.Config{}, "")
		relays[r.ID()] = r
		// Relays on loopback are nobody's: this one says that it is elsewhere too.
		natted.Peerstore().AddAddr(r.ID(), maddr(t, fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i+1)), peerstore.PermanentAddrTTL)
		connect(t, natted, r)
	}
	reserved := func() []peer.ID { return natted.NetworkStatus().Relays }
	until(t, "three relays", func() bool { return len(reserved()) == 3 })
	first := reserved()
	for _, id := range first {
		if !slices.ContainsFunc(natted.Announced(), func(a multiaddr.Multiaddr) bool {
			return strings.HasSuffix(a.String(), "/p2p/"+id.String()+"/p2p-circuit")
		}) {
			t.Errorf("%s is not announced: %v", id, natted.Announced())
		}
	}
	dead := first[0]
	if err := relays[dead].Close(); err != nil {
		t.Fatal(err)
	}
	var now []peer.ID
	until(t, "another in its place", func() bool { now = reserved(); return len(now) == 3 && !slices.Contains(now, dead) })
	if a := fmt.Sprint(natted.Announced()); strings.Contains(a, dead.String()) {
		t.Errorf("the dead one is announced: %s", a)
	}
	next := now[slices.IndexFunc(now, func(id peer.ID) bool { return !slices.Contains(first, id) })]
	reader := newHost(t, host.Config{NAT: &host.NAT{}})
	through(t, reader, relays[next], natted)
	if err := say(network.WithAllowLimitedConn(t.Context(), "test"), reader, natted.ID(), echo); err != nil {
		t.Errorf("through the relay that took its place: %v", err)
	}
}

// through connects a host to another, which has a reservation, over a relay. It
// dials until it has come through: the library gives a dial 5 s, which is not much
// where all tests run at once.
func through(t testing.TB, from, relay, to *host.Host) {
	t.Helper()
	addr := maddr(t, info(relay).Addrs[0].String()+"/p2p/"+relay.ID().String()+"/p2p-circuit")
	until(t, "a connection through the relay", func() bool {
		return from.Connect(network.WithAllowLimitedConn(t.Context(), "test"), peer.AddrInfo{ID: to.ID(), Addrs: []multiaddr.Multiaddr{addr}}) == nil
	})
}

// TestRelayData: a relay that carries no files ends a circuit after a megabyte, and
// says so at its beginning; the others carry more; all count what they carry.
func TestRelayData(t *testing.T) {
	t.Parallel()
	const carried = 3 << 19 // bytes: more than a circuit for control takes
	for _, policy := range host.RelayDataPolicies {
		t.Run(string(policy), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			relay := newRelay(t, host.Config{Registerer: reg}, policy)
			a, b := newHost(t, host.Config{NAT: &host.NAT{Reach: host.ReachRelayed}}), newHost(t, host.Config{NAT: &host.NAT{}})
			got := make(chan int64, 1)
			a.SetStreamHandler("/test/sink", func(s network.Stream) {
				n, _ := io.Copy(io.Discard, s)
				_ = s.Close()
				got <- n
			})
			connect(t, a, relay)
			if _, err := client.Reserve(t.Context(), a, info(relay)); err != nil {
				t.Fatal(err)
			}
			through(t, b, relay, a)
			conn := b.Network().ConnsToPeer(a.ID())[0]
			limit, _ := conn.Stat().Extra[client.StatLimitData].(uint64)
			if files := limit >= host.FileCircuit; !conn.Stat().Limited || files != (policy != host.RelayOff) {
				t.Errorf("a circuit for files: %v (limited %v, to %d bytes)", files, conn.Stat().Limited, limit)
			}
			s, err := b.NewStream(network.WithAllowLimitedConn(t.Context(), "test"), a.ID(), "/test/sink")
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(s, bytes.NewReader(make([]byte, carried)))
			_ = s.Close()
			n := <-got
			if whole := n == carried; whole != (policy != host.RelayOff) {
				t.Errorf("%d of %d bytes came: %v", n, carried, err)
			}
			until(t, "the relay counts what it carries", func() bool { return relayed(t, reg) >= float64(n) })
		})
	}
}

// relayed returns the bytes that a relay has counted.
func relayed(t testing.TB, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "p2pnode_host_relayed_bytes_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// TestReservationsOfASite: all nodes of a site of a hundred have a place at a relay,
// though they come from one address; those over its bound do not. It leaves the
// processors to no other test: a dial has 5 s.
func TestReservationsOfASite(t *testing.T) {
	const nodes = 100
	relay := newRelay(t, host.Config{MaxPeers: nodes}, "")
	refused := 0
	for _, h := range p2ptest.Hosts(t, nodes+1) {
		relay.ConnManager().Protect(h.ID(), "test") // who came first stays, however long the last takes
		until(t, "the relay's answer", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			if h.Connect(ctx, info(relay)) != nil {
				return false
			}
			_, err := client.Reserve(ctx, h, info(relay))
			var answer client.ReservationError
			if errors.As(err, &answer) && answer.Status == pb.Status_RESERVATION_REFUSED {
				refused++
				return true
			}
			return err == nil
		})
	}
	if refused != 1 {
		t.Errorf("%d of %d were refused by a relay of %d", refused, nodes+1, nodes)
	}
}
