package seed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// untold is a Filler that reads a file from memory whose origin does not tell its
// size, in pieces of any length. step, where set, runs before each.
type untold struct {
	*fakeOrigin
	rnd *rand.Rand
}

func newUntold(n int) *untold {
	o := &untold{fakeOrigin: sequentialOrigin(n), rnd: rand.New(rand.NewPCG(8, uint64(n)))}
	return o
}

// Fill implements Filler. A file that is known it reads as one without ranges.
func (o *untold) Fill(ctx context.Context, job *Job) error {
	if _, known := job.Meta(); known {
		return o.fakeOrigin.Fill(ctx, job)
	}
	o.fills.Add(1)
	defer o.ended.Add(1)
	job.AskOrigin()
	found := Found{Meta: o.meta, CacheControl: "max-age=60"}
	found.Size = -1
	found.Generation, _ = content.OpenGeneration(found.ETag)
	if job.Want().Empty() {
		return job.Unsized(found)
	}
	if err := job.Grow(found); err != nil {
		return err
	}
	for pos := int(job.Grew()); pos < len(o.data); {
		if o.step != nil {
			if err := o.step(ctx, int64(pos)); err != nil {
				return err
			}
		}
		n := min(1+o.rnd.IntN([]int{10, content.LeafSize + 1, 200 * kib}[o.rnd.IntN(3)]), len(o.data)-pos)
		if err := job.Append(o.data[pos : pos+n]); err != nil {
			return err
		}
		o.bytes.Add(int64(n))
		pos += n
	}
	return job.Grown(ctx)
}

