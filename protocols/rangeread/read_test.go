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
// remembered then; and a leaf that was damaged at the source is never taken for
// good, not even after it was mended.
func TestSmallReads(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 3<<20, key, id)
	e := serve(t, m, id)
	req := m.request(content.BlockSize+5*content.LeafSize+4096, 100)
	req.Small = true
	m.tamper = func(p []byte, off int64) {
		if r := (content.Range{Off: off, Len: int64(len(p))}); r.Contains(content.Range{Off: req.Range.Off, Len: 1}) {
			p[req.Range.Off-off] ^= 1
		}
	}
	wantRead(t, e, req, ErrCorrupt)
	if n := e.server.parts.remembered(); n != 0 {
		t.Errorf("the parents of %d parts are remembered, of a damaged leaf", n)
	}
	m.tamper = nil
	for range 3 {
		if r := mustRead(t, e.client, e.source, m, req); r.off != req.Range.Off || len(r.data) != content.PartSize {
			t.Fatalf("%d bytes at %d, want one part", len(r.data), r.off)
		}
	}
	if n := e.server.parts.remembered(); n != 1 {
		t.Errorf("the parents of %d parts are remembered, want 1", n)
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
