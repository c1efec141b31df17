package read

import (
	"context"
	"slices"
	"testing"
	"time"

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

// TestSeedAtSite: a seed of this node's site that owns nothing is asked for what it
// holds, and the owner elsewhere for the rest: it would not go over the uplink
// while this node, which reads for the site, is about to.
func TestSeedAtSite(t *testing.T) {
	w := newWorld(t, mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.near = map[peer.ID]bool{w.seeds.order[0]: true}
	})
	near, owner := w.sources[0], w.sources[1]
	near.serve = func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
		if err := near.upTo(a, 256*kib, nil); err != nil {
			return err
		}
		return rangeread.NewError(rangeread.StatusNotFound, "scripted")
	}
	w.mustRead(w.all())
	w.wantAsked("[1 1]", 0)
	if r := near.requests()[0]; !r.NoFill || r.Origin != nil || r.Site {
		t.Errorf("the seed at the site was asked %+v", r)
	}
	if r := owner.requests()[0]; r.NoFill || r.Origin == nil || r.Range.Off != 256*kib {
		t.Errorf("the owner was asked %+v", r)
	}
}

// TestOwnerAsksSiteReader: who has become the owner asks the one that read for its
// site first, for what it has and what it is getting, however long that takes it;
// and nobody where there was no other owner.
func TestOwnerAsksSiteReader(t *testing.T) {
	for name, tc := range map[string]struct {
		former, self, empty bool
		asked               string
		origin              int64
	}{
		"it is getting it":   {former: true, asked: "[0 1]"},
		"it has nothing":     {former: true, empty: true, asked: "[1 1]"},
		"it is this node":    {former: true, self: true, asked: "[1 0]"},
		"no owner was other": {asked: "[0 0]", origin: mib},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
				w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
			})
			w.open(content.Range{})
			w.origin.Reset()
			former, reader := w.sources[0], w.sources[1]
			if tc.former {
				w.seeds.former = []peer.ID{former.id()}
			}
			w.seeds.siteReader = reader.id()
			if tc.self {
				w.seeds.siteReader = w.seeds.self
			}
			reader.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				if tc.empty {
					return rangeread.NewError(rangeread.StatusNotFound, "scripted")
				}
				late := make(chan struct{})
				time.AfterFunc(formerPatience+200*time.Millisecond, func() { close(late) })
				if err := a.Wait(ctx, rangeread.WaitPeer, late); err != nil {
					return err
				}
				return reader.all(a)
			}
			w.mustRead(content.Range{Len: mib})
			w.stored(1)
			if got := w.asked(); got != tc.asked {
				t.Errorf("asked %s times, want %s", got, tc.asked)
			}
			if n := w.origin.Bytes(path); n != tc.origin {
				t.Errorf("%d bytes from the origin, want %d", n, tc.origin)
			}
			for _, r := range reader.requests() {
				if !r.Site || !r.NoFill || r.Origin != nil {
					t.Errorf("the site's reader was asked %+v", r)
				}
			}
			for _, r := range former.requests() {
				if r.Site {
					t.Errorf("the previous owner was asked %+v", r)
				}
			}
		})
	}
}

// TestSeedAtSiteIsOld: what such a seed holds does not tell what a file is where it
// may not be used any more without asking the origin: the owner finds out.
func TestSeedAtSiteIsOld(t *testing.T) {
	for name, header := range map[string]rangeread.Header{
		"old":      {Age: 2 * time.Minute},
		"no-cache": {CacheControl: "no-cache"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
				w.seeds.near = map[peer.ID]bool{w.seeds.order[0]: true}
			})
			near, owner := w.sources[0], w.sources[1]
			near.serve = func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				header.Meta = near.meta
				if _, err := a.Header(header); err != nil {
					return err
				}
				return rangeread.NewError(rangeread.StatusNotFound, "scripted")
			}
			w.mustRead(w.all())
			w.wantAsked("[1 1]", 0)
			if r := owner.requests()[0]; r.NoFill || r.Origin == nil || !r.Generation.IsZero() {
				t.Errorf("the owner was asked %+v", r)
			}
		})
	}
}
