package storetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// testEvictionUnderLoad has readers and writers of more than the store can hold,
// beside one who pins, drops and deletes. Every byte that is read is right, what
// is leased or pinned stays, and the quota holds at every moment.
func testEvictionUnderLoad(t *testing.T, h Harness) {
	const capacity, rounds = 10 * mib, 60
	var evicted atomic.Int64
	s := h.Open(t, Options{
		Capacity: capacity,
		Owned:    func(key store.Key, stripe int64) bool { return (int64(key.Task[0])+stripe)%3 == 0 },
		Evicted:  func(store.Key, int64, bool) { evicted.Add(1) },
	})
	var files []*TestFile
	for k := range byte(4) {
		files = append(files, NewFile(20+k, 7*mib+int(k)))
	}
	large := NewLargeFile(30, 3<<30) // stripes of four
	files = append(files, large)
	pinned := NewFile(40, mib)
	pinnedFile := pinned.Create(t, s)
	if err := pinnedFile.Pin(blockRange(0)); err != nil {
		t.Fatal(err)
	}
	pinned.Write(t, pinnedFile, 0)
	together(6, func(k int) {
		l := loader{t: t, s: s, rng: rand.New(rand.NewPCG(uint64(k), 2))}
		for range rounds {
			n := l.rng.IntN(len(files))
			l.step(files[n], n == 0)
			if s.Used() > capacity {
				t.Errorf("%d of %d bytes used", s.Used(), int64(capacity))
			}
			pinned.Want(t, pinnedFile, 7, 100, false)
		}
	})
	if evicted.Load() == 0 {
		t.Error("nothing was evicted")
	}
	var used int64
	for file := range s.Files() {
		for i := range file.Info().Layout().Blocks() {
			if file.Has(i) {
				used += file.Info().Layout().Block(i).Len
			}
		}
	}
	if s.Used() != used {
		t.Errorf("used %d, the blocks that are held have %d", s.Used(), used)
	}
	// All that was reserved has come back: the rest can be filled to the last byte.
	for _, f := range files {
		if err := s.Delete(f.Key); err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}
	f := NewFile(50, 9*mib)
	file := f.Create(t, s, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	if file.Count() != 9 || s.Used() != capacity {
		t.Errorf("%d of 9 blocks fit, used %d", file.Count(), s.Used())
	}
}

type loader struct {
	t   *testing.T
	s   store.Store
	rng *rand.Rand
}

// step does something with a block of f; a wild file's blocks are dropped, too,
// and it is deleted, whoever has a lease.
func (l *loader) step(f *TestFile, wild bool) {
	t := l.t
	file, err := l.s.Create(f.Key, f.Info)
	if err != nil {
		t.Error(err)
		return
	}
	i := l.rng.Int64N(min(f.Blocks(), 12))
	block := f.Info.Layout().Block(i)
	verify := l.rng.IntN(2) == 0
	may := []error{store.ErrNotFound}
	switch op := l.rng.IntN(12); {
	case op == 10 && wild:
		err = file.Drop(i)
	case op == 11 && wild:
		err = l.s.Delete(f.Key)
	case op == 11:
		file.Outdate(verify)
	case op < 5:
		lease := file.Lease(block)
		defer lease.Release()
		if err = f.tryWrite(file, i); err == nil {
			if err = l.read(f, file, block, verify); !wild {
				may = nil // nobody can have evicted it
			}
		} else {
			may = append(may, store.ErrFull)
		}
	default:
		from := l.rng.Int64N(block.Len)
		err = l.read(f, file, content.Span(block.Off+from, block.Off+from+1+l.rng.Int64N(block.Len-from)), verify)
	}
	if err != nil && !slices.ContainsFunc(may, func(e error) bool { return errors.Is(err, e) }) {
		t.Error(err)
	}
}

func (l *loader) read(f *TestFile, file store.File, r content.Range, verify bool) error {
	p := make([]byte, r.Len)
	err := file.ReadAt(p, r.Off, verify)
	if err == nil && !bytes.Equal(p, f.bytes(r)) {
		l.t.Errorf("%v: wrong bytes, verify %t", r, verify)
	}
	return err
}
