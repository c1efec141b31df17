package read

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// cuts are numbers of bytes after which something dies: on the edges of leaves,
// frames and blocks, and next to them.
func cuts() []int64 {
	var out []int64
	for _, edge := range []int64{content.LeafSize, rangeread.MaxData, 300 * kib, mib, mib + content.LeafSize} {
		out = append(out, edge-1, edge, edge+1)
	}
	return append(out, 1)
}

// largeStripes is a size at which several blocks are one stripe, and so one
// request; the blocks behind the first few are never read.
const largeStripes = 256*mib + 1

// TestResumeBehindAPeer: a source that gives up, or whose stream is reset, after
// some bytes is followed by the next at the next byte that is missing, which
// does not send what is there. The reader sees nothing of it.
func TestResumeBehindAPeer(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a file of 256 MiB")
	}
	w := newWorld(t, largeStripes, 2, nil)
	first, second := w.sources[0], w.sources[1]
	want := content.Range{Len: 2 * mib}
	for _, gives := range []bool{true, false} {
		for _, k := range cuts() {
			t.Run(fmt.Sprintf("gives up %v, after %d", gives, k), func(t *testing.T) {
				from := cutter(t, first, w.host.ID(), k, gives)
				defer from()
				before := len(second.requests())
				w.forget()
				w.mustRead(want)
				var sent int64
				for _, req := range second.requests()[before:] {
					sent += rangeread.Widen(req.Range, w.sources[0].meta.Size).Len
				}
				// The cut leaf, or what was on its way, comes again, no more.
				if whole := k / content.LeafSize * content.LeafSize; gives && sent > want.Len-whole {
					t.Errorf("the second source sent %d bytes behind %d", sent, whole)
				}
				// A pooled stream that is reset before its header is no failure: the
				// first source is asked again by itself.
				if gives && sent == 0 || sent > want.Len {
					t.Errorf("the second source sent %d bytes", sent)
				}
			})
		}
	}
	if n := w.origin.Requests(path); n != 0 {
		t.Errorf("the origin was asked %d times", n)
	}
}

// forget drops all blocks that are held.
func (w *world) forget() {
	w.t.Helper()
	p2ptest.Eventually(w.t, soon, func() bool { return w.m.Stats().Fills == 0 }, "fills end")
	p2ptest.Eventually(w.t, soon, func() bool { return w.origin.Running(path) == 0 }, "the origin's handlers end")
	for _, h := range w.m.Files() {
		for i := range h.Layout().Blocks() {
			if h.Present[i/8]>>(i%8)&1 == 0 {
				continue
			}
			f, err := w.disk.Open(h.Key)
			if err == nil {
				err = f.Drop(i)
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// cutter makes a source give up after k bytes of the file (in whole leaves), or
// makes its stream end after k bytes of the answer. Undo it by what it returns.
func cutter(t *testing.T, s *source, reader peer.ID, k int64, gives bool) (undo func()) {
	t.Helper()
	if gives {
		s.serve = func(_ context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
			end := req.Range.Off + k/content.LeafSize*content.LeafSize
			if end >= req.Range.End() {
				return s.all(a)
			}
			if err := s.upTo(a, end, nil); err != nil {
				return err
			}
			return rangeread.NewError(rangeread.StatusInternal, "scripted")
		}
		return func() { s.serve = nil }
	}
	// A relay in front of the real server: another host with its own handler
	// would have another identity, so the source's handler is wrapped.
	var once sync.Once
	s.serve = func(_ context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
		var sent int64
		return s.upTo(a, s.meta.Size, func(p []byte, _ int64) {
			if sent += int64(len(p)); sent >= k {
				once.Do(func() {
					for _, c := range s.host.Network().ConnsToPeer(reader) {
						for _, st := range c.GetStreams() {
							if st.Protocol() == rangeread.ProtocolID && st.Stat().Direction == network.DirInbound {
								_ = st.Reset()
							}
						}
					}
				})
			}
		})
	}
	return func() { s.serve = nil }
}

// TestOriginDiesMidBody: an origin that breaks off after k bytes is asked for the
// rest, from the next byte on: no byte leaves it twice.
func TestOriginDiesMidBody(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a file of 256 MiB")
	}
	w := newWorld(t, largeStripes, 0, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed = append(w.seeds.order, w.seeds.self), true
	})
	want := content.Range{Len: 2 * mib}
	w.open(content.Range{})
	for _, k := range cuts() {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			w.forget()
			w.origin.Reset()
			w.origin.SetFault(faultOnce(p2ptest.Fault{CutAfter: k}))
			w.mustRead(want)
			if n, most := w.origin.Bytes(path), w.origin.MaxCopies(path); n != want.Len || most != 1 {
				t.Errorf("%d bytes of %d left the origin, one of them %d times", n, want.Len, most)
			}
			// The block that failed is asked for alone, and then the rest.
			hits, then := w.origin.Hits(path), []int64{0, k, mib}
			if k >= mib {
				then = then[:2]
			}
			if got := offsets(hits); !slices.Equal(got, then) {
				t.Errorf("requests from %v, want %v", got, then)
			}
		})
	}
}

