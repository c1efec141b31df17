package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

func testLeases(t *testing.T, h Harness) {
	d, c := new(diary), newClock()
	s := h.Open(t, Options{Capacity: capacityOf(4), Evicted: d.evicted, Now: c.now})
	f, other := NewFile(1, 4*mib+5), NewFile(2, 6*mib)
	file := f.Create(t, s, 0, 1, 2, 3)
	otherFile := other.Create(t, s)
	all := file.Lease(content.Range{Off: 2*mib - 1, Len: 1 << 60})
	first := file.Lease(content.Range{Len: 1})
	again := file.Lease(content.Range{Len: 1})
	nothing := file.Lease(content.Range{Off: 1 << 40, Len: 7})
	wantErr(t, other.tryWrite(otherFile, 0), store.ErrFull)
	if file.Count() != 4 || otherFile.Has(0) || s.Used() != 4*mib {
		t.Errorf("after a refused write: count %d, used %d", file.Count(), s.Used())
	}
	f.Want(t, file, 0, 4*mib, true)
	first.Release()
	first.Release() // once is enough
	nothing.Release()
	wantErr(t, other.tryWrite(otherFile, 0), store.ErrFull)
	again.Release()
	other.Write(t, otherFile, 0)
	d.want(t, "1:0")
	small := NewFile(3, 10)
	small.Create(t, s, 0)
	rest := otherFile.Lease(blockRange(0))
	all2 := file.Lease(content.Range{Len: 2 * mib})
	wantErr(t, other.tryWrite(otherFile, 5), store.ErrFull)
	d.want(t) // what could go would not have been enough
	rest.Release()
	all2.Release()
	if err := s.Delete(small.Key); err != nil {
		t.Fatal(err)
	}
	all.Release()
	new(store.Lease).Release()
	c.advance(time.Second)
	f.Want(t, file, mib, 3*mib, true)
	other.Write(t, otherFile, 1)
	d.want(t, "2:0!")

	// A lease taken before there are blocks holds those that come.
	ahead := otherFile.Lease(content.Range{Off: 2 * mib, Len: 3 * mib})
	c.advance(-time.Hour)
	for i := int64(2); i < 5; i++ {
		other.Write(t, otherFile, i)
	}
	c.advance(time.Hour)
	f.Write(t, file, 0)
	for i := int64(2); i < 5; i++ {
		if !otherFile.Has(i) {
			t.Errorf("block %d went in spite of the lease", i)
		}
	}
	ahead.Release()
}

// testLateLeases has a stripe leased, and one pinned, when it was already chosen.
func testLateLeases(t *testing.T, h Harness) {
	var file store.File
	var lease store.Lease
	d, c := new(diary), newClock()
	f, other := NewFile(1, 4*mib), NewFile(2, mib)
	s := h.Open(t, Options{Capacity: capacityOf(4), Evicted: d.evicted, Now: c.now, Owned: func(key store.Key, stripe int64) bool {
		switch stripe {
		case 0:
			lease.Release()
			lease = file.Lease(blockRange(0))
		case 1:
			if err := file.Pin(blockRange(1)); err != nil {
				t.Error(err)
			}
		}
		return stripe > 1
	}})
	file = f.Create(t, s, 0, 1, 2, 3)
	other.Create(t, s, 0)
	d.want(t, "1:2")
	lease.Release()
	f.Want(t, file, 0, 2*mib, true)
}

func testPins(t *testing.T, h Harness) {
	d, c := new(diary), newClock()
	s := h.Open(t, Options{Capacity: capacityOf(4), Evicted: d.evicted, Now: c.now})
	f, other := NewFile(1, 6*mib), NewFile(2, 9*mib)
	file := f.Create(t, s, 0, 1)
	if err := errors.Join(file.Pin(blockRange(1)), file.Pin(content.Range{Off: 2*mib - 1, Len: 2})); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Second)
	otherFile := other.Create(t, s, 0, 1)
	otherFile.Outdate(true)
	f.Write(t, file, 2) // pinned before it came
	d.want(t, "2:0")
	otherFile.Outdate(false)
	c.advance(time.Second)
	other.Write(t, otherFile, 2)
	other.Write(t, otherFile, 3)
	d.want(t, "1:0", "2:1")
	if h.Reopen != nil {
		s = h.Reopen(t, s)
		file, otherFile = open(t, s, f.Key), open(t, s, other.Key)
	}
	for i := int64(4); i < 9; i++ {
		c.advance(time.Second)
		other.Write(t, otherFile, i)
	}
	f.Want(t, file, mib, 2*mib, true)

	pinsAreBounded(t, other, file, otherFile)
	if err := s.Delete(other.Key); err != nil {
		t.Fatal(err)
	}
	wantErr(t, otherFile.Pin(blockRange(0)), store.ErrNotFound)
	wantErr(t, otherFile.Unpin(blockRange(0)), store.ErrNotFound)
	if err := file.Pin(content.Range{Len: 4 * mib}); err != nil {
		t.Errorf("a deleted file's pins count: %v", err)
	}
	if err := file.Unpin(content.Range{Len: 4 * mib}); err != nil {
		t.Error(err)
	}
	if h.Reopen != nil {
		s = h.Reopen(t, s)
	}
	otherFile = other.Create(t, s)
	if err := otherFile.Pin(content.Range{Len: 4 * mib}); err != nil {
		t.Errorf("what was unpinned counts: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, otherFile.Pin(blockRange(0)), store.ErrClosed)
}

// pinsAreBounded: there is room for all that is pinned, or it is not pinned. file
// has blocks 1 and 2 pinned, otherFile, the content of other, none.
func pinsAreBounded(t *testing.T, other *TestFile, file, otherFile store.File) {
	t.Helper()
	wantErr(t, otherFile.Pin(content.Range{Len: 2*mib + 1}), store.ErrFull)
	if err := otherFile.Pin(content.Range{Len: 2 * mib}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, otherFile.Pin(blockRange(8)), store.ErrFull)
	if err := otherFile.Pin(blockRange(1)); err != nil {
		t.Errorf("pinned again: %v", err)
	}
	other.Write(t, otherFile, 0)
	other.Write(t, otherFile, 1)
	wantErr(t, other.tryWrite(otherFile, 8), store.ErrFull)
	if err := otherFile.Unpin(content.Range{Off: 1, Len: 1}); err != nil {
		t.Fatal(err)
	}
	other.Write(t, otherFile, 8)
	if otherFile.Has(0) || !otherFile.Has(1) || !file.Has(1) || !file.Has(2) {
		t.Error("evicted another than the one that was unpinned")
	}
	if err := errors.Join(otherFile.Pin(content.Range{}), file.Unpin(content.Range{Len: 1 << 50}), file.Unpin(blockRange(1))); err != nil {
		t.Error(err)
	}
}
