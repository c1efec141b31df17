package read

import (
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
	"github.com/p2pnode/p2pnode/seed/store"
)

// TestSourceOrder: the seeds in the map's order, then who the DHT names, then the
// origin where policy lets this node go there; each is told what it needs.
func TestSourceOrder(t *testing.T) {
	for _, fallback := range []bool{true, false} {
		t.Run(fmt.Sprintf("fallback %v", fallback), func(t *testing.T) {
			var order []peer.ID
			w := newWorld(t, mib, 4, func(w *world, f *FillerConfig, _ *seed.Config) {
				f.Seed, f.Fallback = false, fallback
				w.seeds.order = w.seeds.order[:2]
				w.providers.found = []peer.ID{w.seeds.self, w.sources[2].id(), w.sources[3].id()}
			})
			asked := make(chan peer.ID, 10)
			for _, s := range w.sources {
				s.serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
					asked <- s.id()
					return rangeread.NewError(rangeread.StatusNotFound, "scripted")
				}
			}
			_, err := w.read(w.all())
			if fallback && err != nil {
				t.Errorf("with the last resort: %v", err)
			}
			if !fallback && !errors.Is(err, seed.ErrUnavailable) {
				t.Errorf("without: %v, want ErrUnavailable", err)
			}
			close(asked)
			for p := range asked {
				order = append(order, p)
			}
			var want []peer.ID
			for _, s := range w.sources {
				want = append(want, s.id())
			}
			if !slices.Equal(order, want) {
				t.Errorf("asked %v, want %v", order, want)
			}
			if w.providers.looks != 1 {
				t.Errorf("%d looks into the DHT, want 1", w.providers.looks)
			}
			if n := w.origin.Requests(path); (n == 1) != fallback {
				t.Errorf("%d requests to the origin", n)
			}
			req := w.sources[0].requests()[0]
			if req.NoFill || req.Origin == nil || req.Origin.URL != w.url || req.Origin.Size != -1 || !req.Generation.IsZero() {
				t.Errorf("request %+v: want a fill, with the URL", req)
			}
			if !slices.Equal(req.Path, []peer.ID{w.seeds.self}) || len(req.Skip) != 0 || req.Epoch != 5 || req.Seq != 6 {
				t.Errorf("request %+v: wrong path, skip or version", req)
			}
		})
	}
}

// TestOwnerReadsTheOrigin: where this node is the owner it asks nobody else.
func TestOwnerReadsTheOrigin(t *testing.T) {
	w := newWorld(t, 3*mib, 1, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.order = append([]peer.ID{w.seeds.self}, w.seeds.order...)
	})
	w.mustRead(w.all())
	w.wantAsked("[0]", 3)
	if n := w.origin.Bytes(path); n != 3*mib {
		t.Errorf("%d bytes from the origin", n)
	}
}

// TestASeedIsTheNextOwner: a seed of the task reads the origin when those before
// it are gone; one that is no seed of this task, and a node that is no seed at
// all, do not.
func TestASeedIsTheNextOwner(t *testing.T) {
	for _, tc := range []struct {
		seed, seedOfTask bool
		origin           int
	}{{true, true, 1}, {true, false, 0}, {false, true, 0}} {
		w := newWorld(t, mib, 1, func(w *world, f *FillerConfig, _ *seed.Config) {
			f.Seed, w.seeds.seed = tc.seed, tc.seedOfTask
		})
		w.sources[0].status(rangeread.StatusNotFound)
		if _, err := w.read(w.all()); (err == nil) != (tc.origin > 0) {
			t.Errorf("%+v: %v", tc, err)
		}
		w.wantAsked("[1]", tc.origin)
	}
}

