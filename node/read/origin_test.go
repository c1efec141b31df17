package read

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed"
)

// faultOnce is a fault of the first request alone.
func faultOnce(f p2ptest.Fault) func(*http.Request) p2ptest.Fault {
	var n atomic.Int64
	return func(*http.Request) p2ptest.Fault {
		if n.Add(1) == 1 {
			return f
		}
		return p2ptest.Fault{}
	}
}

func faultAlways(f p2ptest.Fault) func(*http.Request) p2ptest.Fault {
	return func(*http.Request) p2ptest.Fault { return f }
}

// ownerFirst makes this node the owner, before the other sources.
func ownerFirst(w *world, _ *FillerConfig, _ *seed.Config) {
	w.seeds.order = append([]peer.ID{w.seeds.self}, w.seeds.order...)
	w.seeds.seed = true
}

// TestOriginRefuses: what a client did wrong is final at once; what may pass is
// tried three times, and then peers are asked for what they hold.
func TestOriginRefuses(t *testing.T) {
	for _, tc := range []struct {
		status, tries int
		final         bool
		later         int // tries, where the answer has Retry-After
	}{
		{401, 1, true, 0}, {403, 1, true, 0}, {404, 1, true, 0}, {410, 1, true, 0}, {302, 1, true, 0},
		{429, 1, false, 1}, {500, 3, false, 3}, {503, 3, false, 1}, // of those, RFC 9110 gives it a meaning with 503, RFC 6585 with 429
	} {
		t.Run(http.StatusText(tc.status), func(t *testing.T) {
			w := newWorld(t, mib, 1, ownerFirst)
			w.origin.SetFault(faultAlways(p2ptest.Fault{Status: tc.status}))
			got, err := w.read(w.all())
			if tc.final {
				w.wantOriginError(err, tc.status)
				w.wantAsked("[0]", tc.tries)
				return
			}
			if err != nil || !slices.Equal(got, w.data) {
				t.Fatalf("with a peer that holds it: %v", err)
			}
			w.wantAsked("[1]", tc.tries)
			if req := w.sources[0].requests()[0]; !req.NoFill || req.Origin != nil {
				t.Errorf("the peer was asked to fill: %+v", req)
			}
			nobody := newWorld(t, mib, 1, ownerFirst)
			nobody.sources[0].status(rangeread.StatusNotFound)
			nobody.origin.SetFault(faultAlways(p2ptest.Fault{Status: tc.status, Header: http.Header{"Retry-After": {"7"}}}))
			_, err = nobody.read(nobody.all())
			nobody.wantOriginError(err, tc.status)
			nobody.wantAsked("[1]", tc.later)
			var refused *seed.OriginError
			if errors.As(err, &refused) && (refused.RetryAfter < 7*time.Second || refused.RetryAfter > 7*time.Second*11/10) {
				t.Errorf("retry after %s, want 7 s and up to a tenth more", refused.RetryAfter)
			}
		})
	}
}

// TestOriginRecovers: a failure that passes costs a try, not the read.
func TestOriginRecovers(t *testing.T) {
	for _, status := range []int{500, 503} {
		w := newWorld(t, mib, 1, ownerFirst)
		w.origin.SetFault(faultOnce(p2ptest.Fault{Status: status}))
		w.mustRead(w.all())
		w.wantAsked("[0]", 2)
	}
}

// TestOriginGone: one that cannot be reached is tried three times; then what
// peers hold serves.
func TestOriginGone(t *testing.T) {
	w := newWorld(t, mib, 1, ownerFirst)
	w.origin.Close()
	w.mustRead(w.all())
	w.wantAsked("[1]", 0)
	nobody := newWorld(t, mib, 1, ownerFirst)
	nobody.sources[0].status(rangeread.StatusNotFound)
	nobody.origin.Close()
	_, err := nobody.read(nobody.all())
	nobody.wantOriginError(err, 0)
}

// TestOriginGoneAtStart: while the map may be incomplete, a read that finds nobody
// looks again, and is served by the peer that has become known.
func TestOriginGoneAtStart(t *testing.T) {
	w := newWorld(t, mib, 1, func(w *world, f *FillerConfig, _ *seed.Config) {
		f.Start = soon
		w.seeds.order, w.seeds.owner, w.seeds.seed = []peer.ID{w.seeds.self}, w.seeds.self, true
		w.seeds.before = func(n int) {
			if n == 2 { // the first try, and what came of it, is over
				w.seeds.order = append(w.seeds.order, w.sources[0].id())
			}
		}
	})
	w.origin.Close()
	w.mustRead(w.all())
	w.wantAsked("[1]", 0)
}

