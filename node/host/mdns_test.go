package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

func addrsOf(t *testing.T, texts ...string) []multiaddr.Multiaddr {
	t.Helper()
	var out []multiaddr.Multiaddr
	for _, s := range texts {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func idOf(t *testing.T) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// onTestLink says that 10.0.0.0/16 and loopback are links of this machine.
func onTestLink(a multiaddr.Multiaddr) bool {
	return strings.HasPrefix(a.String(), "/ip4/10.0.") || strings.HasPrefix(a.String(), "/ip4/127.")
}

// TestHearsOfTheLinkAlone: whoever speaks on the LAN cannot make a host dial
// anything that is not on it.
func TestHearsOfTheLinkAlone(t *testing.T) {
	k := newKeeper(t, 0)
	n := newNear(k.h, "_p2pnode-test._udp")
	id := idOf(t)
	n.hear(peer.AddrInfo{ID: id, Addrs: addrsOf(t, "/ip4/192.0.2.1/tcp/9", "/ip4/127.0.0.1/tcp/9", "/ip4/10.0.0.1/udp/9")}, onTestLink)
	n.hear(peer.AddrInfo{ID: k.h.ID(), Addrs: addrsOf(t, "/ip4/10.0.0.9/tcp/9")}, onTestLink)
	if len(n.found) != 0 || n.isKnown(id) || n.isKnown(k.h.ID()) || len(k.h.Peerstore().Addrs(id)) != 0 {
		t.Error("an address that is not of the link, or the host itself, was taken for a neighbour's")
	}
	n.hear(peer.AddrInfo{ID: id, Addrs: addrsOf(t, "/ip4/192.0.2.1/tcp/9", "/ip4/10.0.0.1/tcp/9", "/ip4/10.0.0.1/udp/9/quic-v1")}, onTestLink)
	if len(n.found) != 1 || !n.isKnown(id) {
		t.Fatal("a neighbour was not found")
	}
	if got := fmt.Sprint((<-n.found).Addrs); got != "[/ip4/10.0.0.1/tcp/9 /ip4/10.0.0.1/udp/9/quic-v1]" {
		t.Errorf("found at %s", got)
	}
}

// TestHearsOfManyInBoundedSpace: one who pretends to be many fills a table, and
// no more; who is connected keeps its place there.
func TestHearsOfManyInBoundedSpace(t *testing.T) {
	k := newKeeper(t, 0)
	n := newNear(k.h, "_p2pnode-test._udp")
	neighbour := p2ptest.Hosts(t, 1)[0]
	p2ptest.Connect(t, k.h, neighbour)
	n.hear(peer.AddrInfo{ID: neighbour.ID(), Addrs: addrsOf(t, "/ip4/10.0.0.3/tcp/9")}, onTestLink)
	for range maxNear + 20 {
		n.hear(peer.AddrInfo{ID: idOf(t), Addrs: addrsOf(t, "/ip4/10.0.0.1/tcp/9")}, onTestLink)
	}
	if len(n.known) > maxNear || len(n.found) > maxNear {
		t.Errorf("%d peers are remembered, %d wait", len(n.known), len(n.found))
	}
	if !n.isKnown(neighbour.ID()) {
		t.Error("a neighbour that is connected lost its place")
	}
	last := peer.AddrInfo{ID: idOf(t), Addrs: addrsOf(t, "/ip4/10.0.0.2/tcp/9")}
	n.hear(last, onTestLink)
	if !n.isKnown(last.ID) {
		t.Error("there is no room for a neighbour, though nobody is connected")
	}
}

// TestFoundPeersAreDialled: what was found is dialled, the last first; those that
// do not answer give way, and do not take the places of saved ones.
func TestFoundPeersAreDialled(t *testing.T) {
	k := newKeeper(t, 20)
	var found []peer.ID
	for range 2 * maxSavedDials {
		info := peer.AddrInfo{ID: idOf(t), Addrs: addrsOf(t, "/ip4/10.0.0.1/tcp/9")}
		found = append(found, info.ID)
		k.meet(info)
		k.meet(info) // heard again
	}
	due := map[peer.ID]bool{}
	for _, d := range k.step(time.Now()) {
		due[d.ID] = true
	}
	for i, id := range found {
		if last := i >= maxSavedDials; due[id] != last {
			t.Errorf("found peer %d is dialled: %v", i, due[id])
		}
	}
	if len(due) != 2*maxSavedDials {
		t.Errorf("%d are dialled, want as many saved ones as found ones", len(due))
	}
	now := time.Now()
	for range savedTries {
		for id := range due {
			k.dialed(dialed{id, errors.New("refused")}, now)
		}
	}
	for _, d := range k.step(now) {
		due[d.ID] = true
	}
	for i, id := range found {
		if !due[id] {
			t.Errorf("found peer %d got no turn after the others failed", i)
		}
	}
}

// TestBackFromACut: while nobody beyond the machine's links is connected the pauses
// stay short, and once one is back all others are tried.
func TestBackFromACut(t *testing.T) {
	k, other := newKeeper(t, 0), newKeeper(t, 0)
	back := peer.AddrInfo{ID: other.h.ID(), Addrs: addrsOf(t, "/ip4/127.0.0.1/tcp/1")}
	rest := peer.AddrInfo{ID: idOf(t), Addrs: addrsOf(t, "/ip4/127.0.0.1/tcp/2")}
	site := peer.AddrInfo{ID: idOf(t), Addrs: addrsOf(t, "/ip4/127.0.0.1/tcp/3")}
	k.h.cfg.Bootstrap, k.h.cfg.Site = []peer.AddrInfo{back, rest}, []peer.AddrInfo{site}
	now := time.Now()
	for range 10 {
		due := k.step(now)
		if len(due) != 3 {
			t.Fatalf("%d are dialled, want all three", len(due))
		}
		for _, d := range due {
			k.dialed(dialed{d.ID, errors.New("unreachable")}, now)
		}
		now = now.Add(3 * urgentPause / 2)
	}
	if err := other.h.Network().Listen(addrsOf(t, "/ip4/127.0.0.1/tcp/0")...); err != nil {
		t.Fatal(err)
	}
	k.step(now) // all are being dialled
	for _, id := range []peer.ID{back.ID, rest.ID, site.ID} {
		k.dialed(dialed{id, errors.New("unreachable")}, now)
	}
	if err := k.h.Connect(t.Context(), peer.AddrInfo{ID: other.h.ID(), Addrs: other.h.Addrs()}); err != nil {
		t.Fatal(err)
	}
	k.step(now)
	if due := k.step(now.Add(backPause)); len(due) != 2 {
		t.Errorf("%d are dialled soon after one is back, want the two others", len(due))
	}
}
