package host

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
)

type connTo struct {
	network.Conn
	addr multiaddr.Multiaddr
}

func (c connTo) RemoteMultiaddr() multiaddr.Multiaddr { return c.addr }

// TestFar: what is beyond a router, or comes through a relay, is far.
func TestFar(t *testing.T) {
	h := new(Host)
	for addr, want := range map[string]bool{
		"/ip4/127.0.0.1/tcp/65000":            false,
		"/ip4/127.1.2.3/udp/65000/quic-v1":    false,
		"/ip4/198.51.100.7/tcp/65000":         true, // RFC 5737: no interface has it
		"/ip4/198.51.100.7/udp/65000/quic-v1": true,
		"/ip4/127.0.0.1/tcp/65000/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf/p2p-circuit": true,
	} {
		if got := h.Far(connTo{addr: multiaddr.StringCast(addr)}); got != want {
			t.Errorf("%s: far: %v", addr, got)
		}
	}
}
