package storetest

import (
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/seed/store"
)

// maintain does at once what a store does at times.
func maintain(t testing.TB, s store.Store) {
	t.Helper()
	if err := s.(interface{ Maintain() error }).Maintain(); err != nil {
		t.Fatal(err)
	}
}

// wantFiles checks which files there are after maintenance.
func wantFiles(t *testing.T, s store.Store, when string, want ...*TestFile) {
	t.Helper()
	maintain(t, s)
	keys := map[store.Key]bool{}
	for file := range s.Files() {
		keys[file.Key()] = true
	}
	if len(keys) != len(want) {
		t.Errorf("%s: %d files, want %d", when, len(keys), len(want))
	}
	for _, f := range want {
		if !keys[f.Key] {
			t.Errorf("%s: no file %v", when, f.Key)
		}
	}
}

func testEmptyFiles(t *testing.T, h Harness) {
	c := newClock()
	s := h.Open(t, Options{Capacity: 8 * mib, Now: c.now})
	f := NewFile(1, 2*mib)
	older := NewFile(1, 2*mib)
	older.Key.Generation[9] = 7
	older.Info.Generation = older.Key.Generation
	older.Info.Created = f.Info.Created.Add(-time.Second)
	leased, pinned, held, zero := NewFile(2, mib), NewFile(3, mib), NewFile(4, mib), NewFile(5, 0)
	file, olderFile := f.Create(t, s), older.Create(t, s, 0)
	lease := leased.Create(t, s).Lease(blockRange(0))
	pinnedFile := pinned.Create(t, s)
	if err := pinnedFile.Pin(blockRange(0)); err != nil {
		t.Fatal(err)
	}
	held.Create(t, s, 0)
	zero.Create(t, s)
	wantFiles(t, s, "at first", f, older, leased, pinned, held, zero)
	if err := olderFile.Drop(0); err != nil {
		t.Fatal(err)
	}
	c.advance(4 * time.Minute)
	interest := olderFile.Lease(blockRange(0))
	interest.Release()
	c.advance(4 * time.Minute)
	wantFiles(t, s, "an older one in use", f, older, leased, pinned, held, zero)
	c.advance(2 * time.Minute)
	wantFiles(t, s, "an older one", f, leased, pinned, held, zero)
	if olderFile.Alive() || !file.Alive() {
		t.Errorf("alive: %t and %t", olderFile.Alive(), file.Alive())
	}
	wantErr(t, older.tryWrite(olderFile, 0), store.ErrNotFound)
	c.advance(55 * time.Minute)
	if _, err := s.Latest(f.Key.Task); err != nil {
		t.Error(err)
	}
	wantFiles(t, s, "within the hour", f, leased, pinned, held)
	c.advance(time.Hour)
	if h.Reopen != nil {
		lease.Release()
		s = h.Reopen(t, s) // counts as an interest in all of them
		wantFiles(t, s, "after reopen", f, leased, pinned, held)
		lease = open(t, s, leased.Key).Lease(blockRange(0))
		c.advance(time.Hour)
	}
	wantFiles(t, s, "after an hour", leased, pinned, held)
	lease.Release()
	if err := open(t, s, pinned.Key).Unpin(blockRange(0)); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour)
	wantFiles(t, s, "in the end", held)
	if h.Reopen != nil {
		s = h.Reopen(t, s)
		wantFiles(t, s, "after another reopen", held)
	}
	f.Want(t, f.Create(t, s, 0), 0, mib, true)
}