// TestStandIn: where all seeds are gone the stand-in asks the origin, for others
// and for itself; who is none goes to it, not to the origin.
func TestStandIn(t *testing.T) {
	w := newWorld(t, mib, 2, func(w *world, f *FillerConfig, _ *seed.Config) {
		f.Seed, f.Fallback = true, true
		w.seeds.order, w.seeds.standIn = w.seeds.order[:1], w.seeds.order[1]
	})
	w.sources[0].status(rangeread.StatusNotFound)
	w.mustRead(w.all())
	w.wantAsked("[1 1]", 0)
	if req := w.sources[1].requests()[0]; req.NoFill || req.Origin == nil {
		t.Errorf("the stand-in was asked %+v: want a fill", req)
	}
	w = newWorld(t, mib, 1, func(w *world, f *FillerConfig, _ *seed.Config) {
		f.Seed, w.seeds.standIn = true, w.seeds.self
	})
	w.sources[0].status(rangeread.StatusNotFound)
	if err := w.asker(w.sources[0])(content.Range{Len: 1}, w.sources[0].id()); err != nil {
		t.Errorf("a peer asks the stand-in: %v", err)
	}
	w.wantAsked("[0]", 1)
}

// TestMetadataAlone: a HEAD of a client costs a request without bytes, to the
// head or, at the head, to the origin.
func TestMetadataAlone(t *testing.T) {
	w := newWorld(t, 3*mib, 1, nil)
	f := w.open(content.Range{})
	if f.Meta() != w.sources[0].meta {
		t.Errorf("meta %+v", f.Meta())
	}
	if req := w.sources[0].requests()[0]; !req.Range.Empty() || len(w.sources[0].requests()) != 1 {
		t.Errorf("asked the head for %s", req.Range)
	}
	own := ownWorld(t, 3*mib)
	own.open(content.Range{})
	if hits := own.origin.Hits(path); len(hits) != 1 || hits[0].Method != "HEAD" {
		t.Errorf("asked the origin %+v, want one HEAD", hits)
	}
}

// TestUnknownSizeAtAnOffset: a first read at an offset asks the head, which owns
// stripe 0, and learns the size before it asks the origin for bytes, since that
// decides who owns them.
func TestUnknownSizeAtAnOffset(t *testing.T) {
	w := ownWorld(t, 9*mib)
	w.mustRead(content.Range{Off: 5*mib + 7, Len: 100})
	hits := w.origin.Hits(path)
	if len(hits) != 2 || hits[0].Method != "HEAD" || hits[1].Method != "GET" || hits[1].Off != 5*mib {
		t.Errorf("asked the origin %+v, want HEAD, then the block", hits)
	}
	if len(w.seeds.stripes) != 2 || w.seeds.stripes[0] != 0 || w.seeds.stripes[1] != 5 {
		t.Errorf("sources of stripes %v, want 0, then 5", w.seeds.stripes)
	}
}

// TestOwnStripeAtAnOffset: one that has learnt the size from the head, and owns
// what it asked for, fetches that itself.
func TestOwnStripeAtAnOffset(t *testing.T) {
	w := newWorld(t, 9*mib, 1, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.owner, w.seeds.seed = w.seeds.self, true
	})
	head := w.sources[0]
	head.serve = func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
		if n > 0 {
			return rangeread.NewError(rangeread.StatusNotFound, "scripted")
		}
		return head.all(a)
	}
	w.mustRead(content.Range{Off: 5 * mib, Len: mib})
	if n := w.origin.Bytes(path); n != mib {
		t.Errorf("%d bytes from the origin, want the block", n)
	}
}

