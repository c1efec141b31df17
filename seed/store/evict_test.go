package store_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

// evictions returns a callback and a function that returns what it heard since
// the last call, as file:stripe.
func evictions() (evicted func(store.Key, int64, bool), take func() string) {
	var mu sync.Mutex
	var heard string
	return func(key store.Key, stripe int64, _ bool) {
			mu.Lock()
			defer mu.Unlock()
			heard += fmt.Sprintf(" %d:%d", key.Task[0], stripe)
		}, func() string {
			mu.Lock()
			defer mu.Unlock()
			out := heard
			heard = ""
			return out
		}
}

// What a smaller capacity does not hold goes at the first occasion, and pins
// stay even so.
func TestSmallerCapacity(t *testing.T) {
	evicted, take := evictions()
	cfg := store.DiskConfig{Dir: t.TempDir(), Evicted: evicted}
	s := openDisk(t, cfg)
	f := storetest.NewFile(1, 10*mib)
	file := f.Create(t, s, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	if err := file.Pin(content.Range{Len: 2 * mib}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Capacity = 4 * mib
	s = openDisk(t, cfg)
	if take() != "" || s.Used() != 10*mib {
		t.Error("evicted before anybody could know who owns what")
	}
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	if got := take(); got != " 1:2 1:3 1:4 1:5 1:6 1:7 1:8" {
		t.Errorf("evicted%s", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Capacity = mib
	s = openDisk(t, cfg)
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	file = open(t, s, f.Key)
	wantErr(t, file.Pin(content.Range{Off: 5 * mib, Len: 1}), store.ErrFull)
	if got := take(); got != " 1:9" || s.Used() != 2*mib {
		t.Errorf("evicted%s, used %d", got, s.Used())
	}
	if err := file.Unpin(content.Range{Len: 1}); err != nil {
		t.Fatal(err)
	}
	data, rec := f.Block(4)
	wantErr(t, file.Write(4, data, rec), store.ErrFull) // one of two is not enough
	if err := s.Maintain(); err != nil {
		t.Fatal(err)
	}
	if got := take(); got != " 1:0" || !file.Has(1) {
		t.Errorf("evicted%s", got)
	}
}

// gatedFile lets reads and writes through when told.
type gatedFile struct {
	store.DataFile
	enter func(off int64)
}

func (f gatedFile) ReadAt(p []byte, off int64) (int, error) {
	f.enter(off)
	return f.DataFile.ReadAt(p, off)
}

func (f gatedFile) WriteAt(p []byte, off int64) (int, error) {
	f.enter(off)
	return f.DataFile.WriteAt(p, off)
}

// A stripe stays while somebody reads it, while a block of it is written, and
// while one is checked.
func TestBusyStripesStay(t *testing.T) {
	const gated = 1 * mib // the second block of a stripe of four
	for _, what := range []string{"read", "write", "check"} {
		t.Run(what, func(t *testing.T) {
			now := time.Unix(1_800_000_000, 0)
			entered, left := make(chan struct{}), make(chan struct{})
			leave := sync.OnceFunc(func() { close(left) })
			defer leave()
			gate := func(path string, off int64) {}
			evicted, take := evictions()
			cfg := store.DiskConfig{Dir: t.TempDir(), Capacity: 5*mib - mib/4, Evicted: evicted, Now: func() time.Time { return now }}
			s := openDisk(t, cfg.WithDataFiles(func(path string, create bool) (store.DataFile, error) {
				f, err := store.OpenData(path, create)
				return gatedFile{f, func(off int64) { gate(path, off) }}, err
			}))
			f := storetest.NewLargeFile(1, 3<<30)
			file := f.Create(t, s, 0)
			if what != "write" {
				f.Write(t, file, 1)
			}
			path := store.DataPath(s, f.Key)
			var once sync.Once
			gate = func(at string, off int64) {
				if at == path && off == gated {
					once.Do(func() {
						close(entered)
						<-left
					})
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				switch what {
				case "read":
					f.Want(t, file, gated, mib, false)
				case "write":
					f.Write(t, file, 1)
				case "check":
					if err := file.Check(1); err != nil {
						t.Error(err)
					}
				}
			}()
			<-entered
			now = now.Add(time.Hour)
			other := storetest.NewFile(2, 9*mib)
			otherFile := other.Create(t, s)
			for i := range int64(9) {
				now = now.Add(time.Second)
				other.Write(t, otherFile, i)
			}
			if got := take(); got != " 2:0 2:1 2:2 2:3 2:4 2:5 2:6" {
				t.Errorf("evicted%s", got)
			}
			leave()
			<-done
			gate = func(string, int64) {}
			other.Create(t, s, 0)
			if got := take(); got != " 1:0" {
				t.Errorf("afterwards evicted%s", got)
			}
		})
	}
}

// Many writers that need room at one time all get it, and one of them evicts.
func TestWritersShareAnEviction(t *testing.T) {
	evicted, take := evictions()
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir(), Capacity: 64 * mib, Evicted: evicted})
	f, other := storetest.NewLargeFile(1, 64*mib), storetest.NewLargeFile(2, 16*mib)
	file := f.Create(t, s)
	for i := range f.Blocks() {
		f.Write(t, file, i)
	}
	otherFile := other.Create(t, s)
	var wg sync.WaitGroup
	for i := range other.Blocks() {
		wg.Go(func() { other.Write(t, otherFile, i) })
	}
	wg.Wait()
	if otherFile.Count() != 16 || s.Used() > 64*mib || s.Used() < 60*mib {
		t.Errorf("%d blocks of 16, used %d; evicted%s", otherFile.Count(), s.Used(), take())
	}
}

// An eviction of which the records cannot be removed did not happen.
func TestEvictionFailsWhole(t *testing.T) {
	evicted, take := evictions()
	s := openDisk(t, store.DiskConfig{Dir: t.TempDir(), Capacity: 3*mib - mib/4, Evicted: evicted})
	f := storetest.NewFile(1, 3*mib)
	file := f.Create(t, s, 0, 1)
	data, rec := f.Block(2)
	repair := s.BreakRecords()
	wantErr(t, file.Write(2, data, rec), store.ErrClosed)
	if got := take(); got != "" || file.Count() != 2 || s.Used() != 2*mib {
		t.Errorf("evicted%s, count %d, used %d", got, file.Count(), s.Used())
	}
	repair()
	f.Want(t, file, 0, 2*mib, true)
	if err := file.Write(2, data, rec); err != nil || take() != " 1:0" {
		t.Errorf("after the repair: %v", err)
	}
}
