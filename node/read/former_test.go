package read

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// TestMovedOwnership: who has become the owner of a stripe reads what the
// previous owner holds of it, and the origin for the rest;
// who is slow, refuses, or is known to be dead costs no more than a moment.
func TestMovedOwnership(t *testing.T) {
	for name, tc := range map[string]struct {
		serve  func(s *source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error
		dead   bool
		asked  string
		origin int64 // bytes
	}{
		"holds it": {nil, false, "[1]", 0},
		"holds a part": {func(s *source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				if err := s.upTo(a, 256*kib, nil); err != nil {
					return err
				}
				return rangeread.NewError(rangeread.StatusNotFound, "scripted")
			}
		}, false, "[1]", 768 * kib},
		"holds nothing": {func(*source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
				return rangeread.NewError(rangeread.StatusNotFound, "scripted")
			}
		}, false, "[1]", mib},
		"holds another version": {func(*source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
				return rangeread.NewError(rangeread.StatusChanged, "scripted")
			}
		}, false, "[1]", mib},
		"waits itself": {func(s *source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				return a.Wait(ctx, rangeread.WaitPeer, make(chan struct{}))
			}
		}, false, "[1]", mib},
		"waits for the origin": {func(s *source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				come := make(chan struct{})
				time.AfterFunc(2*formerPatience, func() { close(come) })
				if err := a.Wait(ctx, rangeread.WaitOrigin, come); err != nil {
					return err
				}
				return s.all(a)
			}
		}, false, "[1]", 0},
		"refers": {func(s *source) func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
				if n == 0 {
					return rangeread.NewError(rangeread.StatusRefer, "scripted")
				}
				return s.upTo(a, mib, nil)
			}
		}, false, "[2]", 0},
		"in doubt": {nil, true, "[0]", mib},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2*mib, 1, func(w *world, _ *FillerConfig, _ *seed.Config) {
				w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
			})
			w.open(content.Range{})
			w.origin.Reset()
			s := w.sources[0]
			w.seeds.former = []peer.ID{s.id()}
			w.health.doubtful[s.id()] = tc.dead
			if tc.serve != nil {
				s.serve = tc.serve(s)
			}
			w.mustRead(content.Range{Off: 0, Len: mib})
			w.stored(1)
			if got := w.asked(); got != tc.asked {
				t.Errorf("the previous owner was asked %s times, want %s", got, tc.asked)
			}
			for _, req := range s.requests() {
				if !req.NoFill || req.Origin != nil {
					t.Errorf("the previous owner may fill: %+v", req)
				}
			}
			if n := w.origin.Bytes(path); n != tc.origin {
				t.Errorf("%d bytes from the origin, want %d", n, tc.origin)
			}
			if failed := w.health.failed(); len(failed) != 0 {
				t.Errorf("told of failures of %v: slow is not dead", failed)
			}
		})
	}
}

// TestFormerIsDead: where a previous owner is dead, who stood for it is asked.
func TestFormerIsDead(t *testing.T) {
	w := newWorld(t, 2*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
	})
	w.open(content.Range{})
	w.origin.Reset()
	w.seeds.former = []peer.ID{w.sources[0].id(), w.sources[1].id()}
	w.health.doubtful[w.sources[0].id()] = true
	w.mustRead(content.Range{Len: mib})
	w.stored(1)
	w.wantAsked("[0 1]", 0)
}

// TestMovedOwnershipAgain: where another becomes the owner while the previous one
// is asked, that one is asked, and not the origin.
func TestMovedOwnershipAgain(t *testing.T) {
	w := newWorld(t, 2*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
		w.seeds.before = func(int) {
			if w.seeds.changes.Load() > 0 {
				w.seeds.order = []peer.ID{w.sources[1].id()}
			}
		}
	})
	w.open(content.Range{})
	w.origin.Reset()
	former := w.sources[0]
	w.seeds.former = []peer.ID{former.id()}
	former.serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
		w.seeds.changes.Add(1)
		return rangeread.NewError(rangeread.StatusNotFound, "scripted")
	}
	w.mustRead(content.Range{Len: mib})
	w.stored(1)
	w.wantAsked("[1 1]", 0)
}

// TestFormerIsNoOrigin: a previous owner does not say what is current: neither of
// a file that is not known yet, nor where the question is whether it changed.
func TestFormerIsNoOrigin(t *testing.T) {
	w := newWorld(t, mib, 1, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
	})
	w.seeds.former = []peer.ID{w.sources[0].id()}
	w.mustRead(w.all())
	w.stored(1)
	w.wantAsked("[0]", 1)
	w.data = p2ptest.Bytes(77, mib) // it changes
	w.origin.Add(path, w.data)
	r := w.request(content.Range{Len: 1})
	r.Demand = seed.Demand{Since: time.Now()}
	f, err := w.m.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Meta().Generation == w.sources[0].meta.Generation {
		t.Error("a client that wants the origin's word got the previous owner's")
	}
	if got := w.asked(); got != "[0]" {
		t.Errorf("the previous owner was asked %s times", got)
	}
}

