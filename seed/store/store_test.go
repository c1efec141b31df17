package store_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open: func(_ testing.TB, o storetest.Options) store.Store {
			return store.OpenMemory(store.MemoryConfig{Capacity: o.Capacity, Owned: o.Owned, Evicted: o.Evicted, Now: o.Now})
		},
		FlipData: store.FlipMemory,
	})
}

func TestDisk(t *testing.T) {
	configs := map[store.Store]store.DiskConfig{}
	open := func(t testing.TB, cfg store.DiskConfig) store.Store {
		s := openDisk(t, cfg)
		configs[s] = cfg
		return s
	}
	storetest.Run(t, storetest.Harness{
		Open: func(t testing.TB, o storetest.Options) store.Store {
			return open(t, store.DiskConfig{Dir: t.TempDir(), Capacity: o.Capacity, Owned: o.Owned, Evicted: o.Evicted, Now: o.Now})
		},
		Reopen: func(t testing.TB, s store.Store) store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, configs[s])
		},
		Kill: func(t testing.TB, s store.Store) store.Store {
			s.(*store.Disk).Kill(t)
			return open(t, configs[s])
		},
		FlipData:   flipData,
		FlipRecord: func(t testing.TB, s store.Store, key store.Key, i int64) { store.FlipRecord(t, s, key, i, 40*8) },
	})
}

// openDisk closes the store when the test ends, unless it is closed by then.
func openDisk(t testing.TB, cfg store.DiskConfig) *store.Disk {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := store.OpenDisk(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func flipData(t testing.TB, s store.Store, key store.Key, off int64) {
	t.Helper()
	f, err := os.OpenFile(store.DataPath(s, key), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}
