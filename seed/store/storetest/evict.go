package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

// clock is a clock that stands still until it is moved.
type clock struct{ seconds atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.seconds.Store(1_800_000_000)
	return c
}

func (c *clock) now() time.Time          { return time.Unix(c.seconds.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.seconds.Add(int64(d / time.Second)) }

// diary writes down what was evicted, as file:stripe, with a ! behind the last
// stripe of a file.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) evicted(key store.Key, stripe int64, whole bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	line := fmt.Sprintf("%d:%d", key.Task[0], stripe)
	if whole {
		line += "!"
	}
	d.lines = append(d.lines, line)
}

// want compares what was evicted since it was last called.
func (d *diary) want(t testing.TB, lines ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("evicted %v, want %v", d.lines, lines)
	}
	d.lines = nil
}

func blockRange(i int64) content.Range { return content.Range{Off: i * mib, Len: mib} }

func (f *TestFile) tryWrite(file store.File, i int64) error {
	data, rec := f.Block(i)
	return file.Write(i, data, rec)
}

// testCapacity has files of any size in a small store.
func testCapacity(t *testing.T, h Harness) {
	const capacity = 8 * mib
	s := h.Open(t, Options{Capacity: capacity})
	f := NewFile(1, 64*mib+17)
	file := f.Create(t, s)
	for i := range f.Blocks() {
		f.Write(t, file, i)
		block := f.Info.Layout().Block(i)
		f.Want(t, file, block.Off, int(block.Len), i%2 == 0)
		if s.Used() > capacity {
			t.Fatalf("%d bytes of %d used", s.Used(), int64(capacity))
		}
	}
	if n := file.Count(); n < 7 || n > 8 {
		t.Errorf("%d blocks are held in the end", n)
	}
	large := NewLargeFile(2, store.MaxFileSize)
	last := large.Blocks() - 1
	if file := large.Create(t, s, 0, last); !file.Has(0) || !file.Has(last) || file.Count() != 2 {
		t.Errorf("%d blocks of the largest file", file.Count())
	} else {
		large.Want(t, file, last*mib, mib, true)
	}
	large.Key.Generation[5]++
	large.Info.Generation, large.Info.Size = large.Key.Generation, store.MaxFileSize+1
	_, err := s.Create(large.Key, large.Info)
	wantErr(t, err, store.ErrFull)

	tiny := h.Open(t, Options{Capacity: mib / 2})
	file = f.Create(t, tiny, 64)
	wantErr(t, f.tryWrite(file, 1), store.ErrFull)
	if !file.Has(64) {
		t.Error("evicted for a block that could not fit")
	}
}

// testReserve keeps bytes beside the blocks: they are made room for, stay free of
// blocks, and come back.
func testReserve(t *testing.T, h Harness) {
	const capacity = 8 * mib
	s := h.Open(t, Options{Capacity: capacity})
	f := NewFile(1, 16*mib)
	file := f.Create(t, s, 0, 1, 2, 3, 4, 5, 6, 7)
	wantErr(t, s.Reserve(capacity+1), store.ErrFull)
	if s.Used() != capacity {
		t.Errorf("%d bytes are left after what could not be reserved", s.Used())
	}
	for range 2 {
		if err := s.Reserve(3 * mib / 2); err != nil {
			t.Fatal(err)
		}
	}
	for i := range f.Blocks() {
		f.Write(t, file, i)
		if s.Used() > capacity-3*mib {
			t.Fatalf("%d bytes are used beside 3 MiB of %d", s.Used(), int64(capacity))
		}
	}
	lease := file.Lease(content.Range{Len: 16 * mib})
	used, free := s.Used(), s.Free()
	wantErr(t, s.Reserve(free+1), store.ErrFull)
	if s.Used() != used || s.Free() != free {
		t.Errorf("%d bytes used and %d free, were %d and %d: what is in use went, or what was refused is kept", s.Used(), s.Free(), used, free)
	}
	lease.Release()
	for range 3 {
		s.GiveBack(mib)
	}
	if s.Free() != free+3*mib {
		t.Errorf("%d bytes are free, want %d", s.Free(), free+3*mib)
	}
}

// capacityOf returns a capacity at which, when so many blocks are held, the next
// one makes exactly one block go.
func capacityOf(blocks int64) int64 { return blocks*mib + 3*mib/4 }

// testWatermarks fills a store of 40 blocks: with the one too many three go, to
// the first block of which there is no room again two more fit.
func testWatermarks(t *testing.T, h Harness) {
	d, c := new(diary), newClock()
	s := h.Open(t, Options{Capacity: 40 * mib, Evicted: d.evicted, Now: c.now})
	f := NewLargeFile(1, 200*mib)
	file := f.Create(t, s)
	for i := range int64(40) {
		f.Write(t, file, i)
		c.advance(time.Second)
	}
	d.want(t)
	if s.Used() != 40*mib {
		t.Errorf("used %d", s.Used())
	}
	f.Write(t, file, 40)
	d.want(t, "1:0", "1:1", "1:2")
	f.Write(t, file, 41)
	f.Write(t, file, 42)
	d.want(t)
	f.Write(t, file, 42) // is held
	d.want(t)
	f.Write(t, file, 43)
	d.want(t, "1:3", "1:4", "1:5")
	_, err := file.Record(3)
	wantErr(t, err, store.ErrNotFound)
	wantErr(t, file.ReadAt(make([]byte, 1), 3*mib, false), store.ErrNotFound)
	wantErr(t, file.Check(3), store.ErrNotFound)
	f.Write(t, file, 3)
	f.Want(t, file, 3*mib, mib, true)
}