// TestOwnStripeIsNotRefused: peers that ask the owner of a stripe, which has just
// learnt from the head that it is, are never sent away: it does not wait for a
// peer for one moment.
func TestOwnStripeIsNotRefused(t *testing.T) {
	w := newWorld(t, 33*mib, 2, func(w *world, _ *FillerConfig, _ *seed.Config) {
		w.seeds.owner, w.seeds.seed, w.seeds.order = w.seeds.self, true, []peer.ID{w.sources[1].id()}
	})
	reader, stripe := w.sources[0], int64(1)
	for w.below(reader.host, stripe) { // the others may follow what a peer is asked for
		stripe++
	}
	ask := w.asker(reader)
	asked := make(chan error, 1)
	w.seeds.before = func(n int) {
		if n != 1 {
			return
		}
		w.seeds.order = []peer.ID{w.seeds.self}
		done := make(chan struct{}) // the size is known, and who fetches is not: here it was refused
		go func() {
			defer close(done)
			asked <- ask(content.Range{Off: stripe * mib, Len: mib}, reader.id())
		}()
		select {
		case <-done:
		case <-time.After(rangeread.WaitEvery):
		}
	}
	w.mustRead(content.Range{Off: stripe * mib, Len: mib})
	if err := <-asked; err != nil {
		t.Errorf("a peer of the owner: %v", err)
	}
	if n := w.origin.Bytes(path); n != mib {
		t.Errorf("%d bytes from the origin, want the block", n)
	}
}

// TestSilentSource: one that accepts and says nothing is left after the silence
// time, and the next is told.
func TestSilentSource(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	w.sources[0].serve = func(ctx context.Context, _ int, _ rangeread.Request, _ *rangeread.Answer) error {
		<-ctx.Done()
		return ctx.Err()
	}
	start := time.Now()
	w.mustRead(w.all())
	if d := time.Since(start); d < silence || d > 20*silence {
		t.Errorf("it took %s, want a little more than %s", d, silence)
	}
	w.wantAsked("[1 1]", 0)
	if skip := w.sources[1].requests()[0].Skip; !slices.Equal(skip, []peer.ID{w.sources[0].id()}) {
		t.Errorf("the next source was told %v", skip)
	}
	if got := w.health.failed(); !slices.Equal(got, []peer.ID{w.sources[0].id()}) {
		t.Errorf("failures %v", got)
	}
}

// TestSilentMidway: one that falls silent after some leaves is left too; the next
// goes on behind them.
func TestSilentMidway(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	s := w.sources[0]
	s.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
		return s.halts(ctx, a, 5*content.LeafSize)
	}
	w.mustRead(w.all())
	w.wantAsked("[1 1]", 0)
	if r := w.sources[1].requests()[0].Range; r.Off != 5*content.LeafSize {
		t.Errorf("the next source was asked for %s", r)
	}
}

// TestWaitingSourceIsKept: one that says WAIT is alive, however long it takes.
func TestWaitingSourceIsKept(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	s := w.sources[0]
	s.serve = func(ctx context.Context, _ int, _ rangeread.Request, a *rangeread.Answer) error {
		slow := make(chan struct{})
		defer time.AfterFunc(3*silence, func() { close(slow) }).Stop()
		if err := a.Wait(ctx, rangeread.WaitOrigin, slow); err != nil {
			return err
		}
		return s.all(a)
	}
	w.mustRead(w.all())
	w.wantAsked("[1 0]", 0)
	if got := w.health.failed(); len(got) != 0 {
		t.Errorf("failures %v", got)
	}
}

// TestCorruptSource: one that sends wrong bytes is asked once more, to check its
// copy, and then left; no wrong byte is read.
func TestCorruptSource(t *testing.T) {
	for _, heals := range []bool{true, false} {
		w := newWorld(t, 2*mib, 2, nil)
		s := w.sources[0]
		s.serve = func(_ context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
			return s.upTo(a, s.meta.Size, func(p []byte, off int64) {
				if at := int64(300 * kib); off <= at && at < off+int64(len(p)) && !(heals && req.Recheck) {
					p[at-off] ^= 1
				}
			})
		}
		w.mustRead(content.Range{Len: mib})
		reqs := s.requests()
		if len(reqs) != 2 || reqs[0].Recheck || !reqs[1].Recheck {
			t.Fatalf("heals %v: %d requests, want one, and one with a recheck", heals, len(reqs))
		}
		want := "[2 1]"
		if heals {
			want = "[2 0]"
		}
		w.wantAsked(want, 0)
		told := 2 // of both answers
		if heals {
			told = 1
		}
		if w.health.wrong != told || len(w.health.failed()) != 0 {
			t.Errorf("heals %v: told %d times of wrong bytes, of failures %d", heals, w.health.wrong, len(w.health.failed()))
		}
	}
}

