package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/node/proxy"
	"github.com/p2pnode/p2pnode/seed/origin"
)

// TestDialUnder: the node itself is another refusal than what a flag can open, and
// either is said once.
func TestDialUnder(t *testing.T) {
	own := netip.MustParseAddrPort("127.0.0.1:65000")
	p, err := (*origin.Policy)(nil).Within(nil, func(a netip.AddrPort) bool { return a == own })
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]error{own.String(): proxy.ErrLoop, "127.0.0.1:65001": proxy.ErrForbidden} {
		_, err := dialUnder(p)(t.Context(), "tcp", addr)
		if !errors.Is(err, want) || errors.Is(err, proxy.ErrLoop) && errors.Is(err, proxy.ErrForbidden) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
		if text := err.Error(); strings.Count(text, "not allowed") > 1 || strings.Count(text, addr) > 1 {
			t.Errorf("%s: %s", addr, text)
		}
	}
}
