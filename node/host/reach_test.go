package host

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// saw makes a sight: observer i saw local as seen.
func saw(i int, udp bool, local, seen string) sight {
	return sight{
		observer: peer.ID(rune('a' + i)), by: netip.AddrFrom4([4]byte{11, 0, 0, byte(i)}), udp: udp,
		local: netip.MustParseAddrPort(local), seen: netip.MustParseAddrPort(seen),
	}
}

func TestReachability(t *testing.T) {
	const in, out = "10.0.0.2:65000", "12.0.0.1:65000"
	for _, c := range []struct {
		name     string
		sights   []sight
		want     Reachability
		tcp, udp Mapping
	}{
		{"nothing seen", nil, ReachUnknown, MapUnknown, MapUnknown},
		{"on a LAN", []sight{saw(1, false, in, in), saw(2, true, in, in)}, ReachUnknown, MapNone, MapNone},
		{"port kept", []sight{saw(1, false, in, out), saw(2, true, in, out)}, ReachPunchable, MapSame, MapSame},
		{"another port for all", []sight{saw(1, true, in, "12.0.0.1:9"), saw(2, true, in, "12.0.0.1:9")}, ReachPunchable, MapUnknown, MapSame},
		{"another port, one observer", []sight{saw(1, true, in, "12.0.0.1:9")}, ReachPunchable, MapUnknown, MapUnknown},
		{"a port for each", []sight{saw(1, true, in, "12.0.0.1:9"), saw(2, true, in, "12.0.0.1:8")}, ReachRelayed, MapUnknown, MapPerDestination},
		{"a port for each, TCP kept", []sight{saw(1, true, in, "12.0.0.1:9"), saw(2, true, in, "12.0.0.1:8"), saw(3, false, in, out)}, ReachPunchable, MapSame, MapPerDestination},
		{"a neighbour and the world", []sight{saw(1, false, in, in), saw(2, false, in, out)}, ReachPunchable, MapSame, MapUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReach(ReachUnknown)
			r.own = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.0.0.2")} }
			for _, s := range c.sights {
				r.add(s)
			}
			tcp, udp := r.mappings()
			if got := r.now(); got != c.want || tcp != c.tcp || udp != c.udp {
				t.Errorf("%q, TCP %s, UDP %s; want %q, %s, %s", got, tcp, udp, c.want, c.tcp, c.udp)
			}
		})
	}
}

func TestReachabilityByAutoNAT(t *testing.T) {
	r := newReach(ReachUnknown)
	r.own = func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("12.0.0.9")}
	}
	mapped := multiaddr.StringCast("/ip4/12.0.0.1/tcp/65000")
	lan := multiaddr.StringCast("/ip4/10.0.0.2/tcp/65000")
	own := multiaddr.StringCast("/ip4/12.0.0.9/tcp/65000")
	circuit := multiaddr.StringCast("/ip4/12.0.0.5/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5/p2p-circuit")
	all := []multiaddr.Multiaddr{mapped, lan, own, circuit}
	r.add(saw(1, false, "10.0.0.2:65000", "12.0.0.1:65000"))
	if got := r.dialable(all); len(got) != 3 || multiaddr.Contains(got, mapped) {
		t.Errorf("before AutoNAT %v are told", got)
	}
	r.confirmed(event.EvtHostReachableAddrsChanged{Reachable: []multiaddr.Multiaddr{mapped}})
	if got := r.dialable(all); len(got) != 4 || r.now() != ReachPublic {
		t.Errorf("confirmed: %v, %q", got, r.now())
	}
	r.sights = nil
	r.confirmed(event.EvtHostReachableAddrsChanged{Unreachable: []multiaddr.Multiaddr{own}})
	if r.now() != ReachPunchable {
		t.Errorf("behind a firewall: %q", r.now())
	}
	if forced := newReach(ReachRelayed); forced.now() != ReachRelayed {
		t.Error("a setting does not count")
	}
}

func TestSightsAreBoundedAndPruned(t *testing.T) {
	r := newReach(ReachUnknown)
	own := netip.MustParseAddr("10.0.0.2")
	r.own = func() []netip.Addr { return []netip.Addr{own} }
	for i := range 2 * maxSights {
		r.add(saw(i, false, "10.0.0.2:65000", "12.0.0.1:65000"))
	}
	if len(r.sights) != maxSights {
		t.Errorf("%d sights", len(r.sights))
	}
	r.prune()
	if len(r.sights) == 0 {
		t.Error("forgot what was seen without a move")
	}
	own = netip.MustParseAddr("10.0.0.3")
	if moved := r.prune(); !moved || len(r.sights) != 0 || r.now() != ReachUnknown {
		t.Errorf("after a move %d sights, %q", len(r.sights), r.now())
	}
}

