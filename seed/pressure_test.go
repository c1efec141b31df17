package seed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

// lent counts the buffers that the flights of a manager's files have, at one
// moment.
func lent(m *Manager) int {
	m.mu.Lock()
	files := slices.Collect(maps.Values(m.files))
	m.mu.Unlock()
	n := 0
	for _, f := range files {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, fl := range f.flights {
			fl.mu.Lock()
			defer fl.mu.Unlock()
			if fl.buf != nil {
				n++
			}
		}
	}
	return n
}

// TestBackPressure: many more blocks are wanted than may be in flight: all
// readers get theirs, and never are more buffers lent than allowed.
func TestBackPressure(t *testing.T) {
	const size = 12*mib + 1
	for _, flights := range []int{1, 2, 5} {
		origin := newFakeOrigin(size)
		var most atomic.Int64
		m := newManager(t, origin, func(c *Config) { c.MaxFlights = flights })
		origin.step = func(context.Context, int64) error {
			if n := int64(lent(m)); n > most.Load() {
				most.Store(n)
			}
			return nil
		}
		f := open(t, m, content.Range{Len: size})
		var readers []func() error
		for i := range int64(6) {
			want := content.Range{Off: i * 2 * mib, Len: size}
			readers = append(readers, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				got, err := readFile(ctx, f, want)
				return sameBytes(got, err, origin.data, want)
			})
		}
		if err := parallel(readers...); err != nil {
			t.Fatalf("%d flights: %v", flights, err)
		}
		if n := int(most.Load()); n > flights || n == 0 {
			t.Errorf("%d buffers were lent, %d allowed", n, flights)
		}
		if n := origin.maxCopies(); n != 1 {
			t.Errorf("a block was read %d times", n)
		}
	}
}

// twoWays are two nodes of which each reads the blocks of one parity from the
// origin and the others from the other node.
func twoWays(t *testing.T, origin *fakeOrigin, flights int) (a, b *node) {
	hosts := p2ptest.Hosts(t, 2)
	filler := func(owns int64, other func() *node) func(*node) Filler {
		return func(n *node) Filler {
			return peerFiller{n: n, origin: origin, from: func(job *Job) []peer.ID {
				if job.Pos()/content.BlockSize%2 == owns {
					return nil
				}
				return []peer.ID{other().id()}
			}}
		}
	}
	few := func(c *Config) { c.MaxFlights = flights }
	a = newNode(t, hosts[0], filler(0, func() *node { return b }), few)
	b = newNode(t, hosts[1], filler(1, func() *node { return a }), few)
	connectAll(t, a, b)
	return a, b
}

// TestNoDeadlockAcrossNodes: two nodes with few buffers that follow one another
// for different blocks both get all.
func TestNoDeadlockAcrossNodes(t *testing.T) {
	const size = 8 * mib
	for _, flights := range []int{1, 2, 4} {
		origin := newFakeOrigin(size)
		a, b := twoWays(t, origin, flights)
		open(t, a.m, content.Range{}) // else they might ask one another what the file is
		open(t, b.m, content.Range{})
		var readers []func() error
		for i := range int64(6) {
			want := content.Range{Off: i / 2 * 2 * mib, Len: size}
			readers = append(readers, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				got, err := readRange(ctx, t, []*node{a, b}[i%2].m, want)
				return sameBytes(got, err, origin.data, want)
			})
		}
		if err := parallel(readers...); err != nil {
			t.Fatalf("%d flights: %v", flights, err)
		}
		if n := origin.maxCopies(); n != 1 {
			t.Errorf("%d flights: a block was read %d times", flights, n)
		}
	}
}

