package store_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

// halfwayFile has something happen, once, in the middle of a read.
type halfwayFile struct {
	store.DataFile
	happen *func()
}

func (f halfwayFile) ReadAt(p []byte, off int64) (int, error) {
	half := len(p) / 2
	n, err := f.DataFile.ReadAt(p[:half], off)
	if happen := *f.happen; happen != nil {
		*f.happen = nil
		happen()
	}
	m, err2 := f.DataFile.ReadAt(p[half:], off+int64(half))
	return n + m, errors.Join(err, err2)
}

// A block that is dropped and written anew, with other bytes, in the middle of
// a read: the reader gets the one or the other, no mix, and no damage is seen.
func TestBlockChangesUnderAReader(t *testing.T) {
	for _, verify := range []bool{false, true} {
		var happen func()
		s := openDisk(t, store.DiskConfig{Dir: t.TempDir()}.WithDataFiles(func(path string, create bool) (store.DataFile, error) {
			f, err := store.OpenData(path, create)
			return halfwayFile{f, &happen}, err
		}))
		one, other := storetest.NewFile(1, mib), storetest.NewFile(2, mib)
		file := one.Create(t, s, 0)
		p := make([]byte, 100_000)

		happen = func() {
			if err := file.Drop(0); err != nil {
				t.Error(err)
			}
			other.Write(t, file, 0)
		}
		if err := file.ReadAt(p, 5, verify); err != nil || !bytes.Equal(p, other.Data[5:5+len(p)]) {
			t.Errorf("verify %t: %v, or a mix of two blocks", verify, err)
		}

		happen = func() {
			if err := s.Delete(one.Key); err != nil {
				t.Error(err)
			}
			file = one.Create(t, s, 0)
		}
		wantErr(t, file.ReadAt(p, 5, verify), store.ErrNotFound)
		one.Want(t, file, 0, mib, verify)
	}
}
