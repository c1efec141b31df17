package read

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
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
		{"another has it", 1, true, "[1 2]", 0, false},
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

// TestProviderLies: what a peer that is no seed says of a file counts where a seed
// has signed it. Else another source is asked, and the read succeeds.
func TestProviderLies(t *testing.T) {
	claim := func(meta func(*content.Meta), private bool) func(*source) {
		return func(s *source) {
			s.serve = func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
				m := s.meta
				meta(&m)
				_, err := a.Header(rangeread.Header{Meta: m, Source: rangeread.SourceStore, Private: private})
				return err
			}
		}
	}
	status := func(st rangeread.Status) func(*source) { return func(s *source) { s.status(st) } }
	for name, lie := range map[string]func(*source){
		"another size":    claim(func(m *content.Meta) { m.Size = 7 }, false),
		"another version": claim(func(m *content.Meta) { m.Generation = content.Generation{66} }, false),
		"no size":         claim(func(m *content.Meta) { m.Size = -1 }, false),
		"private":         claim(func(*content.Meta) {}, true),
		"its own bytes":   func(s *source) { s.data = p2ptest.Bytes(66, len(s.data)) },
		"its own seal":    func(*source) {},
		"not there":       status(rangeread.StatusNotFound),
		"changed":         status(rangeread.StatusChanged),
		"behind the end":  status(rangeread.StatusRange),
		"not for swarms":  status(rangeread.StatusNotSupported),
		"refused": func(s *source) {
			s.serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
				return &rangeread.Error{Status: rangeread.StatusOriginError, OriginStatus: 404, Size: -1}
			}
		},
	} {
		for _, bare := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, metadata alone %t", name, bare), func(t *testing.T) {
				w := newWorld(t, 2*mib, 2, func(w *world, f *FillerConfig, m *seed.Config) {
					f.Seed, m.Seed, f.Fallback = false, false, true
					f.Client = rangeread.NewClient(rangeread.ClientConfig{
						Host: w.host, Silence: silence, Trusted: func(p peer.ID) bool { return p != w.sources[0].id() },
					})
					w.run(f.Client.Run)
					m.VerifySeal = f.Client.VerifySeal
				})
				w.providers.found, w.seeds.order = w.seeds.order, nil
				lie(w.sources[0])
				want := w.all()
				if bare {
					want = content.Range{}
				}
				f, err := w.m.Open(t.Context(), w.request(want))
				if err != nil {
					t.Fatal(err)
				}
				if m := f.Meta(); m.Size != int64(len(w.data)) || m.Generation != w.sources[1].meta.Generation {
					t.Errorf("the file has %d bytes of generation %s", m.Size, m.Generation)
				}
				_ = f.Close()
				w.mustRead(w.all())
				if n := w.origin.Requests(path); n != 0 || len(w.sources[0].requests()) == 0 {
					t.Errorf("the origin was asked %d times, the liar %d times", n, len(w.sources[0].requests()))
				}
			})
		}
	}
}
