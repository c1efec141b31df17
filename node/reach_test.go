package node

import (
	"testing"

	"github.com/p2pnode/p2pnode/node/host"
)

// TestNAT: what a configuration says of NAT is what the host does: a node with
// --relay is a relay, and public at once; a router is asked for a port unless that
// is switched off; on loopback there is nothing to do. A supernode is a relay.
func TestNAT(t *testing.T) {
	lan := []string{"/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"}
	plain := Config{Listen: lan, PortMapping: true}
	relay, told, noMapping, loopback := plain, plain, plain, plain
	relay.Relay, relay.RelayData = true, "off"
	told.Relay, told.Reachability = true, "punchable"
	noMapping.PortMapping = false
	loopback.Listen = lan[:1]
	for _, c := range []struct {
		name string
		got  *host.NAT
		want *host.NAT
	}{
		{"daemon", plain.nat(), &host.NAT{PortMapping: true}},
		{"relay", relay.nat(), &host.NAT{Reach: host.ReachPublic, PortMapping: true, Relay: true, RelayData: host.RelayOff}},
		{"relay that is told where it stands", told.nat(), &host.NAT{Reach: host.ReachPunchable, PortMapping: true, Relay: true}},
		{"no port mapping", noMapping.nat(), &host.NAT{}},
		{"loopback", loopback.nat(), nil},
		{"supernode", supernodeNAT(lan, "unlimited"), &host.NAT{Reach: host.ReachPublic, Relay: true, RelayData: host.RelayUnlimited}},
		{"supernode on loopback", supernodeNAT(lan[:1], ""), nil},
	} {
		if (c.got == nil) != (c.want == nil) || c.got != nil && *c.got != *c.want {
			t.Errorf("%s: %+v, want %+v", c.name, c.got, c.want)
		}
	}
}
