package store

import (
	"fmt"
	"testing"
)

// BenchmarkPick chooses what goes from a full store of so many stripes: of a node that owns nothing, and of one that owns everything,
// which asks for each stripe.
func BenchmarkPick(b *testing.B) {
	const perFile = 1000
	for _, stripes := range []int64{10_000, 1_000_000} {
		m := OpenMemory(MemoryConfig{Capacity: stripes << 20})
		for k := range stripes / perFile {
			var key Key
			key.Task[0], key.Task[1] = byte(k), byte(k>>8)
			info := Info{}
			info.Size = perFile * 4 << 20 // stripes of four, of which one block is held
			f, err := m.index.create(key, func() (*memoryFile, error) {
				return &memoryFile{extent: newExtent(uint64(k), key, info.Layout(), 1), store: m, info: info}, nil
			})
			if err != nil {
				b.Fatal(err)
			}
			for s := range int64(perFile) {
				f.set(4 * s)
				_, st := f.stripe(s)
				st.used.Store(uint32(1 + (s*7919+k*104_729)%1_000_003))
			}
		}
		for name, owned := range map[string]func(Key, int64) bool{
			"foreign": nil,
			"own":     func(Key, int64) bool { return true },
		} {
			b.Run(fmt.Sprintf("%s/%d", name, stripes), func(b *testing.B) {
				b.ReportAllocs()
				m.quota.owned = owned
				for b.Loop() {
					n := m.quota.spare()
					if victims, bytes := m.quota.pick(n); bytes != n {
						b.Fatalf("%d victims of %d bytes, want %d", len(victims), bytes, n)
					}
				}
			})
		}
	}
}
