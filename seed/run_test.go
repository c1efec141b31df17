package seed

import (
	"context"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// TestNeighbouringStripes: what a peer wants of stripes that this node is to read
// is read in one go, but for no other's stripe; a client of its own has a fill for
// each.
func TestNeighbouringStripes(t *testing.T) {
	for name, c := range map[string]struct {
		owns func(stripe int64) bool
		own  bool // a client of the node reads
		runs []content.Range
	}{
		"own stripes": {
			owns: func(s int64) bool { return s != 3 },
			runs: []content.Range{{Len: mib}, {Off: mib, Len: 2 * mib}, {Off: 3 * mib, Len: mib}, {Off: 4 * mib, Len: 2 * mib}},
		},
		"no stripe": {
			owns: func(int64) bool { return false },
			runs: []content.Range{{Len: mib}, {Off: mib, Len: mib}, {Off: 2 * mib, Len: mib}, {Off: 3 * mib, Len: mib}, {Off: 4 * mib, Len: mib}, {Off: 5 * mib, Len: mib}},
		},
		"own client": {
			owns: func(int64) bool { return true }, own: true,
			runs: []content.Range{{Len: mib}, {Off: mib, Len: mib}, {Off: 2 * mib, Len: mib}, {Off: 3 * mib, Len: mib}, {Off: 4 * mib, Len: mib}, {Off: 5 * mib, Len: mib}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			origin := newFakeOrigin(6 * mib)
			hosts := p2ptest.Hosts(t, 2)
			seed := newNode(t, hosts[0], func(*node) Filler { return origin }, func(cfg *Config) {
				cfg.Owns = func(_ content.TaskID, stripe int64, _ []peer.ID) bool { return c.owns(stripe) }
			})
			all := content.Range{Len: 6 * mib}
			if c.own {
				mustRead(t, seed.m, origin.data, all)
			} else {
				reader := newNode(t, hosts[1], func(*node) Filler { return fillFunc(nil) }, nil)
				connectAll(t, seed, reader)
				got, err := reader.readPeer(t.Context(), seed.id(), ask(t, all), nil)
				if err := sameBytes(got, err, origin.data, all); err != nil {
					t.Fatal(err)
				}
			}
			origin.mu.Lock()
			defer origin.mu.Unlock()
			slices.SortFunc(origin.wants, func(a, b content.Range) int { return int(a.Off - b.Off) })
			if !slices.Equal(origin.wants, c.runs) {
				t.Errorf("fills of %v, want %v", origin.wants, c.runs)
			}
		})
	}
}

// TestAskingPeersNarrows: where a fill of several stripes turns to a peer, it wants
// the stripe it is in alone. Who waits for the others has fills of their own, and
// nothing is read twice.
func TestAskingPeersNarrows(t *testing.T) {
	origin := newFakeOrigin(4 * mib)
	hosts := p2ptest.Hosts(t, 2)
	var narrowed content.Range
	seed := newNode(t, hosts[0], func(*node) Filler {
		return fillFunc(func(ctx context.Context, job *Job) error {
			if job.Want() == (content.Range{Off: mib, Len: 3 * mib}) {
				job.AskPeer(hosts[1].ID())
				narrowed = job.Want()
			}
			return origin.Fill(ctx, job)
		})
	}, func(c *Config) { c.Owns = func(content.TaskID, int64, []peer.ID) bool { return true } })
	reader := newNode(t, hosts[1], func(*node) Filler { return fillFunc(nil) }, nil)
	connectAll(t, seed, reader)
	all := content.Range{Len: 4 * mib}
	got, err := reader.readPeer(t.Context(), seed.id(), ask(t, all), nil)
	if err := sameBytes(got, err, origin.data, all); err != nil {
		t.Fatal(err)
	}
	if want := (content.Range{Off: mib, Len: mib}); narrowed != want {
		t.Errorf("a peer is asked for %v, want %v", narrowed, want)
	}
	if n := origin.maxCopies(); n != 1 {
		t.Errorf("a block was read %d times", n)
	}
}
