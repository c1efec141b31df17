package read

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// TestGateway: a client's read goes to the one that reads for the site, which may
// fill; where that one is in doubt to the next, and where it has nothing to the
// seeds. What a peer asks goes to the seeds at once.
func TestGateway(t *testing.T) {
	world := func() (w *world, seeds, gates []*source) {
		w = newWorld(t, mib, 4, func(w *world, _ *FillerConfig, _ *seed.Config) {
			w.seeds.gateways = slices.Clone(w.seeds.order[2:])
			w.seeds.order = w.seeds.order[:2]
		})
		return w, w.sources[:2], w.sources[2:]
	}
	w, _, gates := world()
	w.mustRead(w.all())
	w.wantAsked("[0 0 1 0]", 0)
	if r := gates[0].requests()[0]; !r.Site || r.NoFill || r.Origin == nil || !slices.Equal(r.Path, []peer.ID{w.host.ID()}) {
		t.Errorf("the site's reader was asked %+v", r)
	}

	w, _, gates = world()
	w.health.doubtful[gates[0].id()] = true
	gates[0].status(rangeread.StatusNotFound)
	w.mustRead(w.all())
	if r := gates[1].requests(); len(r) != 1 || !r[0].Site || !slices.Equal(r[0].Skip, []peer.ID{gates[0].id()}) {
		t.Errorf("the next in order was asked %+v", r)
	}

	var seeds []*source
	w, seeds, gates = world()
	gates[0].status(rangeread.StatusNotFound)
	w.mustRead(w.all())
	w.wantAsked("[1 0 1 0]", 0)
	if r := seeds[0].requests()[0]; r.Site {
		t.Errorf("the seed was asked %+v", r)
	}

	w, seeds, gates = world()
	for _, s := range w.sources {
		s.status(rangeread.StatusNotFound)
	}
	if err := w.asker(seeds[1])(content.Range{Len: 1}, seeds[1].id()); rangeread.StatusOf(err) != rangeread.StatusNotFound {
		t.Errorf("a peer that asks gets %v", err)
	}
	if a, b := gates[0].requests(), gates[1].requests(); len(a)+len(b) != 0 {
		t.Errorf("for a peer the site's readers were asked %+v %+v", a, b)
	}
}
