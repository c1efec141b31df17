package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const peerAddrExample = "/ip4/192.0.2.7/tcp/65000/p2p/12D3KooW…"

// ParseAddrInfos reads peer addresses of the form MULTIADDR/p2p/ID and joins
// those of one peer, in the order the peers are first named. Names (/dns4,
// /dns6, /dns, /dnsaddr) stay as they are: each dial resolves them anew.
func ParseAddrInfos(addrs []string) ([]peer.AddrInfo, error) {
	var infos []peer.AddrInfo
	for _, s := range addrs {
		info, err := peer.AddrInfoFromString(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("peer address %q: %w; want MULTIADDR/p2p/ID, such as %s", s, err, peerAddrExample)
		}
		if len(info.Addrs) == 0 {
			return nil, fmt.Errorf("peer address %q: it has no address before /p2p; want MULTIADDR/p2p/ID, such as %s", s, peerAddrExample)
		}
		i := slices.IndexFunc(infos, func(o peer.AddrInfo) bool { return o.ID == info.ID })
		if i < 0 {
			infos = append(infos, *info)
			continue
		}
		if !multiaddr.Contains(infos[i].Addrs, info.Addrs[0]) {
			infos[i].Addrs = append(infos[i].Addrs, info.Addrs[0])
		}
	}
	return infos, nil
}

// Addrs returns the addresses that others can dial h at, each with /p2p/ID.
func Addrs(h host.Host) []multiaddr.Multiaddr {
	info := peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
	addrs, err := peer.AddrInfoToP2pAddrs(&info)
	if err != nil {
		panic(fmt.Sprintf("peer ID of a running host: %v", err)) // the ID was made from the host's own key
	}
	return addrs
}

func isTCP(a multiaddr.Multiaddr) bool { return lastCode(a) == multiaddr.P_TCP }

func isQUIC(a multiaddr.Multiaddr) bool { return lastCode(a) == multiaddr.P_QUIC_V1 }

// lastCode returns the code of the last component of an address without /p2p
// at its end: what the connection is made with.
func lastCode(a multiaddr.Multiaddr) int {
	for i := len(a) - 1; i >= 0; i-- {
		if c := a[i].Protocol().Code; c != multiaddr.P_P2P {
			return c
		}
	}
	return 0
}
