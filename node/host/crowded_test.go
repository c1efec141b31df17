package host

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
)

// standing is a connection from an address.
type standing struct {
	network.Conn
	from multiaddr.Multiaddr
	dir  network.Direction
}

func (s standing) RemoteMultiaddr() multiaddr.Multiaddr { return s.from }
func (s standing) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: s.dir}}
}

// The place of a new connection is that of the oldest one without a hello, of
// the address, or the IPv6 network, with most of them.
func TestGateCrowdedAddress(t *testing.T) {
	const hello, ours = 'h', 'o' // admitted; dialled by this host
	type conn struct {
		from string
		kind byte
	}
	const (
		a1, a2, a3 = "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/2/quic-v1", "/ip4/192.0.2.1/tcp/3"
		b1         = "/ip4/192.0.2.2/tcp/1"
		m1         = "/ip6/::ffff:192.0.2.1/tcp/4"
		x1, x2     = "/ip6/2001:db8:0:1::1/tcp/1", "/ip6/2001:db8:0:2::1/tcp/1"
		y1         = "/ip6/2001:db8:0:100::1/tcp/1"
		relayed    = "/ip4/192.0.2.1/tcp/9/p2p/12D3KooWJRMa1zfaa7NqEqLwGn5FjxVB7YAYyjDzDrMYqTd2YJ7v/p2p-circuit"
	)
	for _, tc := range []struct {
		name  string
		conns []conn // the oldest first
		want  string
	}{
		{"one address has most", []conn{{b1, 0}, {a1, 0}, {a2, 0}}, a1},
		{"also as mapped IPv6", []conn{{b1, 0}, {m1, 0}, {a2, 0}}, m1},
		{"also through a relay there", []conn{{b1, 0}, {relayed, 0}, {a2, 0}}, relayed},
		{"all have as many", []conn{{b1, 0}, {a1, 0}}, b1},
		{"one IPv6 network has most", []conn{{b1, 0}, {y1, 0}, {x1, 0}, {x2, 0}}, x1},
		{"admitted ones are left", []conn{{a1, hello}, {a2, hello}, {b1, 0}, {a3, 0}}, b1},
		{"own ones are left", []conn{{a1, ours}, {a2, ours}, {b1, 0}}, b1},
		{"none", []conn{{a1, ours}, {b1, hello}}, ""},
	} {
		g := NewGate(GateConfig{})
		start := time.Now()
		for i, c := range tc.conns {
			dir := network.DirInbound
			if c.kind == ours {
				dir = network.DirOutbound
			}
			from, err := multiaddr.NewMultiaddr(c.from)
			if err != nil {
				t.Fatal(err)
			}
			g.conns[&standing{from: from, dir: dir}] = &admission{since: start.Add(time.Duration(i) * time.Second), in: c.kind == hello}
		}
		got := ""
		if c := g.crowded(); c != nil {
			got = c.RemoteMultiaddr().String()
		}
		if got != tc.want {
			t.Errorf("%s: %q gives way, want %q", tc.name, got, tc.want)
		}
	}
}
