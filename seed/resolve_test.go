package seed

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// peerQuery is what a peer asks for, without a network.
func peerQuery(t testing.TB, path ...peer.ID) query {
	return query{
		task: testTask(t), path: path, from: path[len(path)-1], wait: waitFor,
		origin: rangeread.Origin{URL: testURL, Size: -1},
	}
}

// TestOpen: what Open says of wants of all kinds.
func TestOpen(t *testing.T) {
	const size = mib + 10
	for _, tc := range []struct {
		name  string
		want  content.Range
		fails bool
		reads content.Range // what the fill wants before it knows the file
		bytes int64         // that it reads
	}{
		{"metadata", content.Range{}, false, content.Range{}, 0},
		{"first byte", content.Range{Len: 1}, false, content.Range{Len: mib}, mib},
		{"whole", content.Range{Len: size}, false, content.Range{Len: mib}, mib},
		{"last block", content.Range{Off: mib + 3, Len: 99}, false, content.Range{Off: mib, Len: mib}, 10},
		{"end", content.Range{Off: size, Len: 1}, true, content.Range{Off: mib, Len: mib}, 10},
		{"far behind the end", content.Range{Off: 9 * mib, Len: 1}, true, content.Range{Off: 9 * mib, Len: mib}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			origin := newFakeOrigin(size)
			m := newManager(t, origin, nil)
			for range 2 { // the second time the file is known
				f, err := m.Open(t.Context(), request(testTask(t), tc.want))
				var rng *RangeError
				if errors.As(err, &rng) != tc.fails || !tc.fails && err != nil {
					t.Fatalf("Open: %v, want an error %v", err, tc.fails)
				}
				if tc.fails {
					if rng.Size != size {
						t.Errorf("size %d in the error, want %d", rng.Size, size)
					}
					continue
				}
				if f.Meta() != origin.meta || f.CacheControl() != "max-age=60" {
					t.Errorf("meta %+v, %q", f.Meta(), f.CacheControl())
				}
				got, err := readFile(t.Context(), f, tc.want)
				if !tc.want.Empty() {
					err = sameBytes(got, err, origin.data, tc.want)
				}
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
			if origin.wants[0] != tc.reads {
				t.Errorf("the first fill wants %s, want %s", origin.wants[0], tc.reads)
			}
			if tc.name != "whole" && origin.bytes.Load() > tc.bytes {
				t.Errorf("%d bytes were read, want at most %d", origin.bytes.Load(), tc.bytes)
			}
		})
	}
}

// TestEmptyFile: a file without bytes has metadata and no blocks.
func TestEmptyFile(t *testing.T) {
	origin := newFakeOrigin(0)
	m := newManager(t, origin, nil)
	f := open(t, m, content.Range{})
	if holds, err := f.Hold(t.Context(), content.Range{Len: 1}); err != nil || len(holds) != 0 {
		t.Errorf("%d holds, %v", len(holds), err)
	}
	var rng *RangeError
	if _, err := m.Open(t.Context(), request(testTask(t), content.Range{Len: 5})); !errors.As(err, &rng) || rng.Size != 0 {
		t.Errorf("first byte of an empty file: %v, want a RangeError", err)
	}
}