// TestChangedByTwo: once it is known what file is read, it has become another where
// two say so. Who asks for another peer leaves that to it.
func TestChangedByTwo(t *testing.T) {
	for liars := 1; liars <= 3; liars++ {
		w := newWorld(t, 2*mib, 3, nil)
		w.mustRead(content.Range{Len: mib})
		for _, s := range w.sources[:liars] {
			s.status(rangeread.StatusChanged)
		}
		_, err := w.read(content.Range{Off: mib, Len: mib})
		if liars == 1 && err != nil || liars > 1 && !errors.Is(err, seed.ErrChanged) {
			t.Errorf("%d say that it has changed: %v", liars, err)
		}
		w.wantAsked("[2 1 0]", 0)
		if skip := w.sources[1].requests()[0].Skip; len(skip) != 1 || skip[0] != w.sources[0].id() {
			t.Errorf("the second is to skip %v, want the first", skip)
		}
	}
}

// TestSizeByTwo: the same of one that says that a file of the same version is of
// another size.
func TestSizeByTwo(t *testing.T) {
	for liars := 1; liars <= 2; liars++ {
		w := newWorld(t, 2*mib, 3, nil)
		w.mustRead(content.Range{Len: mib})
		for _, s := range w.sources[:liars] {
			s.meta.Size--
		}
		_, err := w.read(content.Range{Off: mib, Len: mib})
		if liars == 1 && err != nil || liars > 1 && !errors.Is(err, seed.ErrChanged) {
			t.Errorf("%d say that it is of another size: %v", liars, err)
		}
		w.wantAsked("[2 1 0]", 0)
	}
}

// TestOwnerIsOverruled: where an owner answers, and does not do what is its to do,
// and the others wait for it, they are told at last that it is as good as dead; and
// one that is busy then for a moment, as it was waiting for that owner, is waited for.
func TestOwnerIsOverruled(t *testing.T) {
	for _, status := range []rangeread.Status{rangeread.StatusForbidden, rangeread.StatusNotFound, rangeread.StatusBusy} {
		w := newWorld(t, mib, 2, func(w *world, f *FillerConfig, m *seed.Config) {
			f.Seed, m.Seed, w.seeds.owner = false, false, w.sources[0].id()
		})
		second := w.sources[1]
		w.sources[0].status(status)
		told := 0
		second.serve = func(_ context.Context, _ int, req rangeread.Request, a *rangeread.Answer) error {
			if !slices.Contains(req.Skip, w.sources[0].id()) {
				return rangeread.NewError(rangeread.StatusNotFound, "a peer is being asked")
			}
			if told++; told <= 3 {
				return rangeread.NewError(rangeread.StatusBusy, "a peer is being asked that does not answer")
			}
			return second.all(a)
		}
		w.mustRead(w.all())
		if n := w.origin.Requests(path); n != 0 {
			t.Errorf("%s: who is no seed asked the origin %d times", status, n)
		}
	}
}

