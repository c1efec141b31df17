package node

import (
	"regexp"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestMDNSService: swarms do not meet on a LAN, and a name on the wire is one that
// RFC 6335 allows and says of no swarm which one it is.
func TestMDNSService(t *testing.T) {
	name := func(swarm, label string, on bool, listen ...string) string {
		n := Node{cfg: Config{MDNS: on, Swarm: label, Listen: listen}}
		if swarm != "" {
			n.member = &member{swarm: peer.ID(swarm)}
		}
		return n.mdnsService()
	}
	everywhere := DefaultSwarmListen()
	one := name("one", "default", true, everywhere...)
	if !regexp.MustCompile(`^_p2pnode-[0-9a-f]{7}\._udp$`).MatchString(one) {
		t.Errorf("service %q", one)
	}
	for what, other := range map[string]string{
		"another swarm": name("two", "default", true, everywhere...), "another topic": name("one", "other", true, everywhere...),
	} {
		if other == one || other == "" {
			t.Errorf("%s has the service %q, as the first", what, other)
		}
	}
	for what, off := range map[string]string{
		"switched off": name("one", "default", false, everywhere...), "no swarm": name("", "default", true, everywhere...),
		"on loopback": name("one", "default", true, DefaultListen()...),
	} {
		if off != "" {
			t.Errorf("%s: the service is %q", what, off)
		}
	}
}