// stream reads a file of unknown size from off on.
func stream(ctx context.Context, f *File, buf []byte, off int64) ([]byte, error) {
	var out []byte
	for {
		n, _, err := f.Stream(ctx, buf, off+int64(len(out)))
		out = append(out, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

func unsized(t testing.TB, want content.Range) Request {
	r := request(testTask(t), want)
	r.Unsized = true
	return r
}

// TestGrowing: readers of a file of unknown size, with buffers of any size, all
// get all of it from one reading; then it is a file of its size, and the spool is
// empty.
func TestGrowing(t *testing.T) {
	for _, size := range []int{0, 1, content.LeafSize, content.LeafSize + 1, 2*mib + 77*kib + 5, 3 * mib} {
		g := newGate(int64(size / 2))
		origin := newUntold(size)
		origin.step = g.step
		spool := t.TempDir()
		m := newManager(t, origin, func(c *Config) { c.Spool = spool })
		var readers []func() error
		for i, n := range []int{1000, content.LeafSize, 3*content.LeafSize + 5, 256 * kib} {
			f, err := m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
			if empty := (*RangeError)(nil); size == 0 && errors.As(err, &empty) {
				continue // its end has come
			}
			if err != nil {
				t.Fatal(err)
			}
			if size > mib && (f.Sized() || f.Meta().Size != -1) {
				t.Fatalf("the size is known: %d", f.Meta().Size)
			}
			readers = append(readers, func() error {
				defer f.Close()
				if !f.Sized() {
					got, err := stream(t.Context(), f, make([]byte, n), 0)
					if err == nil && f.Meta().Size != int64(size) {
						err = errors.New("the end does not tell the size")
					}
					return sameBytes(got, err, origin.data, content.Range{Len: int64(size)})
				}
				return nil
			})
			if i == 2 {
				g.open(always)
			}
		}
		readers = append(readers, func() error { // one that needs the size
			got, err := readRange(t.Context(), t, m, content.Range{Len: int64(size)})
			var empty *RangeError
			if size == 0 && errors.As(err, &empty) {
				return nil
			}
			return sameBytes(got, err, origin.data, content.Range{Len: int64(size)})
		})
		if err := parallel(readers...); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if n := origin.bytes.Load(); n != int64(size) {
			t.Errorf("%d bytes were read, of a file of %d", n, size)
		}
		p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 }, "the fill ends")
		if f := open(t, m, content.Range{}); f.Meta().Size != int64(size) || f.Meta().Generation != origin.meta.Generation || !f.Meta().Sequential {
			t.Errorf("afterwards: %+v", f.Meta())
		}
		if left, err := os.ReadDir(spool); err != nil || len(left) > 0 {
			t.Errorf("left in the spool: %v, %v", left, err)
		}
	}
}

// TestGrowingForPeers: peers follow the head, however far behind they begin, and
// are told the end; one who follows a peer is sent to the head.
func TestGrowingForPeers(t *testing.T) {
	const size = 12*mib + 5
	origin := newUntold(size)
	g := newGate(9 * mib)
	origin.step = g.step
	hosts := p2ptest.Hosts(t, 2)
	head := newNode(t, hosts[0], func(*node) Filler { return origin }, func(c *Config) { c.Spool = t.TempDir() })
	reader := newNode(t, hosts[1], func(*node) Filler { return origin }, nil)
	connectAll(t, head, reader)
	first, err := head.m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	p2ptest.Eventually(t, soon, func() bool { return origin.bytes.Load() >= 9*mib }, "most of it has come")
	var readers []func() error
	var begun sync.WaitGroup // whoever asks when the size is known gets a range
	for i := range int64(3) {
		want := content.Range{Off: i * 2 * mib, Len: mib}
		begun.Add(1)
		first := sync.OnceFunc(begun.Done)
		readers = append(readers, func() error {
			defer first()
			got, err := reader.readPeer(t.Context(), head.id(), ask(t, want), func(rangeread.Piece) { first() })
			return sameBytes(got, err, origin.data, content.Range{Len: size})
		})
	}
	readers = append(readers, func() error { begun.Wait(); g.open(always); return nil })
	if err := parallel(readers...); err != nil {
		t.Fatal(err)
	}
	if n := origin.bytes.Load(); n != size {
		t.Errorf("%d bytes were read, of a file of %d", n, size)
	}
	mustRead(t, head.m, origin.data, content.Range{Len: size}) // stored when peers heard the end
	if n := origin.bytes.Load(); n != size {
		t.Errorf("%d bytes were read in the end, of a file of %d", n, size)
	}
}

// TestGrowingAtAPeer: what a peer has of a file of unknown size it gives to
// nobody but its own clients.
func TestGrowingAtAPeer(t *testing.T) {
	origin := newUntold(mib)
	g := newGate(mib / 2)
	origin.step = g.step
	hosts := p2ptest.Hosts(t, 2)
	n := newNode(t, hosts[0], func(*node) Filler {
		return fillFunc(func(ctx context.Context, job *Job) error {
			job.AskPeer(hosts[1].ID())
			return (&askedPeer{origin}).Fill(ctx, job)
		})
	}, nil)
	other := newNode(t, hosts[1], func(*node) Filler { return origin }, nil)
	connectAll(t, n, other)
	f, err := n.m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = other.readPeer(t.Context(), n.id(), ask(t, content.Range{Len: 1}), nil)
	if rangeread.StatusOf(err) != rangeread.StatusSequential {
		t.Errorf("a peer that follows the head answered %v", err)
	}
	g.open(always)
	if got, err := stream(t.Context(), f, make([]byte, mib), 0); err != nil || !bytes.Equal(got, origin.data) {
		t.Errorf("its client got %d bytes, %v", len(got), err)
	}
	p2ptest.Eventually(t, soon, func() bool { return n.m.Stats().Fills == 0 }, "the fill ends")
	if held := n.m.Files(); len(held) != 0 {
		t.Errorf("it keeps what nobody has sealed: %+v", held)
	}
}

// askedPeer fills as untold does, but from a peer.
type askedPeer struct{ *untold }

// Fill implements Filler.
func (p *askedPeer) Fill(ctx context.Context, job *Job) error {
	found := Found{Meta: p.meta}
	found.Size = -1
	if err := job.Grow(found); err != nil {
		return err
	}
	for off := 0; off < len(p.data); off += content.LeafSize {
		if err := p.step(ctx, int64(off)); err != nil {
			return err
		}
		if err := job.Append(p.data[off : off+content.LeafSize]); err != nil {
			return err
		}
	}
	return job.Grown(ctx)
}

// TestGrowingLeft: the reading ends some time after its last follower has left,
// unless files are wanted whole; who comes later begins anew.
func TestGrowingLeft(t *testing.T) {
	for _, whole := range []bool{false, true} {
		g := newGate(mib / 2)
		origin := newUntold(mib)
		origin.step = g.step
		m := newManager(t, origin, func(c *Config) { c.Whole, c.Linger = whole, time.Millisecond })
		f, err := m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if _, _, err := f.Stream(t.Context(), buf, 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if !whole {
			p2ptest.Eventually(t, soon, func() bool { return origin.ended.Load() == 1 }, "the reading ends")
		}
		g.open(always)
		if whole {
			waitStored(t, m, 1)
		}
		mustRead(t, m, origin.data, content.Range{Len: mib})
		if n := origin.fills.Load(); whole && n != 1 || !whole && n != 2 {
			t.Errorf("whole %v: %d readings", whole, n)
		}
	}
}

// TestGrowingTooLong: a body that is longer than half the store is cut off, and
// left to others from then on; its spool goes, and the room for it comes back.
func TestGrowingTooLong(t *testing.T) {
	origin := newUntold(3 * mib)
	spool := t.TempDir()
	m := newManager(t, origin, func(c *Config) { c.Spool, c.Store = spool, store.NewMemory(2*mib) })
	f, err := m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
	if err == nil {
		_, err = stream(t.Context(), f, make([]byte, mib), 0)
		f.Close()
	}
	if !errors.Is(err, ErrNotSupported) {
		t.Errorf("got %v", err)
	}
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 }, "the fill ends")
	if _, err := m.Open(t.Context(), unsized(t, content.Range{Len: 1})); !errors.Is(err, ErrNotSupported) {
		t.Errorf("again: %v", err)
	}
	if left, err := os.ReadDir(spool); err != nil || len(left) > 0 {
		t.Errorf("left in the spool: %v, %v", left, err)
	}
	if s := m.Stats(); s.Free != s.Capacity-s.Used {
		t.Errorf("%d bytes free of %d, %d used", s.Free, s.Capacity, s.Used)
	}
}

// TestGrowingDamaged: a byte that changed in the spool is delivered to nobody.
func TestGrowingDamaged(t *testing.T) {
	g := newGate(mib)
	origin := newUntold(2 * mib)
	origin.step = g.step
	m := newManager(t, origin, func(c *Config) { c.Spool = t.TempDir() })
	f, err := m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p2ptest.Eventually(t, soon, func() bool { return origin.bytes.Load() >= mib }, "half of it has come")
	const at = 5*content.LeafSize + 9
	if _, err := f.grows.spool.WriteAt([]byte{^origin.data[at]}, at); err != nil {
		t.Fatal(err)
	}
	g.open(always)
	got, err := stream(t.Context(), f, make([]byte, 100), 0)
	if !errors.Is(err, store.ErrCorrupt) || !bytes.Equal(got, origin.data[:len(got)]) || len(got) > at {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