// TestOtherAnswers: what each status of a first source leads to.
func TestOtherAnswers(t *testing.T) {
	for _, tc := range []struct {
		status rangeread.Status
		final  error // nil: the next source is asked
	}{
		{rangeread.StatusNotFound, nil}, {rangeread.StatusRefer, nil}, {rangeread.StatusForbidden, nil},
		{rangeread.StatusSequential, nil}, {rangeread.StatusInternal, nil}, {rangeread.StatusBadRequest, nil},
		{rangeread.StatusChanged, nil}, // no generation was asked for
		{rangeread.StatusGrant, seed.ErrPrivate}, {rangeread.StatusNotSupported, seed.ErrNotSupported},
	} {
		t.Run(tc.status.String(), func(t *testing.T) {
			w := newWorld(t, mib, 2, nil)
			w.sources[0].status(tc.status)
			_, err := w.read(w.all())
			if !errors.Is(err, tc.final) {
				t.Errorf("%v, want %v", err, tc.final)
			}
			if tc.final == nil {
				w.wantAsked("[1 1]", 0)
			} else {
				w.wantAsked("[1 0]", 0)
			}
			if skip := w.sources[1].requests(); tc.final == nil && len(skip[0].Skip) != 0 {
				t.Errorf("the next source is told that one that answers is dead: %v", skip[0].Skip)
			}
		})
	}
}

// TestRangeBehindTheEnd: the head's answer reaches the client.
func TestRangeBehindTheEnd(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	var rng *seed.RangeError
	if _, err := w.read(content.Range{Off: mib, Len: 1}); !errors.As(err, &rng) || rng.Size != mib {
		t.Errorf("%v, want a RangeError of %d", err, mib)
	}
	w.wantAsked("[1 0]", 0)
}

// TestBusySource: one that is busy is asked again a few times.
func TestBusySource(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	s := w.sources[0]
	s.serve = func(_ context.Context, n int, _ rangeread.Request, a *rangeread.Answer) error {
		if n < 3 {
			return &rangeread.Error{Status: rangeread.StatusBusy, RetryAfter: time.Millisecond, Size: -1}
		}
		return s.all(a)
	}
	w.mustRead(w.all())
	w.wantAsked("[4 0]", 0)
	if got := w.health.answered; len(got) != 4 || slices.Min(got[:3]) < busyDelay || len(w.health.failures) != 0 {
		t.Errorf("answers counted after %v, want three of %s at least and the true one; %d failures", got, busyDelay, len(w.health.failures))
	}
	always := newWorld(t, mib, 2, nil)
	always.sources[0].serve = func(context.Context, int, rangeread.Request, *rangeread.Answer) error {
		return &rangeread.Error{Status: rangeread.StatusBusy, RetryAfter: time.Millisecond, Size: -1}
	}
	always.mustRead(always.all())
	always.wantAsked(fmt.Sprintf("[%d 1]", busyTries+1), 0)
}

// TestUntrustedSigner: a block that is signed by somebody else is no fault of who
// sends it; the next source is asked.
func TestUntrustedSigner(t *testing.T) {
	w := newWorld(t, mib, 2, func(w *world, f *FillerConfig, m *seed.Config) {
		f.Client = rangeread.NewClient(rangeread.ClientConfig{
			Host: w.host, Silence: silence, Trusted: func(p peer.ID) bool { return p != w.sources[0].id() },
		})
		w.run(f.Client.Run)
		m.VerifySeal = f.Client.VerifySeal
	})
	w.mustRead(w.all())
	w.wantAsked("[1 1]", 0)
	if got := w.health.failed(); len(got) != 0 {
		t.Errorf("failures %v", got)
	}
}

// TestDoubtfulSource: a source that failed a moment ago is passed over and told
// to others, asked only when nobody else has the bytes, and probed meanwhile.
func TestDoubtfulSource(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	first, second := w.sources[0], w.sources[1]
	w.health.doubtful[first.id()] = true
	w.mustRead(w.all())
	if skip := second.requests()[0].Skip; !slices.Equal(skip, []peer.ID{first.id()}) {
		t.Errorf("the other is told %v", skip)
	}
	p2ptest.Eventually(t, soon, func() bool { return !w.health.Doubtful(first.id()) }, "the probe finds it alive")
	if r := first.requests(); len(r) != 1 || !r[0].NoFill || !r[0].Range.Empty() {
		t.Errorf("the doubtful one was asked %+v, want the probe alone", r)
	}
	last := newWorld(t, mib, 2, nil)
	last.health.doubtful[last.sources[0].id()] = true
	last.sources[1].status(rangeread.StatusNotFound)
	last.mustRead(last.all())
}

