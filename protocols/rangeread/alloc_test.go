package rangeread

import (
	"context"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// A warm small read allocates little: most of what it needs belongs to its
// stream. Both ends and libp2p are counted.
func TestAllocations(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize, key, id)
	e := serve(t, m, id)
	buf := make([]byte, content.BlockSize)
	into := func(off int64, n int) []byte { return buf[off:][:n] }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req := m.request(3*content.LeafSize+4096, 4096)
	req.Small = true
	read := func() {
		b, err := e.client.Open(ctx, e.source, req)
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.Next(into)
		if err != nil || len(p.Data) != 4096 {
			t.Fatalf("%d bytes, error %v", len(p.Data), err)
		}
		_, _ = b.Next(into)
		_ = b.Close()
	}
	read()
	// 7 without the race detector, of which 2 are TLS's.
	if n := testing.AllocsPerRun(300, read); n > 12 {
		t.Errorf("a warm read of 4 KiB allocates %v times", n)
	}
}
