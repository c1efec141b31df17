package node

import (
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/control"
	"github.com/p2pnode/p2pnode/node/host"
	"github.com/p2pnode/p2pnode/seed"
)

func TestDiagnose(t *testing.T) {
	const super, other = peer.ID("super"), peer.ID("other")
	const quicAddr, ip6Addr = "/ip4/11.0.0.2/udp/1/quic-v1", "/ip6/2600::1/udp/1/quic-v1"
	ms := func(n float64) *float64 { return &n }
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	fine := func() (Status, Machine) {
		return Status{
			Network: host.Network{
				Reachability: "punchable", TCP: host.MapSame, UDP: host.MapSame, Outside: []string{"11.0.0.1"}, Relays: []peer.ID{super, "more"},
				Paths: []host.Path{{Peer: super, How: host.Direct, Transport: "quic", Addr: quicAddr}, {Peer: other, How: host.Punched, Transport: "tcp", Addr: "/ip4/11.0.0.3/tcp/1"}},
			},
			Supernodes: []control.Status{{Supernode: super, Connected: true, AckMs: 900, RTTMs: 20, ClockMs: ms(29_000)}, {Supernode: "old", Connected: true}},
			Store:      seed.Stats{Free: 1 << 30, Capacity: 2 << 30},
		}, Machine{Now: now, Built: now.Add(-time.Hour), MTU: 1500, PathMTU: map[string]int{quicAddr: 1308}}
	}
	for _, c := range []struct {
		name, check, says string // the problem; "" for none
		change            func(*Status, *Machine)
	}{
		{"fine", "", "", func(*Status, *Machine) {}},
		{"symmetric", "reachability", "a port for each", func(s *Status, _ *Machine) { s.Network.Reachability = "relayed" }},
		{"no relay", "relays", "reserved at 0", func(s *Status, _ *Machine) { s.Network.Relays = nil }},
		{"public needs no relay", "", "", func(s *Status, _ *Machine) { s.Network.Reachability, s.Network.Relays = "public", nil }},
		{"UDP blocked", "udp", "blocked", func(s *Status, _ *Machine) { s.Network.Paths[0].Transport = "tcp" }},
		{"never answered", "supernode", "never", func(s *Status, _ *Machine) { s.Supernodes[0].AckMs = -1 }},
		{"silent", "supernode", "silent for 70 s", func(s *Status, _ *Machine) { s.Supernodes[0].Connected, s.Supernodes[0].AckMs = false, 70_000 }},
		{"peer relayed", "peer", "no luck", func(s *Status, _ *Machine) {
			s.Network.Paths[1] = host.Path{Peer: other, How: host.Relayed, Relay: super, Attempts: 3, LastError: "no\nluck"}
		}},
		{"peer gone", "peer", "not connected", func(s *Status, _ *Machine) { s.Network.Paths = s.Network.Paths[:1] }},
		{"clock", "clock", "before this program", func(_ *Status, m *Machine) { m.Now = m.Built.Add(-time.Hour) }},
		{"clock ahead of the supernode's", "clock", "that of " + super.String() + " is 30011.0 ms behind, give or take 10.0", func(s *Status, _ *Machine) { s.Supernodes[0].ClockMs = ms(-30_011) }},
		{"clock behind the supernode's", "clock", "30011.0 ms ahead", func(s *Status, _ *Machine) { s.Supernodes[0].ClockMs = ms(30_011) }},
		{"clock as far as can be told", "", "", func(s *Status, _ *Machine) { s.Supernodes[0].ClockMs = ms(30_009) }},
		{"clock not told", "", "", func(s *Status, _ *Machine) { s.Supernodes[0].ClockMs = nil }},
		{"disk", "disk", "0 MiB free", func(s *Status, _ *Machine) { s.Store.Free = 0 }},
		{"disk used by blocks", "", "", func(s *Status, _ *Machine) { s.Store.Free, s.Store.Used = 0, s.Store.Capacity }},
		{"MTU", "mtu", "1000", func(_ *Status, m *Machine) { m.MTU = 1000 }},
		{"MTU of the path", "mtu", "to " + super.String() + " 1307", func(_ *Status, m *Machine) { m.PathMTU[quicAddr] = 1307 }},
		{"MTU of a path of IPv6", "mtu", "1308", func(s *Status, m *Machine) { s.Network.Paths[0].Addr, m.PathMTU[ip6Addr] = ip6Addr, 1308 }},
		{"MTU of a relayed path", "", "", func(s *Status, m *Machine) {
			s.Network.Paths = append(s.Network.Paths[1:], host.Path{Peer: super, How: host.Relayed, Addr: quicAddr})
			s.Network.Paths[0].Transport = "quic"
			m.PathMTU[quicAddr] = 100
		}},
		{"no path MTU known", "", "", func(_ *Status, m *Machine) { m.PathMTU = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, m := fine()
			c.change(&s, &m)
			found := false
			for _, f := range Diagnose(s, m, other) {
				if !f.Problem {
					continue
				}
				if f.Check != c.check || !strings.Contains(f.Says, c.says) || f.Do == "" {
					t.Errorf("unexpected problem, or none of what to do: %+v", f)
				}
				found = true
			}
			if found != (c.check != "") {
				t.Errorf("a problem was found: %v, want %q", found, c.check)
			}
		})
	}
}
