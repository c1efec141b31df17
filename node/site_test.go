package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestInferSite: the name of a site by what speaks for it.
func TestInferSite(t *testing.T) {
	ip := netip.MustParseAddr
	none := sight{swarm: "swarm", self: "self"}
	seen := func(s sight, addr string) sight { s.uplink = ip(addr); return s }
	by := func(s sight, names ...string) sight {
		s.names = map[peer.ID]string{}
		for i, name := range names {
			id := peer.ID(rune('a' + i))
			s.near = append(s.near, id)
			s.names[id] = name
		}
		return s
	}
	uplink := seen(none, "11.0.0.1").infer(site{})
	lan := by(none, "").infer(site{})
	if !strings.HasPrefix(uplink.name, "auto-u-") || uplink.from != siteUplink || !strings.HasPrefix(lan.name, "auto-l-") || lan.from != siteLAN {
		t.Fatalf("by address %+v, by LAN %+v", uplink, lan)
	}
	for _, c := range []struct {
		what string
		in   sight
		now  site
		want site
	}{
		{"nothing", none, site{}, site{}},
		{"nothing any more: the uplink is cut", none, uplink, uplink},
		{"the same address, another node", seen(sight{swarm: "swarm", self: "other"}, "11.0.0.1"), site{}, uplink},
		{"a neighbour of that site, started during a cut", by(none, "", uplink.name), site{}, site{uplink.name, siteLAN}},
		{"a name that a neighbour was given", by(seen(none, "11.0.0.1"), "", "paris"), uplink, site{"paris", siteLAN}},
		{"two names that neighbours were given", by(none, "rome", "paris"), site{}, site{"paris", siteLAN}},
		{"neighbours on a LAN agree on the smallest", by(none, "auto-l-2", "auto-l-1"), site{}, site{"auto-l-1", siteLAN}},
		{"and keep it", by(none, "auto-l-2", ""), site{"auto-l-1", siteLAN}, site{"auto-l-1", siteLAN}},
		{"and take a smaller one", by(none, "auto-l-1"), site{"auto-l-2", siteLAN}, site{"auto-l-1", siteLAN}},
		{"the neighbours have gone", none, lan, lan},
		{"an address beats a LAN's own name", by(seen(none, "11.0.0.1"), lan.name), lan, uplink},
		{"an address's name, kept through a cut, beats a LAN's own", by(none, "auto-l-1"), site{"auto-u-1", siteUplink}, site{"auto-u-1", siteLAN}},
		{"two that took each other's name keep the smaller: this one's", by(none, "rome"), site{"paris", siteLAN}, site{"paris", siteLAN}},
		{"two that took each other's name keep the smaller: the other's", by(none, "paris"), site{"rome", siteLAN}, site{"paris", siteLAN}},
		{"the address changed", seen(none, "11.0.0.1"), site{"auto-u-other", siteUplink}, uplink},
	} {
		if got := c.in.infer(c.now); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
	if other := seen(none, "11.0.0.2").infer(site{}); other == uplink {
		t.Error("two addresses are one site")
	}
	if other := seen(sight{swarm: "another"}, "11.0.0.1").infer(site{}); other == uplink {
		t.Error("two swarms have the same name for an address: who knows one knows the other")
	}
	first, second := by(none, "").infer(site{}), sight{swarm: "swarm", self: "a", near: []peer.ID{"self"}}.infer(site{})
	if first != second {
		t.Errorf("two neighbours that start together call their site %+v and %+v", first, second)
	}
}