// TestNoDeadlockByForwarding: two nodes with one buffer each, that ask one
// another for what their clients want, and fill for one another from a third.
func TestNoDeadlockByForwarding(t *testing.T) {
	const size = 16 * mib
	origin := newFakeOrigin(size)
	hosts := p2ptest.Hosts(t, 3)
	third := newNode(t, hosts[2], func(*node) Filler { return origin }, nil)
	few := func(c *Config) { c.MaxFlights = 1 }
	var a, b *node
	filler := func(other func() *node) func(*node) Filler {
		return func(n *node) Filler {
			return peerFiller{n: n, from: func(job *Job) []peer.ID {
				if len(job.Path) == 0 {
					return []peer.ID{other().id(), third.id()}
				}
				return []peer.ID{third.id()}
			}}
		}
	}
	a = newNode(t, hosts[0], filler(func() *node { return b }), few)
	b = newNode(t, hosts[1], filler(func() *node { return a }), few)
	connectAll(t, a, b, third)
	var readers []func() error
	for i := range int64(16) { // a's clients want the even blocks, b's the odd ones
		want := content.Range{Off: i * mib, Len: mib}
		readers = append(readers, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			got, err := readRange(ctx, t, []*node{a, b}[i%2].m, want)
			return sameBytes(got, err, origin.data, want)
		})
	}
	if err := parallel(readers...); err != nil {
		t.Fatal(err)
	}
	if n := origin.maxCopies(); n != 1 {
		t.Errorf("a block was read %d times", n)
	}
}

// fullStore refuses to store blocks.
type fullStore struct{ store.Store }

type fullFile struct{ store.File }

func (s fullStore) Create(k store.Key, i store.Info) (store.File, error) {
	f, err := s.Store.Create(k, i)
	return fullFile{f}, err
}

func (fullFile) Write(i int64, _ []byte, _ store.Record) error {
	return fmt.Errorf("write block %d: %w", i, store.ErrFull)
}

func full(c *Config) { c.Store = fullStore{store.NewMemory(0)} }

// TestStoreRefuses: readers get the bytes of blocks that cannot be stored,
// through peers too, and nothing is left behind.
func TestStoreRefuses(t *testing.T) {
	const size = 5*mib + 3
	origin := newFakeOrigin(size)
	hosts := p2ptest.Hosts(t, 2)
	n := newNode(t, hosts[0], func(*node) Filler { return origin }, full)
	reader := newNode(t, hosts[1], func(n2 *node) Filler {
		return peerFiller{n: n2, from: func(*Job) []peer.ID { return []peer.ID{n.id()} }}
	}, full)
	connectAll(t, n, reader)
	all := content.Range{Len: size}
	var readers []func() error
	for _, m := range []*Manager{n.m, n.m, reader.m, reader.m} {
		readers = append(readers, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			got, err := readRange(ctx, t, m, all)
			return sameBytes(got, err, origin.data, all)
		})
	}
	if err := parallel(readers...); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Manager{n.m, reader.m} {
		p2ptest.Eventually(t, soon, func() bool { return freeBuffers(m) && len(flightsNow(m)) == 0 }, "nothing is left behind")
		if h := m.Files(); h[0].Blocks != 0 {
			t.Errorf("%d blocks are held", h[0].Blocks)
		}
	}
}

// TestStoreRefusesUnderPressure: blocks that cannot be stored, and that readers
// have taken a grip on far ahead of what they read, do not keep the memory from
// the block that is read now.
func TestStoreRefusesUnderPressure(t *testing.T) {
	const size = 8 * mib
	for _, flights := range []int{1, 2, 3} {
		origin := newFakeOrigin(size)
		m := newManager(t, origin, func(c *Config) {
			full(c)
			c.MaxFlights = flights
		})
		f := open(t, m, content.Range{})
		var readers []func() error
		for i := range int64(3) {
			want := content.Range{Off: i * mib, Len: size}
			readers = append(readers, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				got, err := readFile(ctx, f, want)
				return sameBytes(got, err, origin.data, want)
			})
		}
		if err := parallel(readers...); err != nil {
			t.Fatalf("%d flights: %v", flights, err)
		}
		t.Logf("%d flights: %.1f times the file", flights, float64(origin.bytes.Load())/size)
		p2ptest.Eventually(t, soon, func() bool { return freeBuffers(m) }, "all buffers are given back")
	}
}

