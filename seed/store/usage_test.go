package store_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

// A kill loses the times of use since they were last written, and then the
// stripes count as used.
func TestTimesOfUseAfterAKill(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	evicted, take := evictions()
	cfg := store.DiskConfig{Dir: t.TempDir(), Capacity: 5*mib - mib/4, Evicted: evicted, Now: func() time.Time { return now }}
	s := openDisk(t, cfg)
	f := storetest.NewFile(1, 6*mib)
	file := f.Create(t, s, 0, 1, 2)
	use := func(i int64) {
		now = now.Add(time.Second)
		f.Want(t, file, i*mib, 1, true)
	}
	use(2)
	use(0)
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	f.Write(t, file, 3)
	use(1) // will be forgotten
	use(2)
	s.Kill(t)
	now = now.Add(time.Second)
	s = openDisk(t, cfg)
	other := storetest.NewFile(2, 6*mib)
	otherFile := other.Create(t, s)
	for i, want := range []string{" 1:1", " 1:2", " 1:0", " 1:3"} {
		now = now.Add(time.Second)
		other.Write(t, otherFile, int64(i))
		if got := take(); got != want {
			t.Errorf("write %d evicted%s, want%s", i, got, want)
		}
	}
}

// A clock that was ahead when a stripe was used does not keep it for ever.
func TestTimesOfUseToCome(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	evicted, take := evictions()
	cfg := store.DiskConfig{Dir: t.TempDir(), Capacity: 3*mib - mib/4, Evicted: evicted, Now: func() time.Time { return now }}
	s := openDisk(t, cfg)
	f := storetest.NewFile(1, 3*mib)
	f.Create(t, s, 0, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = time.Unix(1_800_000_000, 0)
	s = openDisk(t, cfg)
	now = now.Add(time.Second)
	file := open(t, s, f.Key)
	f.Want(t, file, 0, 1, true)
	f.Write(t, file, 2)
	if got := take(); got != " 1:1" {
		t.Errorf("evicted%s", got)
	}
	now = now.Add(time.Second)
	f.Write(t, file, 1)
	if got := take(); got != " 1:0" {
		t.Errorf("then evicted%s", got)
	}
}

// No read writes anything, and what changed is written in one go.
func TestReadsWriteNothing(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir(), Now: func() time.Time { return now }})
	f := storetest.NewFile(1, 8*mib)
	file := f.Create(t, s, 0, 1, 2, 3, 4, 5, 6, 7)
	maintain := func() {
		t.Helper()
		if err := s.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	maintain()
	before := s.Logged()
	maintain()
	for n := range 1000 {
		now = now.Add(100 * time.Millisecond)
		f.Want(t, file, int64(n%8)*mib+int64(n), 10, n%2 == 0)
	}
	if got := s.Logged() - before; got != 0 {
		t.Errorf("1000 reads wrote %d bytes", got)
	}
	maintain()
	if got := s.Logged() - before; got == 0 || got > 500 {
		t.Errorf("the times of 8 stripes took %d bytes", got)
	}
}

func TestRun(t *testing.T) {
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir()}.WithMaintainEvery(time.Millisecond))
	storetest.NewFile(1, mib).Create(t, s, 0)
	before := s.Logged()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for s.Logged() == before && ctx.Err() == nil {
		runtime.Gosched()
	}
	if ctx.Err() != nil {
		t.Error("no times of use were written")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