// TestProbeOfADeadPeer: a probe that gets no answer is a failure.
func TestProbeOfADeadPeer(t *testing.T) {
	w := newWorld(t, mib, 2, nil)
	w.health.doubtful[w.sources[0].id()] = true
	w.sources[0].serve = func(ctx context.Context, _ int, _ rangeread.Request, _ *rangeread.Answer) error {
		<-ctx.Done()
		return ctx.Err()
	}
	w.mustRead(w.all())
	p2ptest.Eventually(t, soon, func() bool {
		return slices.Equal(w.health.failed(), []peer.ID{w.sources[0].id()})
	}, "the failure is recorded")
}

// TestForwardsOnce: a request of a peer is handed on to one more peer that may
// fill; one that has been handed on is answered from what others have; nobody in
// its path is asked, nor the DHT, nor the origin as a last resort.
func TestForwardsOnce(t *testing.T) {
	w := newWorld(t, mib, 3, func(_ *world, f *FillerConfig, _ *seed.Config) { f.Fallback = true })
	reader := w.sources[2]
	ask := w.asker(reader)
	for _, s := range w.sources {
		s.status(rangeread.StatusNotFound)
	}
	for _, tc := range []struct {
		path   []peer.ID
		noFill bool
	}{
		{[]peer.ID{reader.id()}, false},
		{[]peer.ID{w.sources[1].id(), reader.id()}, true},
	} {
		before := len(w.sources[0].requests())
		if err := ask(content.Range{Len: 1}, tc.path...); rangeread.StatusOf(err) != rangeread.StatusNotFound {
			t.Fatalf("path of %d: %v, want NOT_FOUND", len(tc.path), err)
		}
		reqs := w.sources[0].requests()[before:]
		if len(reqs) != 1 || reqs[0].NoFill != tc.noFill || (reqs[0].Origin == nil) != tc.noFill {
			t.Fatalf("path of %d: handed on as %+v", len(tc.path), reqs)
		}
		if want := append(slices.Clone(tc.path), w.host.ID()); !slices.Equal(reqs[0].Path, want) {
			t.Errorf("path %v, want %v", reqs[0].Path, want)
		}
	}
	w.wantAsked("[2 1 0]", 0)
	if w.providers.looks != 0 {
		t.Error("the DHT was asked for a peer's request")
	}
	w.seeds.owner = reader.id()
	if err := ask(content.Range{Len: 1}, reader.id()); rangeread.StatusOf(err) != rangeread.StatusNotFound {
		t.Errorf("the owner asks: %v, want NOT_FOUND", err)
	}
	w.wantAsked("[2 1 0]", 0)
}

// TestOwnFailureBlamesNobody: when this node's own store fails, no source is left
// for it.
func TestOwnFailureBlamesNobody(t *testing.T) {
	broken := errors.New("disk on fire")
	w := newWorld(t, mib, 2, func(_ *world, _ *FillerConfig, m *seed.Config) { m.Store = brokenStore{m.Store, broken} })
	if _, err := w.read(w.all()); !errors.Is(err, broken) {
		t.Errorf("%v, want the store's error", err)
	}
	w.wantAsked("[1 0]", 0)
	if got := w.health.failed(); len(got) != 0 {
		t.Errorf("failures %v", got)
	}
	own := newWorld(t, mib, 0, func(w *world, _ *FillerConfig, m *seed.Config) {
		m.Store = brokenStore{m.Store, broken}
		w.seeds.order = []peer.ID{w.seeds.self}
	})
	if _, err := own.read(own.all()); !errors.Is(err, broken) {
		t.Errorf("%v, want the store's error", err)
	}
	own.wantAsked("[]", 1)
}

type brokenStore struct {
	store.Store
	err error
}

func (s brokenStore) Create(store.Key, store.Info) (store.File, error) { return nil, s.err }
