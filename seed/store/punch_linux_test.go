package store_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

func TestDropFreesTheDisk(t *testing.T) {
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir()})
	f := storetest.NewFile(1, 64*mib)
	file := f.Create(t, s, 60, 61)
	blocks := func() int64 { return onDisk(t, store.DataPath(s, f.Key)) }
	before := blocks()
	if before > 3*mib {
		t.Errorf("%d bytes on the disk for two blocks: not sparse", before)
	}
	if err := file.Drop(60); err != nil {
		t.Fatal(err)
	}
	if after := blocks(); after > before-mib/2 {
		t.Skipf("the file system keeps holes: %d bytes, %d before", after, before)
	}
	f.Want(t, file, 61*mib, mib, true)
}

// onDisk returns the bytes that a file takes on the disk.
func onDisk(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// What is evicted leaves the disk, all of it.
func TestEvictionFreesTheDisk(t *testing.T) {
	const capacity = 6 * mib
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir(), Capacity: capacity})
	f := storetest.NewFile(1, 40*mib)
	file := f.Create(t, s)
	for i := range f.Blocks() {
		f.Write(t, file, i)
		if got := onDisk(t, store.DataPath(s, f.Key)); got > capacity+mib/2 {
			t.Fatalf("%d bytes on the disk after block %d", got, i)
		}
	}
	storetest.NewFile(2, 6*mib).Create(t, s, 0, 1, 2, 3, 4, 5)
	if file.Count() != 0 {
		t.Fatalf("%d blocks are left", file.Count())
	}
	if got := onDisk(t, store.DataPath(s, f.Key)); got != 0 {
		t.Errorf("%d bytes on the disk of a file without blocks", got)
	}
	if info, err := os.Stat(store.DataPath(s, f.Key)); err != nil || info.Size() != 0 {
		t.Errorf("a file without blocks was not cut: %v, %v", info, err)
	}
	f.Write(t, file, 39)
	f.Want(t, file, 39*mib, mib, true)
}

// A kill between the steps of a write or an eviction leaves bytes that nobody
// knows of: they go at the next start, and no others.
func TestLeftoversAreReclaimed(t *testing.T) {
	cfg := store.DiskConfig{Dir: t.TempDir()}
	s := openDisk(t, cfg)
	f := storetest.NewFile(1, 20*mib-5)
	f.Create(t, s, 0, 7, 8, 19)
	path := store.DataPath(s, f.Key)
	before := onDisk(t, path)
	data, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int64{1, 6, 9, 18} {
		if _, err := data.WriteAt(f.Data[:mib], i*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}
	s.Kill(t)
	s = openDisk(t, cfg)
	if got := onDisk(t, path); got > before {
		t.Errorf("%d bytes on the disk, %d before", got, before)
	}
	file := open(t, s, f.Key)
	for _, i := range []int64{0, 7, 8, 19} {
		block := f.Info.Layout().Block(i)
		f.Want(t, file, block.Off, int(block.Len), true)
	}
}
