package store

import (
	"context"
	"log/slog"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
)

// TestBlocksShareSyncs: records that come soon after one another are written in one
// step, all of them; one that was waited for in vain has the next go at once.
func TestBlocksShareSyncs(t *testing.T) {
	r, err := openRecords(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.close() }()
	join := func(key string) (*group, bool, time.Duration) {
		return r.join(func(ctx context.Context, b ds.Batch) error { return b.Put(ctx, ds.RawKey(key), []byte("x")) })
	}
	g, first, wait := join("/1")
	if !first || wait != 0 {
		t.Fatalf("the first block: first %v, waits %v", first, wait)
	}
	if h, first, _ := join("/2"); h != g || first {
		t.Fatalf("the second block is not in the first's group")
	}
	r.commitGroup(g, false)
	<-g.done
	for _, key := range []string{"/1", "/2"} {
		if _, err := r.get(key); err != nil || g.err != nil {
			t.Errorf("record %s: %v, group: %v", key, err, g.err)
		}
	}
	r.synced = time.Now().Add(time.Hour) // a slow machine is not what is tested
	g, _, wait = join("/3")
	if wait <= 0 {
		t.Error("a block soon after a sync does not wait for others")
	}
	r.commitGroup(g, true)
	for range aloneFor {
		r.synced = time.Now().Add(time.Hour)
		if g, _, wait = join("/4"); wait != 0 {
			t.Errorf("waits %v again, in vain", wait)
		}
		r.commitGroup(g, false)
	}
	r.synced = time.Now().Add(time.Hour)
	if g, _, wait = join("/5"); wait <= 0 {
		t.Error("does not wait any more")
	}
	r.commitGroup(g, true)
}
