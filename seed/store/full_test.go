package store_test

import (
	"errors"
	"io/fs"
	"math"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
	"github.com/prometheus/client_golang/prometheus"
)

// fullFile fails in the middle of a write, as a full disk does.
type fullFile struct {
	store.DataFile
	full *atomic.Bool
}

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if !f.full.Load() {
		return f.DataFile.WriteAt(p, off)
	}
	n, err := f.DataFile.WriteAt(p[:len(p)/2], off)
	return n, errors.Join(err, &fs.PathError{Op: "write", Err: syscall.ENOSPC})
}

func TestDiskFull(t *testing.T) {
	var full atomic.Bool
	free := int64(1 << 40)
	cfg := store.DiskConfig{Dir: t.TempDir()}.WithFree(func() int64 { return free }).
		WithDataFiles(func(path string, create bool) (store.DataFile, error) {
			f, err := store.OpenData(path, create)
			return fullFile{f, &full}, err
		})
	s := openDisk(t, cfg)
	f, other := storetest.NewFile(1, 3*mib), storetest.NewFile(2, mib)
	file := f.Create(t, s, 0, 2)
	lease := file.Lease(content.Range{Len: 3 * mib})
	data, rec := f.Block(1)
	wantFull := func() {
		t.Helper()
		wantErr(t, file.Write(1, data, rec), store.ErrFull)
		if file.Has(1) || s.Used() != 2*mib {
			t.Errorf("after a failed write: has %t, used %d", file.Has(1), s.Used())
		}
	}
	full.Store(true)
	wantFull()
	full.Store(false)
	free = 64 << 20
	wantFull()
	if s.Free() != 0 {
		t.Errorf("%d bytes free", s.Free())
	}
	free--
	_, err := s.Create(other.Key, other.Info)
	wantErr(t, err, store.ErrFull)
	free = 1 << 40
	lease.Release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDisk(t, cfg)
	file = open(t, s, f.Key)
	if file.Has(1) {
		t.Error("the failed write was recorded")
	}
	f.Want(t, file, 0, mib, true)
	f.Want(t, file, 2*mib, mib, true)
	f.Write(t, file, 1)
	f.Want(t, file, 0, 3*mib, true)
}

// A disk that others fill takes from the cache what it needs, and no more once
// there is enough.
func TestLowDiskEvicts(t *testing.T) {
	const minFree = 64 << 20
	disk := int64(math.MaxInt64 / 2)
	var s *store.Disk
	reg := prometheus.NewRegistry()
	evicted, take := evictions()
	s = openDisk(t, store.DiskConfig{Dir: t.TempDir(), Evicted: evicted, Registerer: reg}.WithFree(func() int64 {
		if s == nil {
			return disk
		}
		return disk - s.Used()
	}))
	f := storetest.NewFile(1, 30*mib)
	file := f.Create(t, s)
	for i := range int64(20) {
		f.Write(t, file, i)
	}
	disk = minFree + 20*mib + 100
	if got := s.Free(); got != 100 {
		t.Errorf("%d bytes are free, want 100", got)
	}
	f.Write(t, file, 20)
	if got := take(); got != " 1:0 1:1" {
		t.Errorf("evicted%s", got)
	}
	f.Write(t, file, 21)
	if got := take(); got != "" {
		t.Errorf("evicted%s", got)
	}
	disk = minFree + 10*mib
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	if s.Used() > 10*mib || s.Used() < 8*mib {
		t.Errorf("%d bytes are held where there is room for %d", s.Used(), 10*mib)
	}
	disk = 0
	if err := s.Maintain(); err != nil || s.Used() != 0 {
		t.Errorf("%v, %d bytes are held on a full disk", err, s.Used())
	}
	data, rec := f.Block(0)
	wantErr(t, file.Write(0, data, rec), store.ErrFull)
	got := gather(t, reg)
	if got["evicted_stripes_total"] != 22 || got["evicted_bytes_total"] != 22*mib || got["refused_blocks_total"] != 1 {
		t.Errorf("metrics %v", got)
	}
}

// smallFile is a file on a disk that has room for so many bytes.
type smallFile struct {
	store.DataFile
	room func() int64
}

func (f smallFile) WriteAt(p []byte, off int64) (int, error) {
	if f.room() < int64(len(p)) {
		n, err := f.DataFile.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, &fs.PathError{Op: "write", Err: syscall.ENOSPC})
	}
	return f.DataFile.WriteAt(p, off)
}

// A write that meets a full disk, which nobody could foresee, makes room and is
// done again.
func TestWriteEvictsOnENOSPC(t *testing.T) {
	evicted, take := evictions()
	var s *store.Disk
	s = openDisk(t, store.DiskConfig{Dir: t.TempDir(), Evicted: evicted}.WithDataFiles(func(path string, create bool) (store.DataFile, error) {
		f, err := store.OpenData(path, create)
		return smallFile{f, func() int64 { return 3*mib - s.Used() }}, err
	}))
	f := storetest.NewFile(1, 6*mib)
	file := f.Create(t, s)
	for i := range int64(6) {
		f.Write(t, file, i)
		f.Want(t, file, i*mib, mib, true)
	}
	if got := take(); got != " 1:0 1:1 1:2 1:3" || s.Used() != 2*mib {
		t.Errorf("evicted%s, used %d", got, s.Used())
	}
}
