package seed

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

func sequentialOrigin(n int) *fakeOrigin {
	origin := newFakeOrigin(n)
	origin.meta.Sequential = true
	return origin
}

// TestSequentialOrigin: of an origin without ranges the file is read once, from
// its start, for readers of any range; asking for the metadata reads nothing.
func TestSequentialOrigin(t *testing.T) {
	const size = 10*mib + 1
	r := rand.New(rand.NewPCG(5, 6))
	for range 5 {
		origin := sequentialOrigin(size)
		m := newManager(t, origin, func(c *Config) { c.MaxFlights = 2 })
		open(t, m, content.Range{})
		if n := origin.bytes.Load(); n != 0 {
			t.Errorf("%d bytes were read for the metadata", n)
		}
		var readers []func() error
		for range 12 {
			want := content.Range{Off: r.Int64N(size - 1)}
			want.Len = 1 + r.Int64N(size-want.Off)
			readers = append(readers, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				got, err := readRange(ctx, t, m, want)
				return sameBytes(got, err, origin.data, want)
			})
		}
		if err := parallel(readers...); err != nil {
			t.Fatal(err)
		}
		waitStored(t, m, 11)
		if n := origin.bytes.Load(); n != size {
			t.Errorf("%d bytes were read of %d", n, size)
		}
	}
}

// TestSequentialLingers: the one reading goes on while somebody has the file open,
// and a while longer. Then it stops, unless files are wanted whole or most of it
// was read.
func TestSequentialLingers(t *testing.T) {
	const size = 6 * mib
	for _, tc := range []struct {
		name  string
		read  int64 // bytes that have come when the last reader leaves
		whole bool
		store int64
		back  bool // a reader comes back in time
		goes  bool
	}{
		{name: "asked", read: mib + mib/2},
		{name: "asked, most was read", read: 3*mib + mib/2, goes: true},
		{name: "whole", read: mib + mib/2, whole: true, goes: true},
		{name: "whole, but more than half of the store", read: mib + mib/2, whole: true, store: 2*size - mib},
		{name: "asked, and somebody is back", read: mib + mib/2, back: true, goes: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(tc.read)
				origin := sequentialOrigin(size)
				origin.step = g.step
				m := newManager(t, origin, func(c *Config) { c.Whole, c.Store = tc.whole, store.NewMemory(tc.store) })
				f, err := m.Open(t.Context(), request(testTask(t), content.Range{Len: 1}))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour) // open, but no block is waited for
				if n := origin.bytes.Load(); n != tc.read || m.Stats().Fills != 1 {
					t.Fatalf("%d bytes were read, %d fills", n, m.Stats().Fills)
				}
				f.Close()
				time.Sleep(DefaultLinger - time.Second)
				if tc.back {
					open(t, m, content.Range{})
				}
				time.Sleep(time.Hour)
				if goes := m.Stats().Fills == 1; goes != tc.goes {
					t.Fatalf("the reading goes on: %v, want %v", goes, tc.goes)
				}
				g.open(always)
				synctest.Wait()
				read := origin.bytes.Load()
				if tc.goes && read != size || !tc.goes && read != tc.read {
					t.Errorf("%d bytes were read", read)
				}
				mustRead(t, m, origin.data, content.Range{Len: size})
			})
		})
	}
}

// TestSequentialHugeSize: a size that an origin claims costs no memory, neither
// when the file is met nor when it is read anywhere.
func TestSequentialHugeSize(t *testing.T) {
	const size = int64(store.MaxFileSize)
	g := newGate(3 * mib)
	origin := sequentialOrigin(4 * mib)
	origin.step = g.step
	origin.meta = testMeta(size, `"huge"`)
	origin.meta.Sequential = true
	m := newManager(t, origin, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := open(t, m, content.Range{Len: mib})
	got, err := readFile(t.Context(), f, content.Range{Len: 2*mib + 5})
	if err := sameBytes(got, err, origin.data, content.Range{Len: 2*mib + 5}); err != nil {
		t.Fatal(err)
	}
	far, err := f.Hold(t.Context(), content.Range{Off: size - 1, Len: 1})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 16*mib {
		t.Errorf("a claim of %d bytes takes %d bytes of memory", size, n)
	}
	if n := len(flightsNow(m)); n > 4 {
		t.Errorf("%d flights, of which 2 are waited for", n)
	}
	far[0].Release()
}

// TestSequentialAfterAFailure: after a reading that failed in the middle the
// readers of what is missing share one new reading, from the start; what is
// stored stays.
func TestSequentialAfterAFailure(t *testing.T) {
	const size = 8 * mib
	broken := errors.New("origin broke off")
	origin := sequentialOrigin(size)
	fail := true
	origin.step = func(_ context.Context, pos int64) error {
		if fail && pos >= 3*mib+mib/2 {
			return broken
		}
		return nil
	}
	m := newManager(t, origin, nil)
	if _, err := readRange(t.Context(), t, m, content.Range{Len: size}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 }, "the fill ends")
	waitStored(t, m, 3)
	fail = false
	before := origin.bytes.Load()
	f := open(t, m, content.Range{})
	var readers []func() error
	for i := range int64(8) {
		want := content.Range{Off: (7 - i) * mib, Len: mib}
		readers = append(readers, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			got, err := readFile(ctx, f, want)
			return sameBytes(got, err, origin.data, want)
		})
	}
	if err := parallel(readers...); err != nil {
		t.Fatal(err)
	}
	waitStored(t, m, 8)
	if n := origin.bytes.Load() - before; n > size {
		t.Errorf("%d bytes were read again, of a file of %d", n, size)
	}
}

// TestSequentialFromPeers: a peer of the head reads only what it wants.
func TestSequentialFromPeers(t *testing.T) {
	const size = 6 * mib
	origin := sequentialOrigin(size)
	hosts := p2ptest.Hosts(t, 2)
	head := newNode(t, hosts[0], func(*node) Filler { return origin }, nil)
	reader := newNode(t, hosts[1], func(n *node) Filler {
		return peerFiller{n: n, from: func(*Job) []peer.ID { return []peer.ID{head.id()} }}
	}, nil)
	connectAll(t, head, reader)
	mustRead(t, reader.m, origin.data, content.Range{Off: 4*mib + 5, Len: 100})
	waitStored(t, reader.m, 1)
	waitStored(t, head.m, 6)
	if n := origin.bytes.Load(); n != size {
		t.Errorf("%d bytes were read of %d", n, size)
	}
	if f := open(t, reader.m, content.Range{}); !f.Meta().Sequential {
		t.Error("the reader does not know that the origin has no ranges")
	}
}
