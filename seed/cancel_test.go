package seed

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// TestLastReaderEndsTheFill: a fill that has nothing of a block yet is cancelled
// when the last of its readers leaves, and not before; who comes then starts
// anew.
func TestLastReaderEndsTheFill(t *testing.T) {
	g := newGate(0)
	origin := newFakeOrigin(3 * mib)
	origin.step = g.step
	var cause atomic.Value
	m := newManager(t, fillFunc(func(ctx context.Context, job *Job) error {
		err := origin.Fill(ctx, job)
		if ctx.Err() != nil {
			cause.Store(context.Cause(ctx))
		}
		return err
	}), nil)
	want := content.Range{Len: mib}
	f := open(t, m, want)
	a, err := f.Hold(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Hold(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	a[0].Release()
	if len(flightsNow(m)) == 0 || origin.ended.Load() != 0 {
		t.Fatal("the fill ended although it is followed")
	}
	b[0].Release()
	p2ptest.Eventually(t, soon, func() bool { return origin.ended.Load() == 1 }, "the fill ends")
	if err, _ := cause.Load().(error); !errors.Is(err, errAbandoned) {
		t.Errorf("cause %v, want errAbandoned", err)
	}
	g.open(always)
	mustRead(t, m, origin.data, content.Range{Len: 3 * mib})
	if n := origin.bytes.Load(); n != 3*mib {
		t.Errorf("%d bytes were read, want each once", n)
	}
}

// TestBlockInProgressIsFinished: a fill that has some of a block ends when that
// block is whole, since those bytes would have to be fetched again; it goes on
// for one who comes meanwhile.
func TestBlockInProgressIsFinished(t *testing.T) {
	for _, joined := range []bool{false, true} {
		g := newGate(mib + 100*kib)
		origin := newFakeOrigin(3 * mib)
		origin.step = g.step
		m := newManager(t, origin, nil)
		f := open(t, m, content.Range{Len: 1})
		waitStored(t, m, 1)
		j, err := f.f.fill(f.q, content.Range{Off: mib, Len: 2 * mib})
		if err != nil {
			t.Fatal(err)
		}
		p2ptest.Eventually(t, soon, func() bool { return origin.bytes.Load() > mib }, "the second block is in progress")
		j.leave()
		want := int64(2 * mib)
		if joined {
			if !j.join("") {
				t.Fatal("cannot join a fill that goes on")
			}
			want = 3 * mib
		}
		g.open(always)
		<-j.ended
		if n := origin.bytes.Load(); n != want {
			t.Errorf("joined %v: %d bytes were read, want %d", joined, n, want)
		}
		if joined {
			j.leave()
		}
		mustRead(t, m, origin.data, content.Range{Len: 3 * mib})
		if n := origin.maxCopies(); n != 1 {
			t.Errorf("joined %v: a block was read %d times", joined, n)
		}
	}
}

// fill starts a fill of a run, as a reader of it does.
func (f *file) fill(q query, run content.Range) (*Job, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fillLocked(q, run)
}

// TestReadersComeAndGo: readers that leave at any moment neither hang the others
// nor make them fail.
func TestReadersComeAndGo(t *testing.T) {
	origin := newFakeOrigin(4*mib + 5)
	r := rand.New(rand.NewPCG(3, 4))
	m := newManager(t, origin, func(c *Config) { c.MaxFlights = 3 })
	for range 12 {
		var readers []func() error
		for range 4 {
			want := content.Range{Off: r.Int64N(4 * mib), Len: 1 + r.Int64N(2*mib)}
			readers = append(readers, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				got, err := readRange(ctx, t, m, want)
				return sameBytes(got, err, origin.data, want)
			})
			leave := r.Int64N(200 * kib)
			readers = append(readers, func() error {
				f, err := m.Open(t.Context(), request(testTask(t), want))
				if err != nil {
					return err
				}
				defer f.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if leave < 20*kib {
					cancel()
				}
				_, err = readFile(ctx, f, content.Range{Off: want.Off, Len: leave})
				if errors.Is(err, context.Canceled) {
					return nil
				}
				return err
			})
		}
		if err := parallel(readers...); err != nil {
			t.Fatal(err)
		}
		for _, disk := range m.Files() { // cold again
			f, err := m.cfg.Store.Open(disk.Key)
			if err != nil {
				t.Fatal(err)
			}
			for i := range f.Info().Layout().Blocks() {
				if err := f.Drop(i); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestCloseDuringFills: Close ends all fills and their readers, and leaves
// neither goroutines nor buffers behind.
func TestCloseDuringFills(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	g := newGate(2*mib + 1)
	origin := newFakeOrigin(6 * mib)
	origin.step = g.step
	m := newManager(t, origin, func(c *Config) { c.MaxFlights = 2 })
	unresolved := newManager(t, fillFunc(func(ctx context.Context, _ *Job) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}), nil)
	var readers []func() error
	for i := range int64(8) {
		readers = append(readers, func() error {
			want := content.Range{Off: i * mib / 2, Len: 3 * mib}
			if _, err := readRange(t.Context(), t, m, want); !errors.Is(err, ErrClosed) {
				return errors.Join(errors.New("want ErrClosed, got"), err)
			}
			return nil
		}, func() error {
			if _, err := unresolved.Open(t.Context(), request(testTask(t), content.Range{Len: 1})); !errors.Is(err, ErrClosed) {
				return errors.Join(errors.New("want ErrClosed, got"), err)
			}
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- parallel(readers...) }()
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills > 2 && unresolved.Stats().Fills == 1 }, "fills run")
	closeManager(t, m)
	closeManager(t, unresolved)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), Request{Task: content.Task{ID: content.TaskID{9}}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Open after Close: %v, want ErrClosed", err)
	}
}

// TestJoinedByAClient: a job that runs for a peer is a client's as well from when
// one of this node's has joined it.
func TestJoinedByAClient(t *testing.T) {
	g := newGate(kib)
	origin := newFakeOrigin(mib)
	origin.step = g.step
	m := newManager(t, origin, nil)
	q := query{task: testTask(t), from: "peer", path: []peer.ID{"peer"}}
	r, err := m.resolve(&q, content.Range{Len: 1})
	if err != nil || !r.own {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, c := range []struct {
		from peer.ID
		want bool
	}{{"peer 2", false}, {"", true}, {"peer 3", true}} {
		if q.from = c.from; !r.job.join(q.from) || r.job.ForClient() != c.want {
			t.Errorf("joined by %q: for a client %t, want %t", c.from, r.job.ForClient(), c.want)
		}
	}
	g.open(always)
	<-r.job.ended
}