// TestFailuresReachReaders: all readers of a fill that fails get its error, in
// Open and in mid-block.
func TestFailuresReachReaders(t *testing.T) {
	for _, bad := range []error{
		&OriginError{Status: 404}, fmt.Errorf("x: %w", ErrUnavailable), ErrChanged, ErrNotSupported, ErrConflict,
		&RangeError{Size: 1},
	} {
		t.Run(bad.Error(), func(t *testing.T) {
			unknown := newManager(t, fillFunc(func(context.Context, *Job) error { return bad }), nil)
			if _, err := unknown.Open(t.Context(), request(testTask(t), content.Range{Len: 1})); !errors.Is(err, bad) {
				t.Errorf("Open: %v, want %v", err, bad)
			}
			g := newGate(mib + 70*kib)
			origin := newFakeOrigin(2 * mib)
			origin.chunk = 10 * kib
			origin.step = func(ctx context.Context, pos int64) error {
				if pos >= mib+70*kib {
					_ = g.step(ctx, pos)
					return bad
				}
				return nil
			}
			m := newManager(t, origin, nil)
			f := open(t, m, content.Range{})
			var readers []func() error
			for range 4 {
				readers = append(readers, func() error {
					ctx, cancel := context.WithTimeout(t.Context(), soon)
					defer cancel()
					got, err := readFile(ctx, f, content.Range{Len: 2 * mib})
					if !errors.Is(err, bad) || len(got) < mib {
						return fmt.Errorf("%d bytes, %w; want the first block and %w", len(got), err, bad)
					}
					return sameBytes(got, nil, origin.data, content.Range{Len: int64(len(got))})
				})
			}
			done := make(chan error, 1)
			go func() { done <- parallel(readers...) }()
			p2ptest.Eventually(t, soon, func() bool { return holders(m, 1) == 4 }, "four readers")
			g.open(always)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// holders counts the grips on the flight of block i.
func holders(m *Manager, i int64) int {
	for _, fl := range flightsNow(m) {
		if fl.name.Index == i {
			fl.mu.Lock()
			defer fl.mu.Unlock()
			return fl.holders
		}
	}
	return 0
}

// TestMoreRightsTryAgain: a reader with more rights than the job it joined fills
// by itself when that job finds no source, once; one with the same rights, or of
// a job that the origin refused, does not.
func TestMoreRightsTryAgain(t *testing.T) {
	_, r := p2ptest.Key(t)
	_, s := p2ptest.Key(t)
	refused := &OriginError{Status: 503}
	paths := [][]peer.ID{nil, {r}, {r, s}}
	for started, startedBy := range paths {
		for asked, asking := range paths {
			for _, fails := range []error{ErrUnavailable, refused} {
				for _, resolving := range []bool{true, false} {
					name := fmt.Sprintf("job of rights %d, reader of %d, %v, resolving %v", started, asked, fails, resolving)
					t.Run(name, func(t *testing.T) {
						testRights(t, startedBy, asking, fails, resolving, asked < started && fails == ErrUnavailable) //nolint:errorlint // the very one
					})
				}
			}
		}
	}
}

func testRights(t *testing.T, startedBy, asking []peer.ID, fails error, resolving, again bool) {
	q := func(path []peer.ID) query {
		if len(path) == 0 {
			return query{task: testTask(t), wait: waitFor, origin: rangeread.Origin{URL: testURL, Size: -1}}
		}
		return peerQuery(t, path...)
	}
	g := newGate(0)
	origin := newFakeOrigin(mib)
	var fills atomic.Int64
	m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
		if !resolving && job.Want().Empty() {
			return origin.Fill(ctx, job)
		}
		if fills.Add(1) > 1 {
			return origin.Fill(ctx, job)
		}
		job.AskOrigin()
		_ = g.step(ctx, 0)
		return fails
	}), nil)
	want := content.Range{Len: mib}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	read := func(path []peer.ID) error {
		asks := q(path)
		f, release, err := m.open(ctx, &asks, want)
		if err != nil {
			return err
		}
		defer release()
		got, err := readFile(ctx, &File{f: f, q: q(path), release: func() {}}, want)
		return sameBytes(got, err, origin.data, want)
	}
	if !resolving {
		open(t, m, content.Range{}).Close()
	}
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- read(startedBy) }()
	p2ptest.Eventually(t, soon, func() bool { return fills.Load() == 1 }, "the first reader's fill")
	go func() { second <- read(asking) }()
	p2ptest.Eventually(t, soon, func() bool { return followers(m) == 2 }, "the second joins it")
	g.open(always)
	if err := <-first; !errors.Is(err, fails) {
		t.Errorf("first reader: %v, want %v", err, fails)
	}
	if err := <-second; (err == nil) != again || err != nil && !errors.Is(err, fails) {
		t.Errorf("second reader: %v, want a second try %v", err, again)
	}
}

