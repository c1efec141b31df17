package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

const mib = content.BlockSize

func open(t testing.TB, s store.Store, key store.Key) store.File {
	t.Helper()
	f, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestDirectoryHasOneUser(t *testing.T) {
	dir := t.TempDir()
	s := openDisk(t, store.DiskConfig{Dir: dir})
	_, err := store.OpenDisk(store.DiskConfig{Dir: dir})
	wantErr(t, err, store.ErrLocked)
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("the error does not help: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openDisk(t, store.DiskConfig{Dir: dir})
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, filepath.Join(file, "below")} {
		if _, err := store.OpenDisk(store.DiskConfig{Dir: dir}); err == nil {
			t.Errorf("opened %q", dir)
		}
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such modes")
	}
	dir := filepath.Join(t.TempDir(), "store")
	s := openDisk(t, store.DiskConfig{Dir: dir})
	storetest.NewFile(1, mib).Create(t, s, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if rel, _ := filepath.Rel(dir, path); filepath.Dir(rel) != "records" && rel != "records" { // pebble has its own, below ours
			seen++
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %v, want %v", rel, info.Mode().Perm(), want)
			}
		}
		return nil
	})
	if err != nil || seen != 6 {
		t.Errorf("%d entries, %v", seen, err)
	}
}

// After an unclean stop a block is checked before it is read, by whatever kind
// of read, and still so when an orderly stop came in between.
func TestUncleanStop(t *testing.T) {
	for _, verify := range []bool{false, true} {
		cfg := store.DiskConfig{Dir: t.TempDir()}.WithBoot("one")
		s := openDisk(t, cfg)
		f := storetest.NewFile(1, 3*mib)
		f.Create(t, s, 0, 1, 2)
		s.Kill(t)
		s = openDisk(t, cfg)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openDisk(t, cfg)
		flipData(t, s, f.Key, mib+900_000)
		file := open(t, s, f.Key)
		wantErr(t, file.ReadAt(make([]byte, 1), mib, verify), store.ErrCorrupt)
		f.Want(t, file, 0, mib, verify)
		f.Want(t, file, 2*mib, mib, verify)

		// Now all was checked: the next orderly stop counts.
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openDisk(t, cfg)
		flipData(t, s, f.Key, 5)
		if err := open(t, s, f.Key).ReadAt(make([]byte, 1), 0, false); err != nil {
			t.Errorf("checked after an orderly stop: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		// But not across a boot, before which the data may not have been written.
		s = openDisk(t, cfg.WithBoot("two"))
		wantErr(t, open(t, s, f.Key).ReadAt(make([]byte, 1), 0, false), store.ErrCorrupt)
	}
}

func TestOldChecksAreRenewed(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir(), Now: func() time.Time { return now }})
	f := storetest.NewFile(1, 2*mib)
	file := f.Create(t, s, 0, 1)
	flipData(t, s, f.Key, mib+5)
	p := make([]byte, 1)
	now = now.Add(store.RecheckAfter)
	if err := file.ReadAt(p, mib, false); err != nil {
		t.Errorf("checked too early: %v", err)
	}
	now = now.Add(2 * time.Second)
	wantErr(t, file.ReadAt(p, mib, false), store.ErrCorrupt)
	f.Want(t, file, 0, mib, false)
	flipData(t, s, f.Key, 5)
	now = now.Add(store.RecheckAfter)
	if err := file.ReadAt(p, 0, false); err != nil {
		t.Errorf("the renewed check did not stand: %v", err)
	}
}

// Each bit of a record counts: a flipped one is never delivered as a record,
// and takes no other block with it.
func TestFlippedRecordBits(t *testing.T) {
	cfg := store.DiskConfig{Dir: t.TempDir()}
	s := openDisk(t, cfg)
	f := storetest.NewFile(1, 20_000)
	f.Create(t, s, 0)
	_, rec := f.Block(0)
	bits := 8 * (1 + 32 + 2 + len(rec.Signer) + 2 + len(rec.Sig) + 2 + len(rec.Outboard) + 4)
	for nth := 0; nth < bits; nth += 13 {
		store.FlipRecord(t, s, f.Key, 0, nth)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openDisk(t, cfg)
		file := open(t, s, f.Key)
		if nth%2 == 0 {
			wantErr(t, file.ReadAt(make([]byte, 1), 0, true), store.ErrCorrupt)
		} else {
			_, err := file.Record(0)
			wantErr(t, err, store.ErrCorrupt)
		}
		f.Write(t, file, 0)
	}
}

func TestLostData(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, mib+10) },
	} {
		cfg := store.DiskConfig{Dir: t.TempDir()}
		s := openDisk(t, cfg)
		f := storetest.NewFile(1, 2*mib)
		f.Create(t, s, 0, 1)
		path := store.DataPath(s, f.Key)
		if err := errors.Join(s.Close(), lose(path)); err != nil {
			t.Fatal(err)
		}
		s = openDisk(t, cfg)
		file := open(t, s, f.Key)
		wantErr(t, file.ReadAt(make([]byte, 100), mib, false), store.ErrCorrupt)
		if file.Has(1) {
			t.Errorf("%s: still held", name)
		}
		f.Write(t, file, 1)
		f.Want(t, file, mib, mib, true)
	}
}

