package read

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed"
)

// ownWorld is a world whose node owns all stripes: it reads the origin.
func ownWorld(t *testing.T, size int) *world {
	t.Helper()
	return newWorld(t, size, 0, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order, w.seeds.seed = append(w.seeds.order, w.seeds.self), true
	})
}

func (w *world) open(want content.Range) *File {
	w.t.Helper()
	f, err := w.m.Open(w.t.Context(), w.request(want))
	if err != nil {
		w.t.Fatal(err)
	}
	file := NewFile(f)
	w.t.Cleanup(func() { _ = file.Close() })
	return file
}

// TestFile: ranges of all kinds, primed for that range, for another, or not at
// all, are copied exactly; the tally adds up.
func TestFile(t *testing.T) {
	w := ownWorld(t, 20*mib+11)
	size := int64(len(w.data))
	r := rand.New(rand.NewPCG(9, 10))
	ranges := []content.Range{
		{Len: 1}, {Len: size}, {Off: 7, Len: 9}, {Off: size - 1, Len: 1}, {Off: mib - 1, Len: 2}, {Off: mib, Len: mib}, {Off: 3, Len: 12 * mib},
	}
	for range 20 {
		off := r.Int64N(size)
		ranges = append(ranges, content.Range{Off: off, Len: 1 + r.Int64N(size-off)})
	}
	f := w.open(content.Range{})
	if _, ok := f.Source(); ok {
		t.Error("a source before the first byte")
	}
	var total int64
	for i, want := range ranges {
		switch i % 4 {
		case 1:
			if err := f.Prime(t.Context(), want); err != nil {
				t.Fatal(err)
			}
		case 2: // the same start, another end: shorter and longer
			other := content.Range{Off: want.Off, Len: 1 + r.Int64N(size-want.Off)}
			if err := f.Prime(t.Context(), other); err != nil {
				t.Fatal(err)
			}
		case 3:
			if err := f.Prime(t.Context(), content.Range{Off: r.Int64N(size), Len: 1}); err != nil {
				t.Fatal(err)
			}
		}
		before := f.tally
		var out bytes.Buffer
		n, err := f.Copy(t.Context(), &out, want)
		if err != nil || n != want.Len || !bytes.Equal(out.Bytes(), w.data[want.Off:want.End()]) {
			t.Fatalf("Copy(%s) = %d, %v; right bytes %v", want, n, err, bytes.Equal(out.Bytes(), w.data[want.Off:want.End()]))
		}
		if i%4 == 0 {
			local, fromPeers, fromOrigin := f.Tally()
			if got := local + fromPeers + fromOrigin - before[0] - before[1] - before[2]; got != want.Len || fromPeers != 0 {
				t.Errorf("tally of %s: %d bytes, %d from peers", want, got, fromPeers)
			}
		}
		total += n
	}
	if s, ok := f.Source(); !ok || s != seed.SourceOrigin {
		t.Errorf("first byte from %s, want the origin", s)
	}
	if n := w.origin.MaxCopies(path); n != 1 {
		t.Errorf("a byte left the origin %d times", n)
	}
	w.stored(21)
	if d := w.m.Files()[0].Demand; d > total {
		t.Errorf("demand %d, read %d", d, total)
	}
}

// TestFileOutside: ranges that are not in the file are refused.
func TestFileOutside(t *testing.T) {
	w := ownWorld(t, 100)
	f := w.open(content.Range{})
	for _, r := range []content.Range{{}, {Off: 100, Len: 1}, {Off: 50, Len: 51}, {Off: -1, Len: 5}, {Off: 1 << 40, Len: 1}} {
		var rng *seed.RangeError
		if _, err := f.Copy(t.Context(), io.Discard, r); !errors.As(err, &rng) || rng.Size != 100 {
			t.Errorf("Copy(%s): %v, want a RangeError", r, err)
		}
	}
}

// failingWriter takes n bytes and then fails.
type failingWriter struct {
	n   int
	out []byte
}

var errWriter = errors.New("client left")

func (w *failingWriter) Write(p []byte) (int, error) {
	k := min(len(p), w.n-len(w.out))
	w.out = append(w.out, p[:k]...)
	if k < len(p) {
		return k, errWriter
	}
	return k, nil
}

// TestPartialWrites: what a writer took before it failed is counted, and the file
// can be read again.
func TestPartialWrites(t *testing.T) {
	w := ownWorld(t, 3*mib)
	f := w.open(content.Range{})
	for _, n := range []int{0, 1, 256*kib - 1, 256 * kib, 256*kib + 1, mib, 2*mib + 5} {
		out := &failingWriter{n: n}
		got, err := f.Copy(t.Context(), out, w.all())
		if !errors.Is(err, errWriter) || got != int64(n) || !bytes.Equal(out.out, w.data[:n]) {
			t.Errorf("a writer that takes %d bytes: %d, %v", n, got, err)
		}
	}
	var out bytes.Buffer
	if n, err := f.Copy(t.Context(), &out, w.all()); err != nil || n != 3*mib || !bytes.Equal(out.Bytes(), w.data) {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

// TestErrorMidway: an error of the origin in the middle of a range comes after
// the bytes before it.
func TestErrorMidway(t *testing.T) {
	w := ownWorld(t, 4*mib)
	w.origin.SetFault(func(r *http.Request) p2ptest.Fault {
		if r.Header.Get("Range") >= "bytes=2" { // from the third block on
			return p2ptest.Fault{Status: http.StatusForbidden}
		}
		return p2ptest.Fault{}
	})
	f := w.open(content.Range{})
	var out bytes.Buffer
	n, err := f.Copy(t.Context(), &out, w.all())
	w.wantOriginError(err, http.StatusForbidden)
	if n != 2*mib || !bytes.Equal(out.Bytes(), w.data[:2*mib]) {
		t.Errorf("%d bytes before the error", n)
	}
}

// TestCloseReleases: Close, and a context that ends, stop the fills that nobody
// else needs.
func TestCloseReleases(t *testing.T) {
	w := ownWorld(t, 30*mib)
	f := w.open(content.Range{})
	w.origin.Stall()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := f.Copy(ctx, io.Discard, w.all())
		done <- err
	}()
	p2ptest.Eventually(t, soon, func() bool { return w.origin.Running(path) == 9 }, "a window of requests")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Copy: %v", err)
	}
	if w.m.Stats().Fills != 9 {
		t.Errorf("%d fills run for an open file, want 9", w.m.Stats().Fills)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, soon, func() bool { return w.m.Stats().Fills == 0 && w.origin.Running(path) == 0 }, "the requests end")
	w.origin.Resume()
	w.mustRead(w.all())
}

// TestWindowMoves: a reader that stands still has no more than a window on its
// way.
func TestWindowMoves(t *testing.T) {
	w := ownWorld(t, 30*mib)
	f := w.open(content.Range{})
	if err := f.Prime(t.Context(), w.all()); err != nil {
		t.Fatal(err)
	}
	w.stored((Ahead + mib) / mib)
	w.wantAsked("[]", 1+(Ahead+mib)/mib) // and the metadata
	var out bytes.Buffer
	if _, err := f.Copy(t.Context(), &out, w.all()); err != nil || !bytes.Equal(out.Bytes(), w.data) {
		t.Fatal(err)
	}
	if n := w.origin.Bytes(path); n != 30*mib {
		t.Errorf("%d bytes from the origin", n)
	}
}