// TestPeerGoesOnBehindTheOrigin: where the origin has broken off inside a leaf, a
// peer that holds the block sends that leaf whole, and the job takes the rest of
// it; the block is what the peer signed, and is stored.
func TestPeerGoesOnBehindTheOrigin(t *testing.T) {
	for _, k := range []int64{1, content.LeafSize - 1, content.LeafSize, content.LeafSize + 1, rangeread.MaxData + 5, 300*kib + 1, mib - 1} {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			w := newWorld(t, 2*mib, 1, ownerFirst)
			cut, refuse := faultOnce(p2ptest.Fault{CutAfter: k}), faultAlways(p2ptest.Fault{Status: http.StatusServiceUnavailable})
			var first atomic.Bool
			w.origin.SetFault(func(r *http.Request) p2ptest.Fault {
				if first.CompareAndSwap(false, true) {
					return cut(r)
				}
				return refuse(r)
			})
			w.mustRead(content.Range{Len: mib})
			w.stored(1)
			reqs := w.sources[0].requests()
			if len(reqs) != 1 || reqs[0].Range.Off != k {
				t.Errorf("the peer was asked %d times, for %s", len(reqs), reqs[0].Range)
			}
		})
	}
}

// offsets returns where the requests of an origin began, in order.
func offsets(hits []p2ptest.Hit) []int64 {
	var offs []int64
	for _, h := range hits {
		offs = append(offs, h.Off)
	}
	return offs
}

// unsealed makes a source send the first block by increments, and leave before
// the seal.
func (s *source) unsealed(a *rangeread.Answer) error {
	return s.increments(a, func(*content.Increment) {})
}

// increments does that with increments that spoil may change.
func (s *source) increments(a *rangeread.Answer, spoil func(*content.Increment)) error {
	r, err := a.Header(rangeread.Header{Meta: s.meta, Source: rangeread.SourceOrigin})
	if err != nil {
		return err
	}
	block := s.meta.Layout().Block(0)
	n := content.Leaves(block.Len)
	var hashes []content.LeafHash
	for i := range n {
		leaf := s.data[i*content.LeafSize : min((i+1)*content.LeafSize, int(block.Len))]
		hashes = append(hashes, content.HashLeaf(leaf, i, n))
	}
	inc, err := content.SignIncrement(s.key, s.id(), s.name(0), 0, hashes)
	if err != nil {
		return err
	}
	spoil(&inc)
	if err := a.Increment(0, min(r.End(), block.End()), inc, func(p []byte, off int64) error { copy(p, s.data[off:]); return nil }); err != nil {
		return err
	}
	return rangeread.NewError(rangeread.StatusInternal, "left before the seal")
}

// TestSealFromAnother: a block whose source left between its last leaf and its
// seal is closed by the seal that another has, who is asked for no more.
func TestSealFromAnother(t *testing.T) {
	for _, size := range []int{mib, 77, 3 * content.LeafSize} {
		w := newWorld(t, size, 3, nil)
		for _, s := range w.sources[1:] { // one block has one root, whoever signs it
			s.seals = w.sources[0].seals
		}
		w.sources[0].serve = func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
			return w.sources[0].unsealed(a)
		}
		w.sources[1].status(rangeread.StatusNotFound)
		w.mustRead(w.all())
		w.stored(1)
		w.wantAsked("[1 1 1]", 0)
		for _, s := range w.sources[1:] {
			if req := s.requests()[0]; req.Range != (content.Range{Off: int64(size) - 1, Len: 1}) || !req.NoFill {
				t.Errorf("another was asked for %s, no fill %v", req.Range, req.NoFill)
			}
		}
	}
}