// A kill between the steps of a Delete leaves a data file without an Info.
func TestSweep(t *testing.T) {
	cfg := store.DiskConfig{Dir: t.TempDir()}
	s := openDisk(t, cfg)
	f, kept := storetest.NewFile(1, mib), storetest.NewFile(2, mib)
	f.Create(t, s, 0)
	kept.Create(t, s, 0)
	path := store.DataPath(s, f.Key)
	foreign := filepath.Join(filepath.Dir(path), "README")
	if err := errors.Join(s.Delete(f.Key), os.WriteFile(path, f.Data, 0o600), os.WriteFile(foreign, nil, 0o600), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openDisk(t, cfg)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the orphan is still there: %v", err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	kept.Want(t, open(t, s, kept.Key), 0, mib, true)
}

// countedFile counts how many are open, and fails a use after Close.
type countedFile struct {
	store.DataFile
	open   *atomic.Int64
	closed *atomic.Bool
}

func (f countedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.DataFile.ReadAt(p, off)
	if f.closed.Load() {
		return 0, fmt.Errorf("closed under a reader")
	}
	return n, err
}

func (f countedFile) Close() error {
	f.closed.Store(true)
	f.open.Add(-1)
	return f.DataFile.Close()
}

func TestOpenFilesAreBounded(t *testing.T) {
	const files, readers = store.MaxOpenFiles + 60, 8
	var open, most atomic.Int64
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir()}.WithDataFiles(func(path string, create bool) (store.DataFile, error) {
		f, err := store.OpenData(path, create)
		if err != nil {
			return nil, err
		}
		n := open.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return countedFile{f, &open, new(atomic.Bool)}, nil
	}))
	base := storetest.NewFile(1, 100)
	all := make([]store.File, files)
	for i := range all {
		f := *base
		f.Key.Task[5], f.Key.Task[6] = byte(i), byte(i>>8)
		all[i] = f.Create(t, s, 0)
	}
	var wg sync.WaitGroup
	for k := range readers {
		wg.Go(func() {
			for n := range 4 * files {
				base.Want(t, all[(n*(2*k+1)+k)%files], int64(n%90), 10, n%2 == 0)
			}
		})
	}
	wg.Wait()
	if most.Load() > store.MaxOpenFiles+readers {
		t.Errorf("%d files were open at a time", most.Load())
	}
	for i := range all {
		if err := s.Delete(all[i].Key()); err != nil {
			t.Fatal(err)
		}
	}
	if open.Load() != 0 {
		t.Errorf("%d data files of deleted files are open", open.Load())
	}
}

// gather returns the values of the store's metrics.
func gather(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		m := family.GetMetric()[0]
		got[strings.TrimPrefix(family.GetName(), "p2pnode_store_")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return got
}

func TestMetricsAndLeaks(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	reg := prometheus.NewPedanticRegistry()
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir(), Registerer: reg}.WithFree(func() int64 { return 1 << 40 }))
	f := storetest.NewFile(1, 2*mib)
	file := f.Create(t, s, 0, 1)
	if err := file.Pin(content.Range{Len: mib}); err != nil {
		t.Fatal(err)
	}
	f.Want(t, file, 0, 1000, true)
	flipData(t, s, f.Key, 7)
	wantErr(t, file.Check(0), store.ErrCorrupt)
	got := gather(t, reg)
	for name, want := range map[string]float64{
		"written_blocks_total": 2, "read_bytes_total": 1000, "checked_blocks_total": 1, "corrupt_blocks_total": 1,
		"held_bytes": mib, "capacity_bytes": store.DefaultCapacity, "files_count": 1,
		"evicted_bytes_total": 0, "evicted_stripes_total": 0, "refused_blocks_total": 0, "pinned_bytes": mib,
		"disk_free_bytes": 1 << 40, "free_bytes": store.DefaultCapacity - mib,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, ignore)
}

// A warm read allocates nothing, however it lies and whether it is verified, and
// neither does a lease.
func TestWarmReadsDoNotAllocate(t *testing.T) {
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir()})
	f := storetest.NewFile(1, 2*mib)
	file := f.Create(t, s, 0, 1)
	p := make([]byte, 200_000)
	for _, verify := range []bool{false, true} {
		for _, r := range []content.Range{{Off: 5, Len: 1}, {Off: 4096, Len: 4096}, {Off: 65536, Len: 65536}, {Off: mib - 1000, Len: 200_000}} {
			allocs := testing.AllocsPerRun(50, func() {
				lease := file.Lease(r)
				defer lease.Release()
				if err := file.ReadAt(p[:r.Len], r.Off, verify); err != nil {
					t.Fatal(err)
				}
			})
			if allocs >= 1 {
				t.Errorf("%v, verify %t: %v allocations", r, verify, allocs)
			}
		}
	}
}
