package read

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// referTo answers the first n bulk requests with REFER to peers, and then serves.
func (s *source) referTo(n int, to ...*source) {
	s.serve = func(_ context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
		if n == 0 || req.Range.Empty() {
			return s.all(a)
		}
		n--
		e := rangeread.NewError(rangeread.StatusRefer, "scripted")
		for _, h := range to {
			e.Holders = append(e.Holders, peer.AddrInfo{ID: h.id(), Addrs: h.host.Addrs()})
		}
		return e
	}
}

// oneSeed makes the map know the first source alone; the others are holders.
func (w *world) oneSeed() { w.seeds.order = w.seeds.order[:1] }

// TestReferral: a reader goes where a busy seed sends it, for bytes alone: what
// file it is the seed has to say.
func TestReferral(t *testing.T) {
	w := newWorld(t, mib, 3, nil)
	w.oneSeed()
	w.sources[0].referTo(1, w.sources[2], w.sources[1])
	w.mustRead(w.all())
	w.wantAsked("[2 0 1]", 0)
	asked := w.sources[0].requests()
	if r := asked[1]; !r.Range.Empty() || r.Origin == nil {
		t.Errorf("then the seed is asked for %+v, want what file it is", r)
	}
	r := w.sources[2].requests()[0]
	if !r.NoFill || r.Origin != nil || r.Generation != w.sources[0].meta.Generation {
		t.Errorf("the holder is asked %+v, want for what it has of the seed's generation", r)
	}
	if n := len(w.providers.met); n != 2 || len(w.providers.met[0].Addrs) == 0 {
		t.Errorf("%d holders were made reachable", n)
	}
}

// TestReferralInVain: whatever a holder says but the right bytes, the seed is
// asked again, and its reader sees nothing of it.
func TestReferralInVain(t *testing.T) {
	type script = func(_ context.Context, n int, req rangeread.Request, a *rangeread.Answer) error
	says := func(e *rangeread.Error) func(*world, *source) script {
		return func(*world, *source) script {
			return func(context.Context, int, rangeread.Request, *rangeread.Answer) error { return e }
		}
	}
	for name, serve := range map[string]func(*world, *source) script{
		"not found":      says(rangeread.NewError(rangeread.StatusNotFound, "scripted")),
		"changed":        says(rangeread.NewError(rangeread.StatusChanged, "scripted")),
		"grant required": says(rangeread.NewError(rangeread.StatusGrant, "scripted")),
		"range":          says(&rangeread.Error{Status: rangeread.StatusRange, Size: 5}),
		"origin error":   says(&rangeread.Error{Status: rangeread.StatusOriginError, OriginStatus: 404, Size: -1}),
		"another file": func(_ *world, s *source) script {
			return func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				meta := s.meta
				meta.Generation, meta.Size = content.Generation{1, 2, 3}, 7
				_, err := a.Header(rangeread.Header{Meta: meta, Source: rangeread.SourceStore})
				return err
			}
		},
		"half of it": func(_ *world, s *source) script {
			return func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				if err := s.upTo(a, 5*content.LeafSize, nil); err != nil {
					return err
				}
				return rangeread.NewError(rangeread.StatusNotFound, "scripted")
			}
		},
		"wrong bytes": func(_ *world, s *source) script {
			return func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				return s.upTo(a, s.meta.Size, func(p []byte, _ int64) { p[0] ^= 1 })
			}
		},
		"the seed again": func(w *world, s *source) script {
			s.referTo(1<<30, w.sources[0], s)
			return s.serve
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, mib, 2, nil)
			w.oneSeed()
			w.sources[0].referTo(1, w.sources[1])
			w.sources[1].serve = serve(w, w.sources[1])
			w.mustRead(w.all())
			if n := len(w.sources[1].requests()); n == 0 {
				t.Error("the holder was not asked")
			}
			if n := w.origin.Requests(path); n != 0 {
				t.Errorf("%d requests at the origin", n)
			}
		})
	}
}

// TestEndlessReferral: a seed that always refers is one that is always busy.
func TestEndlessReferral(t *testing.T) {
	w := newWorld(t, mib, 3, nil)
	w.seeds.order = w.seeds.order[:2]
	w.sources[0].referTo(1<<30, w.sources[2])
	w.sources[2].serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
		return rangeread.NewError(rangeread.StatusNotFound, "scripted")
	}
	w.mustRead(w.all())
	if n := len(w.sources[1].requests()); n != 1 {
		t.Errorf("the second seed was asked %d times", n)
	}
}

// TestSeedsAreNotReferred: a seed of the task reads from the other seeds alone;
// it asks again, and is served.
func TestSeedsAreNotReferred(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	w.oneSeed()
	w.seeds.seed = true
	w.sources[0].referTo(1, w.sources[1])
	w.mustRead(w.all())
	w.wantAsked("[2 0]", 0)
}

// dieAfter answers with n bytes and is then gone.
func (s *source) dieAfter(n int64) func(context.Context, *rangeread.Answer) error {
	return func(ctx context.Context, a *rangeread.Answer) error {
		if err := errors.Join(s.upTo(a, n, nil), a.Flush()); err != nil {
			return err
		}
		go func() { _ = s.host.Close() }()
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

// TestAskedAgainAfterADeath: a seed that had nothing while another owned the
// stripe, as a holder or in its turn, is asked again when that one is dead, before
// a node that is no seed turns to the origin.
func TestAskedAgainAfterADeath(t *testing.T) {
	absent := rangeread.NewError(rangeread.StatusNotFound, "scripted")
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprint("as a holder ", held), func(t *testing.T) {
			w := newWorld(t, mib, 2, func(_ *world, f *FillerConfig, _ *seed.Config) { f.Seed, f.Fallback = false, true })
			other, owner := w.sources[0], w.sources[1]
			if held {
				w.seeds.order = []peer.ID{owner.id(), other.id()}
				owner.referTo(1, other)
			}
			refer, die := owner.serve, owner.dieAfter(256*kib)
			owner.serve = func(ctx context.Context, n int, req rangeread.Request, a *rangeread.Answer) error {
				if req.Range.Empty() || held && n == 0 {
					return refer(ctx, n, req, a)
				}
				return die(ctx, a)
			}
			other.serve = func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
				if n == 0 {
					return absent
				}
				return other.all(a)
			}
			w.mustRead(w.all())
			if n := w.origin.Requests(path); n != 0 || len(other.requests()) != 2 {
				t.Errorf("the other seed was asked %d times, the origin %d times: want 2 and 0", len(other.requests()), n)
			}
		})
	}
}
