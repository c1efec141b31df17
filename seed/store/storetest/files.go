package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

func testFiles(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	if s.Capacity() != store.DefaultCapacity {
		t.Errorf("capacity %d, want the default", s.Capacity())
	}
	one, two := NewFile(1, 3*mib), NewFile(1, mib)
	two.Key.Generation = content.Generation{9}
	two.Info.Generation = two.Key.Generation
	two.Info.Created = one.Info.Created.Add(-time.Nanosecond)

	_, err := s.Open(one.Key)
	wantErr(t, err, store.ErrNotFound)
	_, err = s.Latest(one.Key.Task)
	wantErr(t, err, store.ErrNotFound)
	wantErr(t, s.Delete(one.Key), store.ErrNotFound)

	a := one.Create(t, s, 0)
	again := one.Info
	again.URL = "https://other.test/"
	if b, err := s.Create(one.Key, again); err != nil || b.Info().URL != one.Info.URL || !b.Has(0) {
		t.Errorf("second Create: %v, %v", b, err)
	}
	two.Create(t, s, 0)
	latest, err := s.Latest(one.Key.Task)
	if err != nil || latest.Key() != one.Key {
		t.Errorf("latest %v, %v; want the one created last", latest, err)
	}
	var keys []store.Key
	for f := range s.Files() {
		keys = append(keys, f.Key())
	}
	if len(keys) != 2 || !slices.Contains(keys, one.Key) || !slices.Contains(keys, two.Key) {
		t.Errorf("files %v", keys)
	}

	if err := s.Delete(one.Key); err != nil {
		t.Fatal(err)
	}
	latest, err = s.Latest(one.Key.Task)
	if err != nil || latest.Key() != two.Key {
		t.Errorf("latest after Delete %v, %v", latest, err)
	}
	wantErr(t, a.ReadAt(make([]byte, 1), 0, false), store.ErrNotFound)
	wantErr(t, a.Check(0), store.ErrNotFound)
	data, rec := one.Block(1)
	wantErr(t, a.Write(1, data, rec), store.ErrNotFound)
	wantErr(t, a.Drop(0), store.ErrNotFound)
	if a.Has(0) || a.Count() != 0 || s.Used() != mib {
		t.Errorf("after Delete: has %t, count %d, used %d", a.Has(0), a.Count(), s.Used())
	}

	b := one.Create(t, s)
	if b.Has(0) {
		t.Error("a deleted block came back")
	}
	one.Write(t, b, 0)
	one.Want(t, b, 0, mib, true)
	wantErr(t, a.ReadAt(make([]byte, 1), 0, false), store.ErrNotFound)

	wrong := one.Info
	wrong.Generation = content.Generation{77}
	if _, err := s.Create(store.Key{Task: one.Key.Task, Generation: content.Generation{78}}, wrong); err == nil {
		t.Error("a generation beside its key's was taken")
	}
	wrong.Size, wrong.Generation = -1, content.Generation{77}
	if _, err := s.Create(store.Key{Task: one.Key.Task, Generation: wrong.Generation}, wrong); err == nil {
		t.Error("an unknown size was taken")
	}
}

func testEmptyFile(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(1, 0)
	file := f.Create(t, s)
	if file.Count() != 0 || len(file.Bitmap()) != 0 || file.Has(0) {
		t.Errorf("count %d, bitmap %v", file.Count(), file.Bitmap())
	}
	f.Want(t, file, 0, 0, true)
	wantErr(t, file.Check(0), store.ErrNotFound)
	if err := file.Write(0, nil, store.Record{}); err == nil {
		t.Error("wrote a block of an empty file")
	}
	if h.Reopen != nil {
		s = h.Reopen(t, s)
		if file, err := s.Open(f.Key); err != nil || file.Info().Size != 0 {
			t.Errorf("after reopen: %v, %v", file, err)
		}
	}
	if err := s.Delete(f.Key); err != nil {
		t.Error(err)
	}
}

func testClosed(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	f := NewFile(1, 2*mib)
	file := f.Create(t, s, 0)
	f.Want(t, file, 0, 10, false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.Close(), store.ErrClosed)
	_, err := s.Create(f.Key, f.Info)
	wantErr(t, err, store.ErrClosed)
	_, err = s.Open(f.Key)
	wantErr(t, err, store.ErrClosed)
	_, err = s.Latest(f.Key.Task)
	wantErr(t, err, store.ErrClosed)
	wantErr(t, s.Delete(f.Key), store.ErrClosed)
	data, rec := f.Block(1)
	wantErr(t, file.Write(1, data, rec), store.ErrClosed)
	wantErr(t, file.ReadAt(make([]byte, 1), 0, false), store.ErrClosed)
	wantErr(t, file.ReadAt(make([]byte, 1), 0, true), store.ErrClosed)
	wantErr(t, file.Check(0), store.ErrClosed)
	wantErr(t, file.Drop(0), store.ErrClosed)
}

func testReopen(t *testing.T, h Harness) {
	s := h.Open(t, Options{})
	one, two := NewFile(1, 3*mib+5), NewFile(2, mib)
	one.Create(t, s, 0, 3)
	two.Create(t, s, 0)
	gone := NewFile(3, mib)
	gone.Create(t, s, 0)
	if err := s.Delete(gone.Key); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = h.Reopen(t, s)
		file, err := s.Open(one.Key)
		if err != nil {
			t.Fatal(err)
		}
		got, want := file.Info(), one.Info
		if !got.Created.Equal(want.Created) {
			t.Errorf("created %v, want %v", got.Created, want.Created)
		}
		got.Created = want.Created
		if got != want {
			t.Errorf("info %+v, want %+v", got, want)
		}
		if file.Bitmap()[0] != 0b1001 || file.Count() != 2 || s.Used() != 2*mib+5 {
			t.Errorf("bitmap %b, count %d, used %d", file.Bitmap(), file.Count(), s.Used())
		}
		_, rec := one.Block(3)
		if back, err := file.Record(3); err != nil || !sameRecord(back, rec) {
			t.Errorf("record: %v", err)
		}
		one.Want(t, file, 0, mib, false)
		one.Want(t, file, 3*mib, 5, true)
		_, err = s.Open(gone.Key)
		wantErr(t, err, store.ErrNotFound)
	}
	file, err := s.Open(one.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Drop(0); err != nil {
		t.Fatal(err)
	}
	s = h.Reopen(t, s)
	if file, err = s.Open(one.Key); err != nil || file.Has(0) || !file.Has(3) {
		t.Errorf("a dropped block came back: %v", err)
	}
}