// followers counts the followers of all jobs.
func followers(m *Manager) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for j := range m.jobs {
		j.mu.Lock()
		n += j.followers
		j.mu.Unlock()
	}
	return n
}

// TestJoinedForAnotherReason: who joins a job that finds out what the file is,
// and that fails because of what its starter wanted, is not told that failure.
func TestJoinedForAnotherReason(t *testing.T) {
	const size = mib
	origin := newFakeOrigin(size)
	other := testMeta(size, `"other"`).Generation
	for _, tc := range []struct {
		name          string
		first, second Request
		errFirst      error
		errSecond     error
	}{
		{"range behind the end", Request{Want: content.Range{Off: size, Len: 1}}, Request{Want: content.Range{Len: 1}}, &RangeError{Size: size}, nil},
		{"another generation", Request{Expect: other}, Request{}, ErrChanged, nil},
		{"wants another generation", Request{}, Request{Expect: other}, nil, ErrChanged},
		{"the same mistake", Request{Want: content.Range{Off: size, Len: 1}}, Request{Want: content.Range{Off: 2 * size, Len: 1}}, &RangeError{Size: size}, &RangeError{Size: size}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGate(0)
			m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
				if err := g.step(ctx, 0); err != nil {
					return err
				}
				if job.Want().Off >= size { // as a peer answers, without saying what the file is
					return &RangeError{Size: size}
				}
				return origin.Fill(ctx, job)
			}), nil)
			results := make([]chan error, 2)
			for i, r := range []Request{tc.first, tc.second} {
				r.Task, r.Origin = testTask(t), rangeread.Origin{URL: testURL, Size: -1}
				results[i] = make(chan error, 1)
				go func() {
					f, err := m.Open(t.Context(), r)
					if err == nil {
						f.Close()
					}
					results[i] <- err
				}()
				p2ptest.Eventually(t, soon, func() bool { return followers(m) == i+1 }, "reader ", i)
			}
			g.open(always)
			for i, want := range []error{tc.errFirst, tc.errSecond} {
				err := <-results[i]
				var rng *RangeError
				if _, isRange := want.(*RangeError); isRange != errors.As(err, &rng) || !isRange && !errors.Is(err, want) { //nolint:errorlint // a table's own
					t.Errorf("reader %d: %v, want %v", i, err, want)
				}
			}
		})
	}
}

// TestUnknownTaskWithoutFill: what may not fill is not found, and starts
// nothing; nor does a request whose path has this node in it, or comes to one
// that is no seed.
func TestUnknownTaskWithoutFill(t *testing.T) {
	origin := newFakeOrigin(mib)
	hosts := p2ptest.Hosts(t, 3)
	former := content.Filter{Version: 9, Query: []string{"utm_source"}}
	n := newNode(t, hosts[0], func(*node) Filler { return origin }, func(c *Config) {
		c.Filter = func(version uint32) (content.Filter, bool) {
			return map[uint32]content.Filter{0: {}, 9: former}[version], version == 0 || version == 9
		}
	})
	noSeed := newNode(t, hosts[1], func(*node) Filler { return origin }, func(c *Config) { c.Seed = false })
	reader := newNode(t, hosts[2], func(*node) Filler { return origin }, nil)
	connectAll(t, n, noSeed, reader)
	want := content.Range{Len: 10}
	noFill, noOrigin, circle, long, foreign, filter, older := ask(t, want), ask(t, want), ask(t, want), ask(t, want), ask(t, want), ask(t, want), ask(t, want)
	noFill.NoFill = true
	noOrigin.Origin = nil
	circle.Path = []peer.ID{reader.id(), n.id(), reader.id()}
	for range rangeread.MaxPath {
		_, id := p2ptest.Key(t)
		long.Path = append(long.Path, id)
	}
	foreign.Origin.URL += "?other"
	filter.Origin.FilterVersion = 7
	older.Origin.FilterVersion = former.Version // but the name of another
	for _, tc := range []struct {
		name   string
		at     *node
		req    rangeread.Request
		status rangeread.Status
	}{
		{"no fill", n, noFill, rangeread.StatusNotFound},
		{"no origin", n, noOrigin, rangeread.StatusNotFound},
		{"self in the path", n, circle, rangeread.StatusNotFound},
		{"path too long to add to", n, long, rangeread.StatusNotFound},
		{"no seed", noSeed, ask(t, want), rangeread.StatusNotFound},
		{"another URL", n, foreign, rangeread.StatusForbidden},
		{"another filter", n, filter, rangeread.StatusForbidden},
		{"a name of another filter", n, older, rangeread.StatusForbidden},
	} {
		_, err := reader.readPeer(t.Context(), tc.at.id(), tc.req, nil)
		if got := rangeread.StatusOf(err); got != tc.status {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.status)
		}
	}
	if n := origin.fills.Load(); n != 0 {
		t.Errorf("%d fills were started", n)
	}
	if _, err := reader.readPeer(t.Context(), n.id(), ask(t, want), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.readPeer(t.Context(), n.id(), noFill, nil); err != nil {
		t.Errorf("no fill, of what is held: %v", err)
	}
	older.Origin.URL += "?utm_source=1"
	task, err := content.NewTask(older.Origin.URL, former)
	if err != nil {
		t.Fatal(err)
	}
	older.Task = task.ID
	if _, err := reader.readPeer(t.Context(), n.id(), older, nil); err != nil {
		t.Errorf("by a filter that this node still knows: %v", err)
	}
}