// TestFollowedWhileAskingBefore: peers that ask the new owner meanwhile wait with
// it, whatever their score: it is about to bring the bytes.
func TestFollowedWhileAskingBefore(t *testing.T) {
	w := newWorld(t, 33*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
	})
	former, reader, stripe := w.sources[0], w.sources[1], int64(1)
	for w.below(reader.host, stripe) {
		stripe++
	}
	w.open(content.Range{})
	ask := w.asker(reader)
	asked := make(chan error, 1)
	former.serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
		go func() { asked <- ask(content.Range{Off: stripe * mib, Len: mib}, reader.id()) }()
		return rangeread.NewError(rangeread.StatusNotFound, "scripted")
	}
	w.seeds.former = []peer.ID{former.id()}
	w.mustRead(content.Range{Off: stripe * mib, Len: mib})
	if err := <-asked; err != nil {
		t.Errorf("a peer of the new owner: %v", err)
	}
}

// TestSeedIsDead: who stands for a dead seed asks neighbours at its site for what they
// hold before it asks the origin; who owns the stripe anyway does not.
func TestSeedIsDead(t *testing.T) {
	for name, tc := range map[string]struct {
		dead   bool
		asked  string
		origin int
	}{
		"seed is dead":      {true, "[0 1]", 0},
		"seed is this node": {false, "[0 0]", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
				w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
			})
			w.open(content.Range{})
			w.origin.Reset()
			if tc.dead {
				_, dead := p2ptest.Key(t)
				w.health.doubtful[dead] = true
				w.seeds.owner, w.seeds.order = dead, []peer.ID{dead, w.seeds.self}
			}
			gone := w.sources[0].id()
			w.health.doubtful[gone] = true
			w.providers.near = []peer.ID{w.seeds.self, gone, w.sources[1].id()}
			w.mustRead(content.Range{Len: mib})
			w.stored(1)
			w.wantAsked(tc.asked, tc.origin)
		})
	}
}

// TestSeedIsDeadForPeer: the same where a peer asks, and this node knows nothing of
// the file yet: a neighbour says what file it is by bytes that a seed has signed.
func TestSeedIsDeadForPeer(t *testing.T) {
	for name, tc := range map[string]struct {
		lie    func(*source)
		asked  string
		origin int
		wrong  int
		failed bool
	}{
		"true":            {func(*source) {}, "[0 2]", 0, 0, false},
		"another size":    {func(s *source) { s.meta.Size-- }, "[0 1]", 1, 1, false},
		"another version": {func(s *source) { s.meta.Generation = content.Generation{66} }, "[0 1]", 1, 0, true},
		"its own bytes":   {func(s *source) { s.data = p2ptest.Bytes(66, len(s.data)) }, "[0 1]", 1, 1, false},
		"it only waits": {func(s *source) {
			s.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				if err := s.upTo(a, 0, nil); err != nil {
					return err
				}
				return a.Wait(ctx, rangeread.WaitOrigin, nil)
			}
		}, "[0 1]", 1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, dead := p2ptest.Key(t)
			w := newWorld(t, 2*mib, 2, func(w *world, f *FillerConfig, m *seed.Config) {
				w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{dead, w.seeds.self}, true, dead
				w.health.doubtful[dead] = true
				f.Client = rangeread.NewClient(rangeread.ClientConfig{
					Host: w.host, Silence: silence, Trusted: func(p peer.ID) bool { return p != w.sources[1].id() },
					Patience: 4 * rangeread.WaitEvery,
				})
				w.run(f.Client.Run)
				m.VerifySeal = f.Client.VerifySeal
			})
			reader, near := w.sources[0], w.sources[1]
			w.expect, near.seals = near.meta.Generation, reader.seals
			tc.lie(near)
			w.providers.near = []peer.ID{near.id()}
			if err := w.asker(reader)(content.Range{Len: mib}, reader.id()); err != nil {
				t.Fatal(err)
			}
			w.stored(1)
			w.wantAsked(tc.asked, tc.origin)
			if failed := slices.Contains(w.health.failed(), near.id()); failed != tc.failed || w.health.wrong != tc.wrong {
				t.Errorf("told of a failure: %t, of wrong bytes %d times", failed, w.health.wrong)
			}
		})
	}
}