// TestWhoAsksBecomesTheOwner: a fill at the start of a node, for a peer and for a
// client that has joined it, does not wait for better times where that peer is now
// the one who is to fetch: he waits for this fill. The client is served by him.
func TestWhoAsksBecomesTheOwner(t *testing.T) {
	w := newWorld(t, mib, 2, func(w *world, f *FillerConfig, _ *seed.Config) {
		f.Start = soon
		w.seeds.order = w.seeds.order[:1]
		w.seeds.before = func(n int) {
			if n == 1 {
				w.seeds.order, w.seeds.owner = []peer.ID{w.sources[1].id()}, w.sources[1].id()
			}
		}
	})
	asked, joined := make(chan struct{}), make(chan struct{})
	w.sources[0].serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
		close(asked)
		<-joined
		return rangeread.NewError(rangeread.StatusNotFound, "scripted")
	}
	ask := w.asker(w.sources[1])
	answer := make(chan error, 1)
	start := time.Now()
	go func() { answer <- ask(w.all()) }()
	<-asked
	read := make(chan error, 1)
	go func() {
		_, err := w.read(w.all())
		read <- err
	}()
	p2ptest.Eventually(t, soon, func() bool { return w.job.Load().ForClient() }, "the client joins the peer's job")
	close(joined)
	if err := <-answer; rangeread.StatusOf(err) != rangeread.StatusNotFound {
		t.Errorf("the peer is told %v, want that he may go elsewhere", err)
	}
	if d := time.Since(start); d > soon/2 {
		t.Errorf("the peer was told after %v", d)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	w.wantAsked("[1 1]", 0)
}

// TestOwnerAgain: an owner that has nothing does not know yet that it is to fetch:
// it is asked again for about a second, before this node asks the origin.
func TestOwnerAgain(t *testing.T) {
	for _, tc := range []struct{ times, origin int }{{3, 0}, {1 << 30, 1}} {
		w := newWorld(t, mib, 1, func(w *world, f *FillerConfig, _ *seed.Config) {
			f.Fallback = true
			w.seeds.owner = w.sources[0].id()
		})
		s := w.sources[0]
		s.serve = func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
			if n < tc.times {
				return rangeread.NewError(rangeread.StatusNotFound, "scripted")
			}
			return s.all(a)
		}
		w.mustRead(w.all())
		w.wantAsked(fmt.Sprintf("[%d]", 1+min(tc.times, ownerTries)), tc.origin)
	}
}

// TestOwnerMayNotFetch: one that stands third in a chain may ask the owner for what
// it holds alone; it is not asked again and again for what it may not fetch.
func TestOwnerMayNotFetch(t *testing.T) {
	w := newWorld(t, mib, 1, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.owner, w.seeds.seed = w.sources[0].id(), true
	})
	w.sources[0].status(rangeread.StatusNotFound)
	hosts := p2ptest.Hosts(t, 2)
	p2ptest.Connect(t, hosts[0], w.host)
	if err := w.asker(&source{host: hosts[0]})(w.all(), hosts[1].ID()); err != nil {
		t.Fatal(err)
	}
	w.wantAsked("[1]", 1)
}

// TestPeersOriginFails: what an owner says of the origin is final where the
// client is to blame; else others are asked for what they hold, and this node
// does not go to the origin after it.
func TestPeersOriginFails(t *testing.T) {
	for _, tc := range []struct {
		status int
		asked  string
	}{{404, "[1 0]"}, {401, "[1 0]"}, {503, "[1 1]"}, {0, "[1 1]"}} {
		w := newWorld(t, mib, 2, func(w *world, f *FillerConfig, _ *seed.Config) {
			w.seeds.seed, f.Fallback = true, true
		})
		w.sources[0].serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
			return &rangeread.Error{Status: rangeread.StatusOriginError, OriginStatus: tc.status, RetryAfter: 3 * time.Second, Size: -1}
		}
		_, err := w.read(w.all())
		if tc.asked == "[1 0]" {
			w.wantOriginError(err, tc.status)
		} else {
			if err != nil {
				t.Errorf("%d: %v, want what the other holds", tc.status, err)
			}
			if req := w.sources[1].requests()[0]; !req.NoFill || req.Origin != nil {
				t.Errorf("%d: the other was asked to fill", tc.status)
			}
		}
		w.wantAsked(tc.asked, 0)
	}
}