// TestServePath: the fill for a peer knows the way to its reader, whatever the
// peer says of it.
func TestServePath(t *testing.T) {
	_, far := p2ptest.Key(t)
	paths := make(chan []peer.ID, 1)
	hosts := p2ptest.Hosts(t, 2)
	n := newNode(t, hosts[0], func(*node) Filler {
		return fillFunc(func(_ context.Context, job *Job) error {
			paths <- job.Path
			return ErrUnavailable
		})
	}, nil)
	reader := newNode(t, hosts[1], func(*node) Filler { return newFakeOrigin(1) }, nil)
	connectAll(t, n, reader)
	for _, tc := range []struct{ says, want []peer.ID }{
		{nil, []peer.ID{reader.id()}},
		{[]peer.ID{reader.id()}, []peer.ID{reader.id()}},
		{[]peer.ID{far, reader.id()}, []peer.ID{far, reader.id()}},
		{[]peer.ID{far}, []peer.ID{far, reader.id()}},
	} {
		req := ask(t, content.Range{Len: 1})
		req.Path = tc.says
		if _, err := reader.readPeer(t.Context(), n.id(), req, nil); rangeread.StatusOf(err) != rangeread.StatusNotFound {
			t.Fatal(err)
		}
		if got := <-paths; fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("path %v became %v, want %v", tc.says, got, tc.want)
		}
	}
}

// TestDemand: what is reported as demand is what was sent, not what was asked
// for.
func TestDemand(t *testing.T) {
	origin := newFakeOrigin(mib + 100)
	hosts := p2ptest.Hosts(t, 2)
	n := newNode(t, hosts[0], func(*node) Filler { return origin }, nil)
	reader := newNode(t, hosts[1], func(*node) Filler { return origin }, nil)
	connectAll(t, n, reader)
	if _, err := reader.readPeer(t.Context(), n.id(), ask(t, content.Range{Off: mib, Len: 1 << 60}), nil); err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, soon, func() bool { return n.m.Files()[0].Demand == 100 }, "a demand of 100 bytes")
}

// TestDoesNotFit: a file that the store does not take is not supported.
func TestDoesNotFit(t *testing.T) {
	origin := newFakeOrigin(mib)
	origin.meta = testMeta(store.MaxFileSize+1, `"one"`)
	m := newManager(t, origin, nil)
	if _, err := m.Open(t.Context(), request(testTask(t), content.Range{Len: 1})); !errors.Is(err, ErrNotSupported) || !errors.Is(err, store.ErrFull) {
		t.Errorf("%v, want ErrNotSupported because of ErrFull", err)
	}
}
