package storetest

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/p2pnode/p2pnode/seed/store"
)

// testModel does random operations on a store and on a map that says which
// blocks are held, and compares what they answer.
func testModel(t *testing.T, h Harness) {
	for seed := range uint64(4) {
		m := &model{h: h, s: h.Open(t, Options{}), rng: rand.New(rand.NewPCG(seed, 1)), held: map[*TestFile]map[int64]bool{}}
		for k, n := range []int{0, 1, mib, 3*mib + 17, 6 * mib} {
			m.files = append(m.files, NewFile(byte(10+k), n))
		}
		for range 250 {
			m.step(t)
		}
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

type model struct {
	h     Harness
	s     store.Store
	rng   *rand.Rand
	files []*TestFile
	held  map[*TestFile]map[int64]bool // an entry for each file that exists
}

func (m *model) step(t *testing.T) {
	f := m.files[m.rng.IntN(len(m.files))]
	held, exists := m.held[f]
	switch op := m.rng.IntN(20); {
	case op == 0 && m.h.Reopen != nil:
		again := m.h.Reopen
		if m.rng.IntN(2) == 0 {
			again = m.h.Kill
		}
		m.s = again(t, m.s)
	case op == 1:
		if err := m.s.Delete(f.Key); (err == nil) != exists {
			t.Errorf("delete: %v, exists %t", err, exists)
		}
		delete(m.held, f)
	case !exists:
		f.Create(t, m.s)
		m.held[f] = map[int64]bool{}
	default:
		file, err := m.s.Open(f.Key)
		if err != nil {
			t.Fatal(err)
		}
		m.onFile(t, op, f, file, held)
	}
	m.compare(t)
}

func (m *model) onFile(t *testing.T, op int, f *TestFile, file store.File, held map[int64]bool) {
	if f.Blocks() == 0 {
		return
	}
	i := m.rng.Int64N(f.Blocks())
	switch {
	case op < 8:
		f.Write(t, file, i)
		held[i] = true
	case op < 11:
		if err := file.Drop(i); err != nil {
			t.Error(err)
		}
		delete(held, i)
	default:
		off := m.rng.Int64N(f.Info.Size)
		n := 1 + m.rng.Int64N(min(f.Info.Size-off, 1+m.rng.Int64N(2*mib)))
		all := true
		for b := off / mib; b <= (off+n-1)/mib; b++ {
			all = all && held[b]
		}
		verify := m.rng.IntN(2) == 0
		if all {
			f.Want(t, file, off, int(n), verify)
		} else if err := file.ReadAt(make([]byte, n), off, verify); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("read %d from %d with blocks missing: %v", n, off, err)
		}
	}
}

func (m *model) compare(t *testing.T) {
	var used int64
	for f, held := range m.held {
		file, err := m.s.Open(f.Key)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Blocks() {
			if file.Has(i) != held[i] {
				t.Errorf("block %d: held %t, want %t", i, file.Has(i), held[i])
			}
		}
		for i := range held {
			used += f.Info.Layout().Block(i).Len
		}
		if file.Count() != int64(len(held)) {
			t.Errorf("count %d, want %d", file.Count(), len(held))
		}
	}
	if m.s.Used() != used {
		t.Errorf("used %d, want %d", m.s.Used(), used)
	}
}
