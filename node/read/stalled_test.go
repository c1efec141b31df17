package read

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// impatient gives a filler a client for which the second WAIT in a row is one too
// many.
func impatient(w *world, f *FillerConfig, _ *seed.Config) {
	f.Client = rangeread.NewClient(rangeread.ClientConfig{
		Host: w.host, Trusted: func(peer.ID) bool { return true }, Patience: rangeread.WaitEvery / 10,
	})
	w.run(f.Client.Run)
}

// A source that sends nothing but WAIT, from the start or in mid-stream, is taken
// for dead and banned; the next goes on from there and is told.
func TestStalledSource(t *testing.T) {
	for name, before := range map[string]int64{"from the start": -1, "after the header": 0, "in mid-stream": 3 * content.LeafSize} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, content.BlockSize, 2, impatient)
			stalls := w.sources[0]
			stalls.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				if before >= 0 {
					if err := stalls.upTo(a, before, nil); err != nil {
						return err
					}
				}
				return a.Wait(ctx, rangeread.WaitOrigin, nil) // for ever
			}
			w.mustRead(w.all())
			if w.asked() != "[1 1]" {
				t.Fatalf("requests %s, want one of each source", w.asked())
			}
			next := w.sources[1].requests()[0]
			if !slices.Contains(next.Skip, stalls.id()) || next.NoFill || next.Range.Off != max(0, before) {
				t.Errorf("the next source is asked for %s, skip %v, no_fill %v", next.Range, next.Skip, next.NoFill)
			}
			if w.health.wrong != 1 || len(w.health.failed()) != 0 {
				t.Errorf("%d bans and failures of %v, want a ban alone", w.health.wrong, w.health.failed())
			}
			if n := w.origin.Requests(path); n != 0 {
				t.Errorf("the origin got %d requests", n)
			}
		})
	}
}

// Of a file that is read from its start alone a source may be on its way for
// long: when it is given up nobody else is made to begin anew.
func TestStalledSequentialSource(t *testing.T) {
	w := newWorld(t, content.BlockSize, 2, impatient)
	for _, s := range w.sources {
		s.meta.Sequential = true
	}
	w.sources[0].serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
		if err := w.sources[0].upTo(a, 0, nil); err != nil {
			return err
		}
		return a.Wait(ctx, rangeread.WaitOrigin, nil)
	}
	start := time.Now()
	w.mustRead(w.all())
	if d := time.Since(start); d < 20*rangeread.WaitEvery/10 {
		t.Errorf("given up after %v", d)
	}
	if w.asked() != "[1 1]" {
		t.Fatalf("requests %s, want one of each source", w.asked())
	}
	if next := w.sources[1].requests()[0]; !next.NoFill || len(next.Skip) != 0 || w.health.wrong != 0 {
		t.Errorf("the next source: skip %v, no_fill %v; %d bans", next.Skip, next.NoFill, w.health.wrong)
	}
}

// TestValidationOutlastsASilentSource: a file that may not be served stale is
// validated by the next source where the first says nothing, however long that takes
// to find.
func TestValidationOutlastsASilentSource(t *testing.T) {
	t.Parallel()
	var later time.Duration
	w := newWorld(t, 2*mib, 2, func(w *world, f *FillerConfig, m *seed.Config) {
		f.Seed, m.Seed = false, false
		m.Now = func() time.Time { return time.Now().Add(later) }
		f.Client = rangeread.NewClient(rangeread.ClientConfig{
			Host: w.host, Trusted: func(peer.ID) bool { return true },
			Silence: 1700 * time.Millisecond, Far: func(network.Conn) bool { return true }, // longer than a reader waits who may have it stale
		})
		w.run(f.Client.Run)
		m.VerifySeal = f.Client.VerifySeal
	})
	hangs := false
	for i, s := range w.sources {
		s.serve = func(ctx context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
			if hangs && i == 0 {
				<-ctx.Done()
				return ctx.Err()
			}
			if _, err := a.Header(rangeread.Header{Meta: s.meta, Source: rangeread.SourceStore, CacheControl: "max-age=60, must-revalidate"}); err != nil || req.Range.Empty() {
				return err
			}
			first, end := content.BlockSpan(req.Range)
			for i := first; i < end; i++ {
				err := a.Complete(i, min(req.Range.End(), s.meta.Size), s.seals[i], s.trees[i], func(p []byte, off int64) error { copy(p, s.data[off:]); return nil })
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	w.mustRead(w.all())
	w.stored(2)
	later, hangs = 48*time.Hour, true
	w.mustRead(w.all())
	if !slices.Contains(w.health.failed(), w.sources[0].id()) {
		t.Error("nobody heard that the first source is silent")
	}
}
