package host_test

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/node/host"
)

const someID = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

func TestParseAddrInfos(t *testing.T) {
	h := newHost(t, host.Config{})
	own := host.Addrs(h)
	if len(own) != 1 || !strings.HasSuffix(own[0].String(), "/p2p/"+h.ID().String()) {
		t.Fatalf("Addrs: %v", own)
	}
	infos, err := host.ParseAddrInfos([]string{
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID,
		own[0].String(),
		" /ip4/192.0.2.1/udp/1/quic-v1/p2p/" + someID + "\n",
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID,
		"/dns4/example.org/tcp/1/p2p/" + someID,
		"/dns6/example.org/tcp/1/p2p/" + someID,
		"/dnsaddr/example.org/p2p/" + someID,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(infos) != 2 || infos[0].ID.String() != someID || infos[1].ID != h.ID() {
		t.Fatalf("infos %v", infos)
	}
	if len(infos[0].Addrs) != 5 || infos[0].Addrs[4].String() != "/dnsaddr/example.org" || len(infos[1].Addrs) != 1 {
		t.Errorf("addresses %v", infos)
	}
	if infos, err := host.ParseAddrInfos(nil); err != nil || len(infos) != 0 {
		t.Errorf("of nothing: %v, error %v", infos, err)
	}
}

func TestParseAddrInfosErrors(t *testing.T) {
	for _, s := range []string{"", "127.0.0.1:65000", "/ip4/127.0.0.1/tcp/1", "/p2p/" + someID, "/ip4/127.0.0.1/tcp/1/p2p/x", "/dnsaddr/example.org", "/ip4/300.0.0.1/tcp/1/p2p/" + someID} {
		t.Run(s, func(t *testing.T) {
			_, err := host.ParseAddrInfos([]string{"/ip4/192.0.2.1/tcp/1/p2p/" + someID, s})
			if err == nil || !strings.Contains(err.Error(), `"`+s+`"`) || !strings.Contains(err.Error(), "want MULTIADDR/p2p/ID") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// FuzzParseAddrInfos: a list that is read has each peer once, with an address, and
// can be written and read again.
func FuzzParseAddrInfos(f *testing.F) {
	for _, s := range []string{
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID, "/dns4/example.org/udp/1/quic-v1/p2p/" + someID + "\n/ip6/::1/tcp/1/p2p/" + someID, "/dnsaddr/example.org/ipfs/" + someID,
		"/ip4/192.0.2.1/tcp/1/p2p/" + someID + "/p2p-circuit/p2p/" + someID, "/p2p/" + someID, "127.0.0.1:1", "/unix/a\x1b/p2p/" + someID, "/ip4/192.0.2.1/tcp/1/p2p/\x00", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list := strings.Split(s, "\n")
		infos, err := host.ParseAddrInfos(list)
		if err != nil {
			if len(infos) != 0 {
				t.Fatalf("%q: %v with the error %v", s, infos, err)
			}
			return
		}
		var written []string
		seen := make(map[peer.ID]bool)
		for _, info := range infos {
			addrs, err := peer.AddrInfoToP2pAddrs(&info)
			if err != nil || len(addrs) == 0 || seen[info.ID] {
				t.Fatalf("%q: peer %s twice %t, addresses %v, %v", s, info.ID, seen[info.ID], addrs, err)
			}
			seen[info.ID] = true
			for _, a := range addrs {
				written = append(written, a.String())
			}
		}
		again, err := host.ParseAddrInfos(written)
		if err != nil || len(written) > len(list) || len(again) != len(infos) {
			t.Fatalf("%q is written as %q, and read as %v, %v", s, written, again, err)
		}
		for i := range infos {
			if again[i].String() != infos[i].String() {
				t.Errorf("%q: %v, then %v", s, infos[i], again[i])
			}
		}
	})
}
