package seed

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

// TestEachBlockIsFilledOnce: 20 readers with overlapping ranges cost one reading
// of each block. In the build without shared flights, the negative control, the
// same count must notice.
func TestEachBlockIsFilledOnce(t *testing.T) {
	const size = 5*mib + 12345
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		origin := newFakeOrigin(size)
		origin.chunk = 16 * kib
		m := newManager(t, origin, nil)
		var readers []func() error
		for i := range 20 {
			want := content.Range{Len: size}
			if i >= 4 {
				want.Off = r.Int64N(size - 1)
				want.Len = 1 + r.Int64N(size-want.Off)
			}
			readers = append(readers, func() error {
				got, err := readRange(t.Context(), t, m, want)
				return sameBytes(got, err, origin.data, want)
			})
		}
		if err := parallel(readers...); err != nil {
			t.Fatal(err)
		}
		most, sent := origin.maxCopies(), origin.bytes.Load()
		if once := most == 1 && sent == size; once != shared {
			t.Errorf("shared %v: a block was read up to %d times, %d bytes in all of a file of %d", shared, most, sent, size)
		}
	}
}

// TestWarmReads: what is held is read without a fill, also from the start of a
// new manager on the same store.
func TestWarmReads(t *testing.T) {
	origin := newFakeOrigin(2*mib + 1)
	m := newManager(t, origin, nil)
	mustRead(t, m, origin.data, content.Range{Len: int64(len(origin.data))})
	waitStored(t, m, 3)
	fills := origin.fills.Load()
	mustRead(t, m, origin.data, content.Range{Off: mib - 3, Len: 7})
	again := newManager(t, origin, func(c *Config) { c.Store = m.cfg.Store })
	mustRead(t, again, origin.data, content.Range{Len: int64(len(origin.data))})
	if n := origin.fills.Load(); n != fills {
		t.Errorf("%d fills for bytes that are held", n-fills)
	}
	for _, m := range []*Manager{m, again} {
		held := m.Files()
		if len(held) != 1 || held[0].Blocks != 3 || held[0].Bytes() != int64(len(origin.data)) {
			t.Errorf("held: %+v, want one file of 3 blocks", held)
		}
	}
}

// slowStore tells when a file is in the store, before its maker knows.
type slowStore struct {
	store.Store
	created func()
}

func (s slowStore) Create(key store.Key, info store.Info) (store.File, error) {
	f, err := s.Store.Create(key, info)
	s.created()
	return f, err
}

// TestReaderWhileAFileIsMade: who comes when the store has a file already, but
// not yet its first flight, joins the one who makes it.
func TestReaderWhileAFileIsMade(t *testing.T) {
	origin := newFakeOrigin(2*mib + 1)
	var m *Manager
	var second error
	var ended sync.WaitGroup
	m = newManager(t, origin, func(c *Config) {
		c.Store = slowStore{c.Store, sync.OnceFunc(func() {
			ended.Go(func() {
				r := request(testTask(t), content.Range{Len: 1})
				r.Expect = origin.meta.Generation // as who has a grant
				f, err := m.Open(context.Background(), r)
				if second = err; err == nil {
					got, err := readFile(context.Background(), f, r.Want)
					second = errors.Join(sameBytes(got, err, origin.data, r.Want), f.Close())
				}
			})
			p2ptest.Eventually(t, soon, func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				joined := false
				if j := m.resolves[testTask(t).ID]; j != nil {
					j.mu.Lock()
					joined = j.followers > 1
					j.mu.Unlock()
				}
				return joined || origin.fills.Load() > 1
			}, "the second reader has come")
		})}
	})
	mustRead(t, m, origin.data, content.Range{Len: mib})
	ended.Wait()
	if second != nil {
		t.Error(second)
	}
	if n := origin.fills.Load(); n != 1 {
		t.Errorf("%d fills of one block", n)
	}
}