// diskFiles returns the data files of a Disk store.
func diskFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(dir, "data"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// TestCorruptBlocks: of a stored block that was changed on the disk not one
// wrong byte is read, by a client or by a peer; it is fetched again.
func TestCorruptBlocks(t *testing.T) {
	const size = 3*mib + 100
	dir := t.TempDir()
	disk, err := store.OpenDisk(store.DiskConfig{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	origin := newFakeOrigin(size)
	hosts := p2ptest.Hosts(t, 2)
	n := newNode(t, hosts[0], func(*node) Filler { return origin }, func(c *Config) { c.Store = disk })
	reader := newNode(t, hosts[1], func(*node) Filler { return origin }, nil)
	connectAll(t, n, reader)
	mustRead(t, n.m, origin.data, content.Range{Len: size})
	waitStored(t, n.m, 4)
	files := diskFiles(t, dir)
	if len(files) != 1 {
		t.Fatalf("data files %q", files)
	}
	read := func(want content.Range, how string) error {
		if how == "client" {
			got, err := readRange(t.Context(), t, n.m, want)
			return sameBytes(got, err, origin.data, want)
		}
		req := ask(t, want)
		req.Recheck = how == "recheck"
		got, err := reader.readPeer(t.Context(), n.id(), req, nil)
		if err == nil {
			err = sameBytes(got, nil, origin.data, content.Range{Off: want.Off / content.LeafSize * content.LeafSize, Len: int64(len(got))})
		}
		return err
	}
	for i, off := range []int64{0, mib - 1, 2*mib + 5000, size - 1} {
		for _, how := range []string{"client", "recheck"} {
			before := origin.bytes.Load()
			flip(t, files[0], off)
			if err := read(content.Range{Off: off, Len: 1}, how); err != nil {
				t.Fatalf("byte %d, %s: %v", off, how, err)
			}
			if origin.bytes.Load() == before {
				t.Errorf("byte %d, %s: right without fetching again", off, how)
			}
			waitStored(t, n.m, 4)
		}
		flip(t, files[0], off)
		if err := read(content.Range{Off: off, Len: 1}, "peer"); err == nil {
			t.Errorf("flip %d: the reader did not notice", i) // it verifies by itself
		}
		if err := read(content.Range{Off: off, Len: 1}, "recheck"); err != nil {
			t.Errorf("flip %d: after a recheck: %v", i, err)
		}
		waitStored(t, n.m, 4)
	}
	mustRead(t, n.m, origin.data, content.Range{Len: size})
}

// TestCorruptForEver: a block that is gone each time it is read from the store
// is fetched again a few times, no more.
func TestCorruptForEver(t *testing.T) {
	origin := newFakeOrigin(mib)
	m := newManager(t, origin, func(c *Config) { c.Store = rottenStore{store.NewMemory(0)} })
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	f := open(t, m, content.Range{Len: mib})
	waitStored(t, m, 1)
	got, err := readFile(ctx, f, content.Range{Len: mib})
	if err := sameBytes(got, err, origin.data, content.Range{Len: mib}); err != nil && !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want the bytes or ErrCorrupt", err)
	}
	if n := origin.fills.Load(); n < 2 || n > 1+maxTries {
		t.Errorf("%d fills, want 2 to %d", n, 1+maxTries)
	}
}

// rottenStore loses each block at its first read.
type rottenStore struct{ store.Store }

type rottenFile struct{ store.File }

func (s rottenStore) Create(k store.Key, i store.Info) (store.File, error) {
	f, err := s.Store.Create(k, i)
	return rottenFile{f}, err
}

func (f rottenFile) ReadAt(_ []byte, off int64, _ bool) error {
	return errors.Join(store.ErrCorrupt, f.Drop(off/content.BlockSize))
}
