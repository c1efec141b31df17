package read

import (
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// TestProviderSaysPrivate: that a peer which is no seed calls a file private keeps
// nobody from other sources, nor from the origin; where it is all there is to go
// by the error says that no seed could be asked.
func TestProviderSaysPrivate(t *testing.T) {
	for _, tc := range []struct {
		name     string
		liars    int
		fallback bool
		sources  string
		origin   int
		nothing  bool
	}{
		{"another has it", 1, true, "[1 1]", 0, false},
		{"the origin has it", 2, true, "[1 1]", 1, false},
		{"nobody has it", 2, false, "[1 1]", 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, mib, 2, func(_ *world, f *FillerConfig, _ *seed.Config) { f.Seed, f.Fallback = false, tc.fallback })
			w.providers.found, w.seeds.order = w.seeds.order, []peer.ID{}
			for _, s := range w.sources[:tc.liars] {
				s.status(rangeread.StatusGrant)
			}
			if !tc.nothing {
				w.mustRead(w.all())
			} else if _, err := w.read(w.all()); !errors.Is(err, seed.ErrPrivate) || !errors.Is(err, seed.ErrUnavailable) {
				t.Errorf("%v, want private and unavailable", err)
			}
			w.wantAsked(tc.sources, tc.origin)
		})
	}
}