// TestSeedIsDeadAndAnotherReads: a seed at the site that waits for the origin is waited
// for, longer than who is none: it asks that for both.
func TestSeedIsDeadAndAnotherReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
	})
	w.open(content.Range{})
	w.origin.Reset()
	_, dead := p2ptest.Key(t)
	near := w.sources[1]
	w.health.doubtful[dead] = true
	w.seeds.owner, w.seeds.order, w.seeds.pool = dead, []peer.ID{dead, w.seeds.self}, []peer.ID{near.id()}
	w.providers.near = []peer.ID{near.id()}
	near.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
		r, err := a.Header(rangeread.Header{Meta: near.meta, Source: rangeread.SourceOrigin})
		if err != nil {
			return err
		}
		came := make(chan struct{})
		time.AfterFunc(doubtPatience+time.Second, func() { close(came) })
		if err := a.Wait(ctx, rangeread.WaitOrigin, came); err != nil {
			return err
		}
		return a.Complete(0, r.End(), near.seals[0], near.trees[0], func(p []byte, off int64) error { copy(p, near.data[off:]); return nil })
	}
	w.mustRead(content.Range{Len: mib})
	w.wantAsked("[0 1]", 0)
}

// TestHangingNeighbour: one that does not answer keeps nobody waiting, and slow is not
// dead.
func TestHangingNeighbour(t *testing.T) {
	w := newWorld(t, 2*mib, 1, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed, w.seeds.owner = []peer.ID{w.seeds.self}, true, w.seeds.self
	})
	w.open(content.Range{})
	w.origin.Reset()
	_, dead := p2ptest.Key(t)
	w.health.doubtful[dead] = true
	w.seeds.owner, w.seeds.order = dead, []peer.ID{dead, w.seeds.self}
	w.sources[0].serve = func(ctx context.Context, _ int, _ rangeread.Request, _ *rangeread.Answer) error {
		<-ctx.Done()
		return ctx.Err()
	}
	w.providers.near = []peer.ID{w.sources[0].id()}
	w.mustRead(content.Range{Len: mib})
	w.wantAsked("[1]", 1)
	if slices.Contains(w.health.failed(), w.sources[0].id()) {
		t.Error("told of a failure of the neighbour")
	}
}

// TestNeighbourIsNoOrigin: a neighbour that no map names does not say what is current:
// it is not asked while the origin can be, nor where the question is whether what is
// held still is; an old copy that must be validated is not taken from it; and what else
// it says than bytes is no answer.
func TestNeighbourIsNoOrigin(t *testing.T) {
	for name, tc := range map[string]struct {
		down, held bool // the origin; what the node reads again
		says       rangeread.Status
		asked      string
	}{
		"origin is there":            {false, false, rangeread.StatusOK, "[0]"},
		"origin is there, validated": {false, true, rangeread.StatusOK, "[0]"},
		"old copy":                   {true, false, rangeread.StatusOK, "[1]"},
		"validation":                 {true, true, rangeread.StatusOK, "[0]"},
		"another size":               {true, false, rangeread.StatusRange, "[1]"},
		"no answer of an origin":     {true, false, rangeread.StatusNotSupported, "[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			var later time.Duration
			w := newWorld(t, 2*mib, 1, func(w *world, f *FillerConfig, m *seed.Config) {
				w.seeds.order, f.Seed, f.Fallback, m.Seed = nil, false, true, false
				m.Now = func() time.Time { return time.Now().Add(later) }
			})
			s := w.sources[0]
			s.serve = func(_ context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
				if tc.says != rangeread.StatusOK {
					return rangeread.NewError(tc.says, "scripted")
				}
				_, err := a.Header(rangeread.Header{Meta: s.meta, Source: rangeread.SourceStore, Age: 48 * time.Hour, CacheControl: "max-age=60, must-revalidate"})
				return err
			}
			if tc.held {
				w.mustRead(w.all())
				w.stored(2)
				later = 48 * time.Hour
			}
			w.providers.near = []peer.ID{s.id()}
			w.data = p2ptest.Bytes(99, 2*mib)
			w.origin.Add(path, w.data)
			if tc.down {
				w.origin.SetFault(func(*http.Request) p2ptest.Fault { return p2ptest.Fault{Status: http.StatusServiceUnavailable} })
			}
			switch got, err := w.read(w.all()); {
			case !tc.down && (err != nil || !bytes.Equal(got, w.data)):
				t.Errorf("%d bytes, error %v, want the origin's", len(got), err)
			case tc.down && !tc.held:
				w.wantOriginError(err, http.StatusServiceUnavailable)
			}
			if got := w.asked(); got != tc.asked {
				t.Errorf("the neighbour was asked %s times, want %s", got, tc.asked)
			}
		})
	}
}

// TestNeighbourHolds: where no seed is left and the origin refuses, neighbours at the
// site are asked, for what they hold.
func TestNeighbourHolds(t *testing.T) {
	w := newWorld(t, 2*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order = []peer.ID{w.sources[0].id()}
	})
	w.sources[0].status(rangeread.StatusOriginError)
	w.providers.near = []peer.ID{w.sources[0].id(), w.sources[1].id()}
	w.mustRead(w.all())
	w.stored(2)
	w.wantAsked("[2 3]", 0) // once for what file it is
	for _, req := range w.sources[1].requests() {
		if !req.NoFill || req.Origin != nil {
			t.Errorf("a neighbour was asked to fetch what it has not: %+v", req)
		}
	}
}
