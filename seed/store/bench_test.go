package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
	"github.com/p2pnode/p2pnode/seed/store/storetest"
)

// BenchmarkRead reads from a warm store, and beside it from a plain file.
func BenchmarkRead(b *testing.B) {
	const blocks = 32
	f := storetest.NewFile(1, blocks*mib)
	s := openDisk(b, store.DiskConfig{Dir: b.TempDir()})
	file := f.Create(b, s)
	for i := range int64(blocks) {
		f.Write(b, file, i)
	}
	plain, err := os.Open(store.DataPath(s, f.Key))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	for _, size := range []int64{4 << 10, 64 << 10, mib} {
		for _, way := range []struct {
			name string
			read func(p []byte, off int64) error
		}{
			{"plain", func(p []byte, off int64) error { _, err := plain.ReadAt(p, off); return err }},
			{"raw", func(p []byte, off int64) error { return file.ReadAt(p, off, false) }},
			{"verified", func(p []byte, off int64) error { return file.ReadAt(p, off, true) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", way.name, size), func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				p := make([]byte, size)
				var off int64
				for b.Loop() {
					if err := way.read(p, off); err != nil {
						b.Fatal(err)
					}
					off = (off + 37*size) % (blocks * mib)
				}
			})
		}
	}
}

// BenchmarkWrite writes blocks one after another and by eight writers, into a
// store with room, where most are dropped and written again, and into a full one;
// beside that into a plain file, with and without a sync of each.
func BenchmarkWrite(b *testing.B) {
	f := storetest.NewFile(1, mib)
	data, rec := f.Block(0)
	for _, writers := range []int64{1, 8} {
		b.Run(fmt.Sprintf("store/%d", writers), func(b *testing.B) {
			s := openDisk(b, store.DiskConfig{Dir: b.TempDir(), Capacity: 1 << 50})
			big := *f
			big.Info.Size = 1 << 40
			file := big.Create(b, s)
			each(b, writers, func(i int64) error {
				if i > 500 {
					i %= 500 // bounds what the benchmark leaves on the disk
					if err := file.Drop(i); err != nil {
						return err
					}
				}
				return file.Write(i, data, rec)
			})
		})
		b.Run(fmt.Sprintf("evicting/%d", writers), func(b *testing.B) {
			s := openDisk(b, store.DiskConfig{Dir: b.TempDir(), Capacity: 256 * mib})
			big := *f
			big.Info.Size = 1 << 40
			file := big.Create(b, s)
			for i := range int64(256) {
				if err := file.Write(i, data, rec); err != nil {
					b.Fatal(err)
				}
			}
			each(b, writers, func(i int64) error { return file.Write(256+i%(1<<19), data, rec) })
		})
		for _, sync := range []bool{false, true} {
			b.Run(fmt.Sprintf("plain/sync=%t/%d", sync, writers), func(b *testing.B) {
				plain, err := os.Create(filepath.Join(b.TempDir(), "plain"))
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = plain.Close() }()
				each(b, writers, func(i int64) error {
					if _, err := plain.WriteAt(data, i%500*mib); err != nil || !sync {
						return err
					}
					return plain.Sync()
				})
			})
		}
	}
}

// each does write b.N times, by so many writers.
func each(b *testing.B, writers int64, write func(i int64) error) {
	b.SetBytes(content.BlockSize)
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				if err := write(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
