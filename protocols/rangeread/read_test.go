package rangeread

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

var fileSizes = []int64{
	1, 1023, 4096, 4097, content.LeafSize - 1, content.LeafSize, content.LeafSize + 1,
	content.BlockSize - 1, content.BlockSize, content.BlockSize + 1, 3460300,
}

// edges are offsets where something begins or ends, and their neighbours.
func edges(size int64) []int64 {
	var out []int64
	for _, at := range []int64{0, 4096, 8192, content.LeafSize, 5 * content.LeafSize, content.BlockSize, 3 * content.BlockSize, size} {
		for _, off := range []int64{at - 1, at, at + 1} {
			if off >= 0 && off < size {
				out = append(out, off)
			}
		}
	}
	return out
}

// Every shape of range over every shape of file yields the file's bytes: the
// asked ones, and no more than their leaves.
func TestRanges(t *testing.T) {
	key, id := p2ptest.Key(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	e := serve(t, handler(nil), id)
	for _, size := range fileSizes {
		m := newMemory(t, size, key, id)
		e.server.cfg.Handler = m
		read := func(off, n int64, small bool) {
			req := m.request(off, n)
			req.Small = small
			r := mustRead(t, e.client, e.source, m, req)
			if r.header.Meta != m.meta || r.header.Source != SourceStore {
				t.Fatalf("header %+v", r.header)
			}
			got := content.Range{Off: r.off, Len: int64(len(r.data))}
			want := Widen(req.Range, size)
			if small {
				want, _ = content.Part(req.Range, size)
			}
			if got != want {
				t.Fatalf("file of %d bytes, asked for %v, small %v: got %v, want %v", size, req.Range, small, got, want)
			}
		}
		ats := edges(size)
		for _, from := range ats {
			to := ats[rnd.IntN(len(ats))] + 1
			for _, n := range []int64{1, 2, 4096, to - from, size, 1 << 40} {
				if n > 0 {
					read(from, n, rnd.IntN(2) == 0)
				}
			}
		}
		for range 30 {
			off := rnd.Int64N(size)
			read(off, 1+rnd.Int64N(1<<rnd.IntN(22)), rnd.IntN(2) == 0)
		}
	}
	if n := e.client.idle(e.source); n != 1 {
		t.Errorf("%d idle streams after reads one after another, want the same one for all", n)
	}
}

// A small read is answered with a part again and again: made the first time,
// remembered then, the upper parent for all parts of its leaf.
func TestSmallReads(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 3<<20, key, id)
	e := serve(t, m, id)
	leaf := int64(content.BlockSize + 5*content.LeafSize)
	whole := 0
	m.tamper = func(p []byte, _ int64) {
		if len(p) == content.LeafSize {
			whole++
		}
	}
	for _, tc := range []struct{ part, whole, remembered int }{{1, 1, 2}, {1, 1, 2}, {0, 1, 2}, {3, 2, 3}, {2, 2, 3}, {0, 2, 3}} {
		req := m.request(leaf+int64(tc.part)*content.PartSize, 100)
		req.Small = true
		if r := mustRead(t, e.client, e.source, m, req); r.off != req.Range.Off || len(r.data) != content.PartSize {
			t.Fatalf("%d bytes at %d, want one part", len(r.data), r.off)
		}
		if n := e.server.parts.remembered(); n != tc.remembered || whole != tc.whole {
			t.Errorf("after part %d: leaf read %d times, %d parents remembered; want %d, %d", tc.part, whole, n, tc.whole, tc.remembered)
		}
	}
}

// A leaf that was damaged at the source is never taken for good, not even after
// it was mended; also where the leaf is all of its block and its hash the root.
func TestSmallReadsOfADamagedLeaf(t *testing.T) {
	key, id := p2ptest.Key(t)
	for _, tc := range []struct {
		size, off  int64
		remembered int
	}{
		{3 << 20, content.BlockSize + 5*content.LeafSize + 4096, 2},
		{content.LeafSize, 4096, 0},
		{content.LeafSize - 1, 4096, 0},
	} {
		m := newMemory(t, tc.size, key, id)
		e := serve(t, m, id)
		req := m.request(tc.off, 100)
		req.Small = true
		m.tamper = func(p []byte, off int64) {
			if r := (content.Range{Off: off, Len: int64(len(p))}); r.Contains(content.Range{Off: tc.off, Len: 1}) {
				p[tc.off-off] ^= 1
			}
		}
		wantRead(t, e, req, ErrCorrupt)
		if n := e.server.parts.remembered(); n != 0 {
			t.Errorf("file of %d bytes: %d parents of a damaged leaf are remembered", tc.size, n)
		}
		m.tamper = nil
		for range 3 {
			mustRead(t, e.client, e.source, m, req)
		}
		if n := e.server.parts.remembered(); n != tc.remembered {
			t.Errorf("file of %d bytes: %d parents are remembered, want %d", tc.size, n, tc.remembered)
		}
	}
}

func (p *partParents) remembered() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.places {
		if e.n > 0 {
			n++
		}
	}
	return n
}

// wantRead reads and wants an error that is target.
func wantRead(t *testing.T, e *ends, req Request, target error) {
	t.Helper()
	if r, err := readAll(e.client, e.source, req); !errors.Is(err, target) {
		t.Fatalf("read %v: %d bytes and error %v, want %v", req.Range, len(r.data), err, target)
	}
}