// TestSealFromNobody: where nobody has the seal the reader gets the bytes all the
// same, and the block is not kept; nor does its owner read the origin for it.
func TestSealFromNobody(t *testing.T) {
	for _, owner := range []bool{false, true} {
		w := newWorld(t, mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) { w.seeds.seed = owner })
		w.sources[0].serve = func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
			if n > 0 {
				return rangeread.NewError(rangeread.StatusNotFound, "scripted")
			}
			return w.sources[0].unsealed(a)
		}
		w.sources[1].status(rangeread.StatusNotFound)
		w.mustRead(w.all())
		if h := w.m.Files()[0]; h.Blocks != 0 {
			t.Error("a block without a seal was stored")
		}
		if n := w.origin.Bytes(path); n != 0 {
			t.Errorf("owner %v: %d bytes from the origin", owner, n)
		}
	}
}

// TestUnsignedBlock: of a source whose seals, or increments, are not signed by whom
// they name no byte is read, nor stored: the next source is asked.
func TestUnsignedBlock(t *testing.T) {
	for name, spoil := range map[string]func(w *world, s *content.Seal){
		"not signed":                       func(_ *world, s *content.Seal) { s.Sig = nil },
		"a signature of something else":    func(w *world, s *content.Seal) { s.Sig = w.other(w.sources[0]).Sig },
		"another's name":                   func(w *world, s *content.Seal) { s.Signer = w.sources[1].id() },
		"another's name, and no signature": func(w *world, s *content.Seal) { s.Signer, s.Sig = w.sources[1].id(), nil },
	} {
		for _, growing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, increments %t", name, growing), func(t *testing.T) {
				w := newWorld(t, 2*mib, 2, nil)
				liar := w.sources[0]
				liar.data = p2ptest.Bytes(66, 2*mib)
				for i := range liar.seals {
					tree, root := content.Outboard(liar.data[i*mib : (i+1)*mib])
					seal, err := content.SealBlock(liar.key, liar.id(), liar.name(int64(i)), root)
					if err != nil {
						t.Fatal(err)
					}
					spoil(w, &seal)
					liar.seals[i], liar.trees[i] = seal, tree
				}
				if growing {
					liar.serve = func(_ context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
						return liar.increments(a, func(inc *content.Increment) { inc.Signer, inc.Sig = liar.seals[0].Signer, liar.seals[0].Sig })
					}
				}
				w.mustRead(w.all())
				w.stored(2)
				if n := w.origin.Requests(path); n != 0 || len(liar.requests()) == 0 {
					t.Errorf("the origin was asked %d times, the liar %d times", n, len(liar.requests()))
				}
			})
		}
	}
}

// other is a source's seal of something else.
func (w *world) other(s *source) content.Seal {
	w.t.Helper()
	seal, err := content.SealBlock(s.key, s.id(), s.name(5), content.Root{5})
	if err != nil {
		w.t.Fatal(err)
	}
	return seal
}

// TestConflictEndsTheFill: when two signed proofs of one block contradict one
// another the fill ends with an error, and nobody is asked for ever.
func TestConflictEndsTheFill(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	first, second := w.sources[0], w.sources[1]
	first.serve = func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
		if n > 0 {
			return rangeread.NewError(rangeread.StatusNotFound, "scripted")
		}
		return first.unsealed(a)
	}
	second.data = p2ptest.Bytes(10, mib)
	tree, root := content.Outboard(second.data)
	seal, err := content.SealBlock(second.key, second.id(), second.name(0), root)
	if err != nil {
		t.Fatal(err)
	}
	second.seals, second.trees = []content.Seal{seal}, [][]byte{tree}
	got, err := w.read(w.all())
	if err == nil && !bytes.Equal(got, w.data) || err != nil && !errors.Is(err, seed.ErrConflict) {
		t.Errorf("%d bytes, %v; want those of the first, or ErrConflict", len(got), err)
	}
	p2ptest.Eventually(t, soon, func() bool { return w.m.Stats().Fills == 0 }, "the fill ends")
	if h := w.m.Files()[0]; h.Blocks != 0 {
		t.Error("the block was stored")
	}
}