func testEvictionOrder(t *testing.T, h Harness) {
	d, c := new(diary), newClock()
	owned := func(key store.Key, stripe int64) bool { return key.Task[0] < 3 && stripe != 1 }
	s := h.Open(t, Options{Capacity: capacityOf(12), Owned: owned, Evicted: d.evicted, Now: c.now})
	var files []store.File
	for k := range byte(4) {
		f := NewFile(k+1, 3*mib)
		files = append(files, f.Create(t, s, 0, 1, 2))
		c.advance(time.Minute)
	}
	files[1].Outdate(true)
	files[2].Outdate(true)
	files[2].Outdate(false)
	touch := func(file store.File, i int64) {
		c.advance(time.Minute)
		if err := file.ReadAt(make([]byte, 1), i*mib, i%2 == 0); err != nil {
			t.Error(err)
		}
	}
	touch(files[2], 0)
	touch(files[0], 0)
	touch(files[1], 0)
	// 2 is outdated: first its stripes, though it owns two, then 1:1 and all of
	// 3 and 4, which are others', then its own.
	want := []string{"2:1", "2:2", "2:0!", "1:1", "3:1", "3:2", "4:0", "4:1", "4:2!", "3:0!", "1:2", "1:0!"}
	f := NewFile(9, 12*mib)
	file := f.Create(t, s)
	for i := range int64(12) {
		lease := file.Lease(blockRange(i))
		defer lease.Release()
		f.Write(t, file, i)
		d.want(t, want[i])
	}
	wantErr(t, f.tryWrite(NewFile(8, 12*mib).Create(t, s), 0), store.ErrFull)
}

// testEvictionByStripe has stripes of four blocks, of which the last is short.
func testEvictionByStripe(t *testing.T, h Harness) {
	d, c := new(diary), newClock()
	s := h.Open(t, Options{Capacity: 9 * mib, Evicted: d.evicted, Now: c.now})
	f := NewLargeFile(1, 3<<30)
	file := f.Create(t, s)
	last := f.Blocks() - 1
	for _, i := range []int64{0, 1, 3, 4, 5, last} {
		f.Write(t, file, i)
	}
	c.advance(time.Second)
	f.Want(t, file, 0, 1, true) // keeps all of stripe 0
	f.Want(t, file, last*mib, 1, true)
	c.advance(time.Second)
	for i := range int64(3) {
		f.Write(t, file, 8+i)
	}
	d.want(t)
	f.Write(t, file, 11)
	d.want(t, "1:1")
	if file.Has(4) || file.Has(5) || !file.Has(0) || !file.Has(last) || s.Used() != 8*mib {
		t.Errorf("bitmap %b, used %d", file.Bitmap()[:2], s.Used())
	}
	// A stripe that is being written to keeps what it has: 3 and 2 can not both
	// stay, though 3 is older.
	f.Write(t, file, 12)
	c.advance(time.Second)
	f.Want(t, file, 8*mib, 1, false)
	f.Want(t, file, 12*mib, 1, false)
	f.Want(t, file, last*mib, 1, false)
	f.Write(t, file, 2)
	if !file.Has(0) || !file.Has(2) || !file.Has(3) {
		t.Errorf("evicted what was written to: bitmap %b", file.Bitmap()[:2])
	}
}

// testEvictedIsTold has Evicted use the store, which no lock may hinder.
func testEvictedIsTold(t *testing.T, h Harness) {
	var s store.Store
	f, other, third := NewFile(1, 4*mib), NewFile(2, 4*mib), NewFile(3, mib)
	told := 0
	s = h.Open(t, Options{Capacity: capacityOf(4), Evicted: func(key store.Key, stripe int64, _ bool) {
		told++
		file := open(t, s, key)
		if file.Has(stripe) || file.Bitmap()[0]&(1<<stripe) != 0 {
			t.Errorf("stripe %d is held and was told to be evicted", stripe)
		}
		switch told {
		case 1:
			third.Create(t, s, 0) // evicts in its turn
		case 2:
			if err := s.Delete(key); err != nil {
				t.Error(err)
			}
		}
	}})
	f.Create(t, s, 0, 1, 2, 3)
	other.Create(t, s, 0)
	if told != 2 {
		t.Errorf("told of %d evictions", told)
	}
	_, err := s.Open(f.Key)
	wantErr(t, err, store.ErrNotFound)
	if s.Used() != 2*mib {
		t.Errorf("used %d", s.Used())
	}
}

func testOrderAfterReopen(t *testing.T, h Harness) {
	d, c := new(diary), newClock()
	s := h.Open(t, Options{Capacity: capacityOf(6), Evicted: d.evicted, Now: c.now})
	f := NewFile(1, 6*mib)
	file := f.Create(t, s, 0, 1, 2, 3, 4, 5)
	order := []int64{3, 0, 5, 1, 4, 2}
	for _, i := range order {
		c.advance(time.Second)
		f.Want(t, file, i*mib, 1, true)
	}
	c.advance(time.Minute)
	other := NewFile(2, 6*mib)
	for k, i := range order {
		s = h.Reopen(t, s)
		other.Create(t, s, int64(k))
		d.want(t, fmt.Sprintf("1:%d", i)+map[bool]string{true: "!"}[k == 5])
	}
	// Of a task's generations the latest counts.
	old := NewFile(2, mib)
	old.Key.Generation[9] = 7
	old.Info.Generation = old.Key.Generation
	old.Info.Created = other.Info.Created.Add(-time.Second)
	old.Create(t, s, 0)
	d.want(t, "2:0")
	s = h.Reopen(t, s)
	c.advance(time.Hour)
	old.Want(t, open(t, s, old.Key), 0, 1, false)
	open(t, s, other.Key)
	NewFile(3, mib).Create(t, s, 0)
	d.want(t, "2:0!")
}
