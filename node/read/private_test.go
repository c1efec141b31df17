package read

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

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
	refers := func(meta func(*content.Meta), private bool) func(*source) {
		return func(s *source) {
			claim(meta, private)(s)
			claims := s.serve
			s.serve = func(ctx context.Context, n int, req rangeread.Request, a *rangeread.Answer) error {
				if req.Range.Empty() {
					return claims(ctx, n, req, a)
				}
				e := rangeread.NewError(rangeread.StatusRefer, "scripted")
				_, nobody := p2ptest.Key(t)
				e.Holders = []peer.AddrInfo{{ID: nobody}}
				return e
			}
		}
	}
	status := func(st rangeread.Status) func(*source) { return func(s *source) { s.status(st) } }
	var honest []content.Seal // what a seed has signed of it
	for name, lie := range map[string]func(*source){
		"another size": claim(func(m *content.Meta) { m.Size = 7 }, false),
		"to be read from its start alone": func(s *source) {
			s.seals = honest
			s.meta.Sequential = true
		},
		"another size of what a seed has signed": func(s *source) {
			s.seals = honest
			s.meta.Size--
		},
		"another version of what a seed has signed": func(s *source) {
			s.seals = honest
			s.meta.Generation = content.Generation{66}
		},
		"another version":                      claim(func(m *content.Meta) { m.Generation = content.Generation{66} }, false),
		"no size":                              claim(func(m *content.Meta) { m.Size = -1 }, false),
		"private":                              claim(func(*content.Meta) {}, true),
		"its own bytes":                        func(s *source) { s.data = p2ptest.Bytes(66, len(s.data)) },
		"its own seal":                         func(*source) {},
		"not there":                            status(rangeread.StatusNotFound),
		"changed":                              status(rangeread.StatusChanged),
		"behind the end":                       status(rangeread.StatusRange),
		"not for swarms":                       status(rangeread.StatusNotSupported),
		"another size, and sends elsewhere":    refers(func(m *content.Meta) { m.Size = 7 }, false),
		"another version, and sends elsewhere": refers(func(m *content.Meta) { m.Generation = content.Generation{66} }, false),
		"private, and sends elsewhere":         refers(func(*content.Meta) {}, true),
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
				honest = w.sources[1].seals
				lie(w.sources[0])
				want := w.all()
				if bare {
					want = content.Range{}
				}
				f, err := w.m.Open(t.Context(), w.request(want))
				if err != nil {
					t.Fatal(err)
				}
				if m := f.Meta(); m.Size != int64(len(w.data)) || m.Generation != w.sources[1].meta.Generation || m.Sequential {
					t.Errorf("the file has %d bytes of generation %s, sequential %t", m.Size, m.Generation, m.Sequential)
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

// TestProviderWaits: a peer that is no seed and says nothing but WAIT holds a reader up
// for 10 s, before it has shown anything and after that, also where it says that the
// file can be read from its start alone, for which a seed is waited for twenty times as
// long as for others.
func TestProviderWaits(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		patience time.Duration
		shows    bool // a byte, before it waits
		least    time.Duration
	}{
		"before anything":     {0, false, doubtPatience},
		"behind a byte":       {0, true, doubtPatience},
		"shorter than others": {rangeread.WaitEvery, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mib, 2, func(w *world, f *FillerConfig, m *seed.Config) {
				f.Seed, m.Seed, f.Fallback = false, false, true
				f.Client = rangeread.NewClient(rangeread.ClientConfig{
					Host: w.host, Silence: silence, Trusted: func(peer.ID) bool { return true }, Patience: tc.patience,
				})
				w.run(f.Client.Run)
				m.VerifySeal = f.Client.VerifySeal
			})
			w.providers.found, w.seeds.order = w.seeds.order, nil
			liar := w.sources[0]
			liar.meta.Sequential = true
			liar.serve = func(ctx context.Context, n int, req rangeread.Request, a *rangeread.Answer) error {
				if n == 0 && tc.shows {
					return liar.all(a)
				}
				if tc.shows {
					if err := liar.upTo(a, 0, nil); err != nil {
						return err
					}
				}
				return a.Wait(ctx, rangeread.WaitOrigin, nil)
			}
			start := time.Now()
			w.mustRead(w.all())
			if d := time.Since(start); d < tc.least || d > tc.least+5*time.Second {
				t.Errorf("read after %v, want %v and a little", d, tc.least)
			}
			if len(liar.requests()) == 0 || w.health.wrong != 0 || !slices.Contains(w.health.failed(), liar.id()) {
				t.Errorf("the liar was asked %d times; %d bans, failures of %v", len(liar.requests()), w.health.wrong, w.health.failed())
			}
			if n := w.origin.Requests(path); n != 0 {
				t.Errorf("the origin got %d requests", n)
			}
		})
	}
}

// TestProviderGrows: a file whose size nobody knows yet is read from a peer that is no
// seed any more where it was one, by its signed bytes; who never was one is no source.
func TestProviderGrows(t *testing.T) {
	for _, was := range []bool{true, false} {
		w := newWorld(t, 3*content.LeafSize, 1, func(w *world, f *FillerConfig, m *seed.Config) {
			f.Seed, m.Seed = false, false
			f.Client = rangeread.NewClient(rangeread.ClientConfig{Host: w.host, Silence: silence, Trusted: func(peer.ID) bool { return was }})
			w.run(f.Client.Run)
		})
		w.providers.found, w.seeds.order = w.seeds.order, nil
		head, open := w.sources[0], make(chan struct{})
		head.meta.Size, head.meta.Sequential = -1, true
		head.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
			if _, err := a.Header(rangeread.Header{Meta: head.meta, Source: rangeread.SourceOrigin}); err != nil {
				return err
			}
			var hashes []content.LeafHash
			for i := range 3 {
				hashes = append(hashes, content.HashLeaf(head.data[i*content.LeafSize:(i+1)*content.LeafSize], i, content.Leaves(content.BlockSize)))
			}
			name := head.name(0)
			name.FileSize = content.OpenSize
			inc, err := content.SignIncrement(head.key, head.id(), name, 0, hashes)
			if err != nil {
				return err
			}
			if err := a.Increment(0, int64(len(head.data)), inc, func(p []byte, off int64) error { copy(p, head.data[off:]); return nil }); err != nil {
				return err
			}
			if err := a.Wait(ctx, rangeread.WaitOrigin, open); err != nil {
				return err
			}
			return a.Ended()
		}
		var out bytes.Buffer
		r := w.request(w.all())
		r.Unsized = true
		f, err := w.m.Open(t.Context(), r)
		close(open)
		if err == nil {
			if f.Sized() {
				t.Fatal("the size is known")
			}
			g := &Growing{File: f}
			_, err = g.Copy(t.Context(), &out, w.all())
			_ = g.Close()
		}
		if was != bytes.Equal(out.Bytes(), w.data) || was != (err == nil) {
			t.Errorf("that the peer was a seed is %t: %d bytes, %v", was, out.Len(), err)
		}
		w.wantAsked("[1]", 0)
	}
}
