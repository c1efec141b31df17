package storetest

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

func sameRecord(a, b store.Record) bool {
	return a.Root == b.Root && a.Signer == b.Signer && bytes.Equal(a.Sig, b.Sig) && bytes.Equal(a.Outboard, b.Outboard)
}

func testBlocks(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(1, 9*mib+1)
	file := f.Create(t, s)
	if !slices.Equal(file.Bitmap(), []byte{0, 0}) || file.Key() != f.Key || file.Info() != f.Info {
		t.Errorf("new file: bitmap %v, key %v, info %+v", file.Bitmap(), file.Key(), file.Info())
	}
	for _, i := range []int64{9, 0, 2} {
		f.Write(t, file, i)
		f.Write(t, file, i) // held already: as it is
	}
	if !slices.Equal(file.Bitmap(), []byte{0b101, 0b10}) || file.Count() != 3 || s.Used() != 2*mib+1 {
		t.Errorf("bitmap %b, count %d, used %d", file.Bitmap(), file.Count(), s.Used())
	}
	for i := int64(-1); i <= 10; i++ {
		held := i == 0 || i == 2 || i == 9
		if file.Has(i) != held {
			t.Errorf("has %d: %t", i, file.Has(i))
		}
		got, err := file.Record(i)
		if !held {
			wantErr(t, err, store.ErrNotFound)
			wantErr(t, file.Check(i), store.ErrNotFound)
			continue
		}
		if _, want := f.Block(i); err != nil || !sameRecord(got, want) {
			t.Errorf("record %d: %v", i, err)
		}
		if err := file.Check(i); err != nil {
			t.Error(err)
		}
	}

	if err := errors.Join(file.Drop(2), file.Drop(2), file.Drop(-1)); err != nil {
		t.Error(err)
	}
	wantErr(t, file.ReadAt(make([]byte, 1), 2*mib, false), store.ErrNotFound)
	_, err := file.Record(2)
	wantErr(t, err, store.ErrNotFound)
	if file.Has(2) || file.Count() != 2 || s.Used() != mib+1 {
		t.Errorf("after Drop: has %t, count %d, used %d", file.Has(2), file.Count(), s.Used())
	}
	f.Write(t, file, 2)
	f.Want(t, file, 2*mib, mib, true)
}

func testReads(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(2, 3*mib+20_000)
	file := f.Create(t, s, 0, 1, 3)
	const leaf = content.LeafSize
	for _, verify := range []bool{true, false} {
		for _, r := range []struct {
			off int64
			n   int
		}{
			{0, 0}, {0, 1}, {leaf - 1, 1}, {leaf - 1, 2}, {leaf, leaf}, {1, leaf}, {5, 3*leaf + 1}, {leaf, 3*leaf + 1},
			{mib - 1, 1}, {mib, 1}, {mib - 1, 2}, {0, 2 * mib}, {7, 2*mib - 7}, {2*mib - 1, 1},
			{3 * mib, 20_000}, {3*mib + leaf, 3616}, {3*mib + 19_999, 1}, {3*mib + 20_000, 0}, {3*mib + 1, 19_999},
		} {
			f.Want(t, file, r.off, r.n, verify)
		}
		for off := int64(0); off < 4*leaf; off += 997 {
			f.Want(t, file, 3*mib-4*leaf+off-mib, 1, verify)
		}
		for _, r := range []content.Range{{Off: 2 * mib, Len: 1}, {Off: 2*mib - 1, Len: 2}, {Off: 3*mib - 1, Len: 2}} {
			wantErr(t, file.ReadAt(make([]byte, r.Len), r.Off, verify), store.ErrNotFound)
		}
		for _, r := range []content.Range{{Off: -1, Len: 1}, {Off: f.Info.Size, Len: 1}, {Off: f.Info.Size - 1, Len: 2}, {Off: 1<<63 - 1, Len: 1}} {
			if file.ReadAt(make([]byte, r.Len), r.Off, verify) == nil {
				t.Errorf("read %v of %d bytes", r, f.Info.Size)
			}
		}
	}
}

