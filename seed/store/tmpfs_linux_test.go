package store_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

// smallDisk returns a directory on a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("only root can mount a small file system:", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes a file until the disk has not a byte left; remove it to have them
// back.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := int64(mib); size > 0; {
		if _, err = io.CopyN(f, zeros{}, size); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling %s ended with %v", path, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A store on a disk that is smaller than its capacity evicts; when others take
// the last byte of that disk it keeps what is pinned, refuses the rest, and goes
// on when there is room again. It does not start without the room that it needs.
func TestRealDiskFull(t *testing.T) {
	disk := smallDisk(t, "100m")
	now := time.Unix(1_800_000_000, 0)
	cfg := store.DiskConfig{Dir: filepath.Join(disk, "store"), Now: func() time.Time { return now }}
	s := openDisk(t, cfg)
	f := storetest.NewLargeFile(1, 64*mib)
	file := f.Create(t, s)
	var wg sync.WaitGroup
	for k := range int64(8) { // who take from one another what they have freed
		wg.Go(func() {
			for i := k; i < f.Blocks(); i += 8 {
				data, rec := f.Block(i)
				if err := file.Write(i, data, rec); err != nil {
					t.Errorf("block %d was refused: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if n := file.Count(); n < 10 || n > 36 {
		t.Errorf("%d blocks are held on a disk of 100 MiB, of which 64 stay free", n)
	}
	pinned := content.Range{Off: 60 * mib, Len: mib}
	if err := file.Pin(pinned); err != nil {
		t.Fatal(err)
	}
	data, rec := f.Block(0)
	for n := range 50 {
		if n < 2 { // the second time also what was evicted
			fill(t, filepath.Join(disk, fmt.Sprintf("other%d", n)))
		}
		now = now.Add(time.Minute)
		wantErr(t, file.Write(0, data, rec), store.ErrFull)
		f.Want(t, file, pinned.Off, int(pinned.Len), true)
		if err := s.Maintain(); err != nil {
			t.Error(err)
		}
	}
	if file.Count() != 1 || s.Free() != 0 {
		t.Errorf("%d blocks are held, %d bytes free", file.Count(), s.Free())
	}
	unknown := storetest.NewFile(2, mib)
	_, err := s.Create(unknown.Key, unknown.Info)
	wantErr(t, err, store.ErrFull)
	s.Kill(t)
	_, err = store.OpenDisk(cfg)
	wantErr(t, err, store.ErrFull)
	for n := range 2 {
		if err := os.Remove(filepath.Join(disk, fmt.Sprintf("other%d", n))); err != nil {
			t.Fatal(err)
		}
	}
	s = openDisk(t, cfg)
	file = open(t, s, f.Key)
	f.Want(t, file, pinned.Off, int(pinned.Len), false)
	for i := range int64(8) {
		f.Write(t, file, i)
		f.Want(t, file, i*mib, mib, true)
	}
}
