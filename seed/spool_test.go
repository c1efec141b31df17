package seed

import (
	"bytes"
	"errors"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/seed/store"
)

// TestGrowingCounts: what is spooled of a file of unknown length takes room from
// the store; when the file is stored and its last reader has left, its blocks do.
func TestGrowingCounts(t *testing.T) {
	const capacity, size = 8 * mib, 2*mib + 5
	g := newGate(mib)
	origin := newUntold(size)
	origin.step = g.step
	disk := store.NewMemory(capacity)
	m := newManager(t, origin, func(c *Config) { c.Spool, c.Store = t.TempDir(), disk })
	f, err := m.Open(t.Context(), unsized(t, content.Range{Len: 1}))
	if err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, soon, func() bool { return origin.bytes.Load() >= mib }, "half of it has come")
	if free := disk.Free(); free > capacity-mib {
		t.Errorf("%d bytes free of %d beside a spool of 1 MiB", free, int64(capacity))
	}
	g.open(always)
	if got, err := stream(t.Context(), f, make([]byte, mib), 0); err != nil || !bytes.Equal(got, origin.data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	f.Close()
	p2ptest.Eventually(t, soon, func() bool { return m.Stats().Fills == 0 && disk.Free() == capacity-size }, "the blocks alone are counted")
}

// TestImportCounts: the body of an import that is checked first takes room from
// the store, once, also where there is hardly more; it comes back when the body is
// refused.
func TestImportCounts(t *testing.T) {
	const capacity, size = 6 * mib, 5 * mib
	for _, wrong := range []bool{false, true} {
		b := newBench(t, benchURL, size, func(c *Config) { c.Store = store.NewMemory(capacity) })
		data := bytes.Clone(b.data)
		if wrong {
			data[size-1]++
		}
		rest, least := bytes.NewReader(data), b.store.Free()
		_, err := b.imports(readerFunc(func(p []byte) (int, error) {
			least = min(least, b.store.Free())
			return rest.Read(p)
		}), digestOf(b.data))
		if least != capacity-size {
			t.Errorf("wrong %v: at least %d bytes were free beside a body of %d", wrong, least, int64(size))
		}
		free := int64(capacity - size)
		if wrong {
			free = capacity
		}
		if errors.Is(err, ErrDigest) != wrong || err != nil && !wrong || b.store.Free() != free {
			t.Errorf("wrong %v: %v; %d bytes are free in the end, want %d", wrong, err, b.store.Free(), free)
		}
		b.spoolEmpty()
	}
}