// TestNotForTheSwarm: content that cannot be cached, and targets that policy
// forbids, are for the client itself to get.
func TestNotForTheSwarm(t *testing.T) {
	w := newWorld(t, mib, 1, ownerFirst)
	for _, obj := range []p2ptest.Object{
		{Data: w.data}, // no validators
		{Data: w.data, LastModified: time.Unix(1, 0), NoLength: true, NoRanges: true},
		{Data: w.data, ETag: `"x"`, Header: http.Header{"Cache-Control": {"no-store"}}},
		{Data: w.data, ETag: `"x"`, Header: http.Header{"Set-Cookie": {"a=b"}}},
	} {
		w.origin.Put(path, obj)
		if _, err := w.read(w.all()); !errors.Is(err, seed.ErrNotSupported) {
			t.Errorf("%+v: %v, want ErrNotSupported", obj.Header, err)
		}
	}
	task, err := content.NewTask("http://10.1.2.3/file", content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	r := seed.Request{Task: task, Origin: rangeread.Origin{URL: task.URL, Size: -1}, Want: content.Range{Len: 1}}
	if _, err := w.m.Open(t.Context(), r); !errors.Is(err, seed.ErrNotSupported) {
		t.Errorf("a private address: %v, want ErrNotSupported", err)
	}
}

// TestOriginChanges: a file that changes between two requests cuts the read short
// with ErrChanged, and the next read gets the new one.
func TestOriginChanges(t *testing.T) {
	w := newWorld(t, 12*mib, 0, ownerFirst)
	f := w.open(content.Range{})
	if err := f.Prime(t.Context(), w.all()); err != nil {
		t.Fatal(err)
	}
	w.stored((Ahead + mib) / mib)
	w.data = p2ptest.Bytes(11, 12*mib)
	w.origin.Add(path, w.data)
	if _, err := f.Copy(t.Context(), &failingWriter{n: 12 * mib}, w.all()); !errors.Is(err, seed.ErrChanged) {
		t.Errorf("the old file: %v, want ErrChanged", err)
	}
	_ = f.Close()
	w.mustRead(w.all())
}

// TestSequentialOrigin: an origin that ignores ranges is read once, whether the
// first request was for the metadata or for bytes.
func TestSequentialOrigin(t *testing.T) {
	for _, headFirst := range []bool{false, true} {
		testSequential(t, headFirst)
	}
}

func testSequential(t *testing.T, headFirst bool) {
	w := newWorld(t, 6*mib, 0, ownerFirst)
	w.origin.Put(path, p2ptest.Object{Data: w.data, ETag: `"x"`, NoRanges: true})
	if headFirst {
		w.open(content.Range{})
	} else {
		w.mustRead(content.Range{Len: 1})
	}
	reads := make(chan error, 4)
	for _, r := range []content.Range{{Off: 5 * mib, Len: 100}, w.all(), {Off: 2*mib + 1, Len: 3 * mib}, {Len: 1}} {
		go func() {
			got, err := w.read(r)
			if err == nil && !slices.Equal(got, w.data[r.Off:r.End()]) {
				err = errors.New("wrong bytes")
			}
			reads <- err
		}()
	}
	for range cap(reads) {
		if err := <-reads; err != nil {
			t.Error(err)
		}
	}
	w.stored(6)
	var sent int64
	for _, h := range w.origin.Hits(path) {
		if h.Header.Get("Range") != "bytes=0-0" { // a look, left after its header
			sent += h.Sent
		}
	}
	if sent != 6*mib {
		t.Errorf("%d bytes left the origin of a file of %d", sent, 6*mib)
	}
}

// TestRangesIgnoredOnce: an origin that sends the whole file in place of one
// block has it read to its end, for all who want other blocks of it.
func TestRangesIgnoredOnce(t *testing.T) {
	w := newWorld(t, 6*mib, 0, ownerFirst)
	w.mustRead(content.Range{Len: 1})
	w.stored(1)
	w.origin.SetFault(faultAlways(p2ptest.Fault{IgnoreRange: true}))
	w.mustRead(content.Range{Off: 3 * mib, Len: 1})
	w.stored(6)
	w.mustRead(w.all())
	w.wantAsked("[]", 2)
	if f := w.open(content.Range{}); !f.Meta().Sequential {
		t.Error("others are not told that the origin has no ranges")
	}
}

// TestSequentialOriginBreaksOff: its rest is read from the start again, since it
// knows no other way, and readers go on at their next byte.
func TestSequentialOriginBreaksOff(t *testing.T) {
	w := newWorld(t, 3*mib, 0, ownerFirst)
	w.origin.Put(path, p2ptest.Object{Data: w.data, ETag: `"x"`, NoRanges: true})
	w.open(content.Range{})
	w.origin.SetFault(faultOnce(p2ptest.Fault{CutAfter: mib + 333}))
	w.mustRead(w.all())
	w.stored(3)
}

// TestCancelledFillStops: the origin's request ends with the last reader.
func TestCancelledFillStops(t *testing.T) {
	w := newWorld(t, mib, 0, ownerFirst)
	w.origin.Stall()
	defer w.origin.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		f, err := w.m.Open(ctx, w.request(w.all()))
		if err == nil {
			err = f.Close()
		}
		done <- err
	}()
	p2ptest.Eventually(t, soon, func() bool { return w.origin.Running(path) == 1 }, "the origin is asked")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
	p2ptest.Eventually(t, soon, func() bool { return w.origin.Running(path) == 0 && w.m.Stats().Fills == 0 }, "the request ends")
}
