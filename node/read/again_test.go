package read

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// hangs is a source that says nothing to its first requests, as one does whose
// address has changed.
func (s *source) hangs(first int) {
	s.serve = func(ctx context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
		if n < first {
			<-ctx.Done()
			return ctx.Err()
		}
		return s.all(a)
	}
}

// patientWorld looks for lost sources again; it returns who was to be dialled anew.
func patientWorld(t *testing.T, n int, again time.Duration, change func(*world, *FillerConfig)) (w *world, redialled func() []peer.ID) {
	t.Helper()
	var mu sync.Mutex
	var ids []peer.ID
	w = newWorld(t, content.BlockSize, n, func(w *world, f *FillerConfig, _ *seed.Config) {
		f.Again, f.Seed = again, false
		f.Redial = func(id peer.ID) {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, id)
		}
		if change != nil {
			change(w, f)
		}
	})
	return w, func() []peer.ID {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(ids)
	}
}

// TestLooksAgain: where all sources were silent a client's read goes on when one
// is back, and dials it anew; in mid-stream too.
func TestLooksAgain(t *testing.T) {
	w, redialled := patientWorld(t, 1, soon, nil)
	w.sources[0].hangs(2)
	w.mustRead(w.all())
	w.wantAsked("[3]", 0)
	if got := redialled(); !slices.Equal(got, []peer.ID{w.sources[0].id(), w.sources[0].id()}) {
		t.Errorf("%v are dialled anew, want the one source, twice", got)
	}

	w, _ = patientWorld(t, 1, soon, nil)
	s := w.sources[0]
	s.serve = func(ctx context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
		if n > 0 {
			return s.all(a)
		}
		return s.halts(ctx, a, 3*content.LeafSize)
	}
	w.mustRead(w.all())
	if reqs := s.requests(); len(reqs) != 2 || reqs[1].Range.Off != 3*content.LeafSize {
		t.Errorf("%d requests, the last for %s; want it to go on at the next byte", len(reqs), reqs[len(reqs)-1].Range)
	}
}

// TestLooksAgainForAWhile: patience ends; there is none for sources that answered,
// or where it is not asked for.
func TestLooksAgainForAWhile(t *testing.T) {
	const again = 2 * silence
	for name, c := range map[string]struct {
		again     time.Duration
		answers   bool
		least, to int // requests
	}{"silent": {again, false, 2, 4}, "it answered": {again, true, 1, 1}, "no patience": {0, false, 1, 1}} {
		t.Run(name, func(t *testing.T) {
			w, _ := patientWorld(t, 1, c.again, nil)
			if c.answers {
				w.sources[0].status(rangeread.StatusNotFound)
			} else {
				w.sources[0].hangs(1 << 20)
			}
			_, err := w.read(w.all())
			if !errors.Is(err, seed.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
			if n := len(w.sources[0].requests()); n < c.least || n > c.to {
				t.Errorf("asked %d times, want %d to %d", n, c.least, c.to)
			}
		})
	}
}

// TestPeersDoNotWaitForOneAnother: a read on behalf of a peer does not look again.
func TestPeersDoNotWaitForOneAnother(t *testing.T) {
	w, _ := patientWorld(t, 2, soon, nil)
	w.sources[0].hangs(1 << 20)
	w.seeds.order = []peer.ID{w.sources[0].id()}
	err := w.asker(w.sources[1])(w.all(), w.sources[1].id())
	var answer *rangeread.Error
	if !errors.As(err, &answer) {
		t.Errorf("the peer got %v, want an answer", err)
	}
	w.wantAsked("[1 0]", 0)
}

// TestLooksAgainButNotAtTheOrigin: who may read the origin does so when its sources
// are silent, once, and does not go round again when that fails too.
func TestLooksAgainButNotAtTheOrigin(t *testing.T) {
	for _, seeds := range []bool{true, false} { // as the next owner, or as a last resort
		may := func(w *world, f *FillerConfig) {
			f.Seed, f.Fallback, w.seeds.seed = seeds, !seeds, seeds
		}
		w, _ := patientWorld(t, 1, soon, may)
		w.sources[0].hangs(1 << 20)
		w.mustRead(w.all())
		w.wantAsked("[1]", 1)

		w, _ = patientWorld(t, 1, soon, may)
		w.sources[0].hangs(1 << 20)
		w.origin.Close()
		_, err := w.read(w.all())
		w.wantOriginError(err, 0)
		w.wantAsked("[1]", 0)
	}
}
