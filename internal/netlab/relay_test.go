//go:build linux

package netlab_test

import (
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/netlab"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// TestRelayRestarts: the supernode, which is the only relay, is killed and
// started again; nodes that nobody reaches but through it are reached again.
func TestRelayRestarts(t *testing.T) {
	needLab(t)
	const within = 15 * time.Second
	w := newWorld(t)
	data := p2ptest.Bytes(72, 8<<20)
	url := w.add("/file", data)
	seed := w.daemon(w.Place("a", netlab.Symmetric))
	reader := w.daemon(w.Place("b", netlab.Symmetric), "--seed=false")
	seed.until(20*time.Second, "a reservation", func(s status) bool { return len(s.Pool) == 1 && len(s.Network.Relays) == 1 })
	if _, err := seed.read(url, data, readWithin); err != nil {
		t.Fatal(err)
	}
	reader.until(30*time.Second, "a way to the seed", func(s status) bool { _, ok := s.to(seed.Peer); return ok })
	w.supernode.kill()
	reader.until(time.Minute, "the loss of the way", func(s status) bool { _, ok := s.to(seed.Peer); return !ok })
	w.supernode.launch()
	back := time.Now()
	reader.until(within, "the way back", func(s status) bool { p, ok := s.to(seed.Peer); return ok && p.How == "relayed" })
	t.Logf("reachable again %v after the relay's start", time.Since(back))
	source, err := reader.read(url, data, readWithin)
	if err != nil || source != "peer" {
		t.Errorf("read from %q: %v", source, err)
	}
	if took := time.Since(back); took > 2*within {
		t.Errorf("read %v after the relay's start", took)
	}
}

// TestAddressChanges: a seed behind NAT gets another address on its LAN, and one
// on the public segment; it goes on without a restart.
func TestAddressChanges(t *testing.T) {
	needLab(t)
	w := newWorld(t)
	data := p2ptest.Bytes(73, 4<<20)
	other := p2ptest.Bytes(74, 4<<20)
	url, url2 := w.add("/file", data), w.add("/other", other)
	site := w.NAT("site", netlab.PortPreserving)
	at := site.Host("a")
	seed := w.daemon(at)
	reader := w.daemon(w.Place("b", netlab.Public), "--seed=false")
	for _, u := range []struct {
		url  string
		data []byte
	}{{url, data}, {url2, other}} {
		if _, err := seed.read(u.url, u.data, readWithin); err != nil {
			t.Fatal(err)
		}
	}
	reader.until(30*time.Second, "a way to the seed", func(s status) bool { _, ok := s.to(seed.Peer); return ok })
	if _, err := reader.read(url, data, readWithin); err != nil {
		t.Fatal(err)
	}
	site.Readdress(at, 77)
	moved := time.Now()
	seed.until(30*time.Second, "the new address", func(s status) bool {
		for _, a := range s.Addrs {
			if len(a) > len("/ip4/"+at.IP) && a[:len("/ip4/"+at.IP)] == "/ip4/"+at.IP {
				return len(s.Network.Relays) > 0
			}
		}
		return false
	})
	reader.until(45*time.Second, "the way to the moved seed", func(s status) bool { p, ok := s.to(seed.Peer); return ok && p.How != "relayed" })
	for {
		source, err := reader.read(url2, other, readWithin)
		if err == nil && source == "peer" {
			break
		}
		// A source that was silent while it moved is asked last for a while.
		if time.Since(moved) > 45*time.Second {
			t.Fatalf("read from %q: %v", source, err)
		}
		wait(500 * time.Millisecond)
	}
	t.Logf("moved and read in %v", time.Since(moved))
}