// TestPrunesWhatIsGone: an address more or less beside the one that peers saw, a
// container's for example, takes nothing away, also where a socket does not say
// from where it speaks, and what was seen at a new address stays.
func TestPrunesWhatIsGone(t *testing.T) {
	r := newReach(ReachUnknown)
	was, is, other := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("172.17.0.1")
	own := []netip.Addr{was}
	r.own = func() []netip.Addr { return own }
	for i, udp := range []bool{false, true} {
		local := "10.0.0.2:65000"
		if udp {
			local = "0.0.0.0:65000"
		}
		s := saw(i, udp, local, "12.0.0.1:65000")
		if udp {
			s.from = was
		}
		r.add(s)
	}
	for _, own = range [][]netip.Addr{{was, other}, {was}} {
		if r.prune() || len(r.sights) != 2 {
			t.Fatalf("of 2 sights %d are left", len(r.sights))
		}
	}
	own = []netip.Addr{is}
	r.add(saw(2, false, "10.0.0.3:65000", "12.0.0.1:65000"))
	if !r.prune() || len(r.sights) != 1 || r.now() != ReachPunchable {
		t.Errorf("after a move %d sights, %q; want that of the new address", len(r.sights), r.now())
	}
}

func TestSourceTo(t *testing.T) {
	if got := sourceTo(netip.MustParseAddrPort("127.0.0.1:9")); !got.IsLoopback() {
		t.Errorf("to loopback this host speaks from %s", got)
	}
}

func TestOffersWhatWasSeenAndGuessesTheRest(t *testing.T) {
	h, err := New(Config{Key: key(t), AllowPublic: true, NAT: &NAT{}, Listen: []multiaddr.Multiaddr{
		multiaddr.StringCast("/ip4/0.0.0.0/tcp/0"), multiaddr.StringCast("/ip4/0.0.0.0/udp/0/quic-v1"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	local := map[bool]string{}
	for _, a := range h.Network().ListenAddresses() {
		if at, udp, ok := addrPort(a); ok {
			local[udp] = "10.0.0.2:" + strconv.Itoa(int(at.Port()))
		}
	}
	offered := func() map[string]bool {
		out := map[string]bool{}
		for _, a := range h.nat.puncher.offers() {
			if a[0].String() == "/ip4/12.0.0.1" {
				out[a.String()] = true
			}
		}
		return out
	}
	h.nat.reach.add(saw(1, true, local[true], "12.0.0.1:9"))
	guess := "/ip4/12.0.0.1/tcp/" + local[false][len("10.0.0.2:"):]
	if got := offered(); len(got) != 2 || !got["/ip4/12.0.0.1/udp/9/quic-v1"] || !got[guess] {
		t.Errorf("offered %v, want what was seen and %s", got, guess)
	}
	h.nat.reach.add(saw(2, false, "10.0.0.2:7", "12.0.0.1:7"))
	h.nat.reach.add(saw(3, false, "10.0.0.2:7", "12.0.0.1:8"))
	if got := offered(); len(got) != 1 {
		t.Errorf("guessed a port of a symmetric NAT: %v", got)
	}
}

// TestUplink: the public address that most peers saw; what was seen from inside
// does not count.
func TestUplink(t *testing.T) {
	const in = "10.0.0.2:65000"
	for _, c := range []struct {
		name   string
		sights []sight
		want   string
	}{
		{"nothing seen", nil, ""},
		{"on a LAN", []sight{saw(1, false, in, in), saw(2, true, in, "192.168.0.2:65000")}, ""},
		{"behind a carrier's NAT, seen from inside it", []sight{saw(1, false, in, "100.64.0.9:65000")}, ""},
		{"one", []sight{saw(1, false, in, "12.0.0.1:65000"), saw(2, true, in, "192.168.0.2:65000")}, "12.0.0.1"},
		{"one liar", []sight{saw(1, true, in, "12.0.0.9:9"), saw(1, false, in, "12.0.0.9:9"), saw(2, true, in, "12.0.0.10:9"), saw(3, true, in, "12.0.0.10:8")}, "12.0.0.10"},
		{"a stranger before he is turned away", []sight{saw(7, true, in, "12.0.0.9:9"), saw(8, true, in, "12.0.0.9:9"), saw(2, true, in, "12.0.0.10:9")}, "12.0.0.10"},
		{"this host's own, and one liar", []sight{saw(1, true, in, "12.0.0.9:9"), saw(2, true, in, "12.0.0.77:9"), saw(3, true, in, "12.0.0.77:9")}, ""},
		{"as many saw another", []sight{saw(1, true, in, "12.0.0.10:9"), saw(2, true, in, "12.0.0.9:9")}, "12.0.0.9"},
	} {
		r := newReach(ReachUnknown)
		r.own = func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("12.0.0.77")}
		}
		strangers := map[peer.ID]bool{saw(7, true, in, in).observer: true, saw(8, true, in, in).observer: true}
		for _, s := range c.sights {
			r.add(s)
		}
		got, ok := r.uplink(func(id peer.ID) bool { return !strangers[id] })
		if ok != (c.want != "") || ok && got.String() != c.want || !ok && got.IsValid() {
			t.Errorf("%s: %v, %v, want %q", c.name, got, ok, c.want)
		}
	}
}
