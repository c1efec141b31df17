package store

import (
	"context"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
)

// FlipMemory changes a byte of a block in memory.
func FlipMemory(t testing.TB, s Store, key Key, off int64) {
	f, err := s.(*Memory).index.get(key)
	if err != nil {
		t.Fatal(err)
	}
	i := off / (1 << 20)
	data := make([]byte, f.blocks[i].data.Size())
	if _, err := f.blocks[i].data.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	data[off%(1<<20)] ^= 1
	f.blocks[i].data.Reset(data)
}

// FlipRecord changes a bit, chosen by nth, of a stored record.
func FlipRecord(t testing.TB, s Store, key Key, i int64, nth int) {
	d := s.(*Disk)
	at := ds.RawKey(blockKey(recordPrefix, fileName(key), i))
	value, err := d.records.db.Get(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	value[nth/8%len(value)] ^= 1 << (nth % 8)
	if err := d.records.db.Put(context.Background(), at, value); err != nil {
		t.Fatal(err)
	}
}

// DataPath returns the path of the data file of key.
func DataPath(s Store, key Key) string {
	d := s.(*Disk)
	return d.newFile(key, Info{}).path
}

// DataFile is what WithDataFiles' function returns.
type DataFile = dataFile

// OpenData opens a data file as a Disk does.
var OpenData = openData

// Allocated returns the bytes that a file takes on the disk.
var Allocated = allocated

// MaxOpenFiles bounds the open data files.
const MaxOpenFiles = maxOpenFiles

// WithDataFiles makes a Disk open its data files by open.
func (c DiskConfig) WithDataFiles(open func(path string, create bool) (DataFile, error)) DiskConfig {
	c.open = open
	return c
}

// WithFree makes a Disk believe in so many free bytes.
func (c DiskConfig) WithFree(free func() int64) DiskConfig {
	c.free = func(string) (int64, bool) { return free(), true }
	return c
}

// WithBoot names the boot of the machine.
func (c DiskConfig) WithBoot(id string) DiskConfig {
	c.boot = func() string { return id }
	return c
}

// WithMaintainEvery sets the time between two calls of Maintain by Run.
func (c DiskConfig) WithMaintainEvery(d time.Duration) DiskConfig {
	c.every = d
	return c
}

// Kill ends the store as the death of its process would: it leaves no mark, and
// the times of use are as they were last written.
func (d *Disk) Kill(t testing.TB) {
	if err := d.close(false); err != nil {
		t.Fatal(err)
	}
}

// Logged returns the bytes that were written to the log of the records.
func (d *Disk) Logged() uint64 { return d.records.db.DB.Metrics().WAL.BytesIn }

// BreakRecords has all use of the records fail with ErrClosed until repair is
// called.
func (d *Disk) BreakRecords() (repair func()) {
	set := func(closed bool) {
		d.records.mu.Lock()
		defer d.records.mu.Unlock()
		d.records.closed = closed
	}
	set(true)
	return func() { set(false) }
}