func testRefusedWrites(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(1, mib+100)
	file := f.Create(t, s)
	full, fullRec := f.Block(0)
	short, shortRec := f.Block(1)
	_, other := NewFile(3, mib).Block(0)
	long := fullRec
	long.Sig = make([]byte, 1<<16)
	resized := fullRec
	resized.Outboard = bytes.Clone(fullRec.Outboard)
	resized.Outboard[0]++
	for name, w := range map[string]struct {
		i    int64
		data []byte
		rec  store.Record
	}{
		"no such block":       {2, short, shortRec},
		"negative block":      {-1, full, fullRec},
		"short data":          {0, short, shortRec},
		"long data":           {1, full, fullRec},
		"no data":             {0, nil, fullRec},
		"no record":           {0, full, store.Record{}},
		"another's outboard":  {0, full, store.Record{Seal: fullRec.Seal, Outboard: other.Outboard}},
		"another's root":      {0, full, store.Record{Seal: other.Seal, Outboard: fullRec.Outboard}},
		"cut outboard":        {0, full, store.Record{Seal: fullRec.Seal, Outboard: fullRec.Outboard[:64]}},
		"outboard's length":   {0, full, resized},
		"oversized signature": {0, full, long},
	} {
		if err := file.Write(w.i, w.data, w.rec); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	if file.Count() != 0 || s.Used() != 0 {
		t.Errorf("count %d, used %d after refused writes", file.Count(), s.Used())
	}
}

func testFlippedData(t *testing.T, h Harness) {
	const n = 2*mib + 100
	for _, off := range []int64{0, content.LeafSize - 1, mib - 1, mib + 500_000, n - 1} {
		s := h.Open(t, Options{})
		f := NewFile(1, n)
		file := f.Create(t, s, 0, 1, 2)
		bad := off / mib
		h.FlipData(t, s, f.Key, off)
		p := make([]byte, 1)
		wantErr(t, file.ReadAt(p, off, true), store.ErrCorrupt)
		if file.Has(bad) || file.Count() != 2 {
			t.Errorf("flip at %d: has %t, count %d", off, file.Has(bad), file.Count())
		}
		wantErr(t, file.ReadAt(p, off, true), store.ErrNotFound)
		for i := range int64(3) {
			if i != bad {
				block := f.Info.Layout().Block(i)
				f.Want(t, file, block.Off, int(block.Len), true)
			}
		}
		f.Write(t, file, bad)
		f.Want(t, file, 0, n, true)

		h.FlipData(t, s, f.Key, off)
		wantErr(t, file.Check(bad), store.ErrCorrupt)
		wantErr(t, file.Check(bad), store.ErrNotFound)
	}
}

func testFlippedRecord(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(1, 2*mib)
	f.Create(t, s, 0, 1)
	h.FlipRecord(t, s, f.Key, 1)
	if h.Reopen != nil {
		s = h.Reopen(t, s)
	}
	file, err := s.Open(f.Key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.Record(1)
	wantErr(t, err, store.ErrCorrupt)
	wantErr(t, file.ReadAt(make([]byte, 1), mib, false), store.ErrNotFound)
	f.Want(t, file, 0, mib, true)
	f.Write(t, file, 1)
	f.Want(t, file, 0, 2*mib, true)

	// Check looks at what is stored, not at what it remembers.
	h.FlipRecord(t, s, f.Key, 1)
	wantErr(t, file.Check(1), store.ErrCorrupt)
}

// testConcurrent has one worker drop blocks and write them again while others
// read: they may find a block missing, but no byte wrong.
func testConcurrent(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(4, 8*mib+3)
	file := f.Create(t, s)
	together(8, func(k int) {
		for j := range f.Blocks() {
			i := (j + int64(k)) % f.Blocks()
			data, rec := f.Block(i)
			if err := file.Write(i, data, rec); err != nil {
				t.Error(err)
			}
			p := make([]byte, len(data))
			if err := file.ReadAt(p, i*mib, k%2 == 0); err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Error(err)
			} else if err == nil && !bytes.Equal(p, data) {
				t.Errorf("block %d: wrong bytes, verify %t", i, k%2 == 0)
			}
			if k == 0 && j%2 == 0 {
				if err := file.Drop(i); err != nil {
					t.Error(err)
				}
				if err := file.Write(i, data, rec); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if t.Failed() {
		return
	}
	if file.Count() != f.Blocks() || s.Used() != f.Info.Size {
		t.Errorf("count %d, used %d", file.Count(), s.Used())
	}
	f.Want(t, file, 0, len(f.Data), true)
}

func testDeleteUnderReaders(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(5, 2*mib)
	var stop atomic.Bool
	started := make(chan struct{}, 4)
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(4, func(k int) {
			p := make([]byte, 40_000)
			for n := 0; !stop.Load(); n++ {
				file, err := s.Open(f.Key)
				if err == nil {
					off := int64((n*7919 + k) % (2*mib - len(p)))
					if err = file.ReadAt(p, off, k%2 == 0); err == nil && !bytes.Equal(p, f.Data[off:off+int64(len(p))]) {
						t.Error("wrong bytes beside a Delete")
					}
				}
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
				}
				if n == 0 {
					started <- struct{}{}
				}
			}
		})
	}()
	defer func() { <-done }()
	defer stop.Store(true)
	for range 4 {
		<-started
	}
	for range 12 {
		file := f.Create(t, s, 0, 1)
		if err := file.Drop(0); err != nil {
			t.Error(err)
		}
		f.Write(t, file, 0)
		if err := s.Delete(f.Key); err != nil {
			t.Error(err)
		}
	}
	if s.Used() != 0 {
		t.Errorf("used %d", s.Used())
	}
}
