package seed

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// TestSourceAfterValidation: what is held is local, although the origin was
// asked a moment ago whether it is current.
func TestSourceAfterValidation(t *testing.T) {
	var clock atomic.Int64
	b := newBench(t, benchURL, mib, func(c *Config) {
		c.Now = func() time.Time { return time.Unix(1_800_000_000, clock.Load()) }
	})
	if _, err := b.open(content.Range{}).Prefetch(t.Context(), nil, false, nil); err != nil {
		t.Fatal(err)
	}
	clock.Add(int64(2 * minFresh))
	f := b.open(content.Range{Len: mib})
	holds, err := f.Hold(t.Context(), content.Range{Len: mib})
	if err != nil {
		t.Fatal(err)
	}
	defer holds[0].Release()
	if _, err := holds[0].ReadAt(t.Context(), make([]byte, 1), 0); err != nil || holds[0].Source() != SourceLocal {
		t.Errorf("from %s, %v", holds[0].Source(), err)
	}
	if f.q.found == nil {
		t.Error("nobody was asked: the test shows nothing")
	}
}
