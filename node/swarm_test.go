package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/node/locate"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// TestDutyIsAnnounced: a node announces what it is elected for, and no more
// what it is demoted from.
func TestDutyIsAnnounced(t *testing.T) {
	const self, boss, other = peer.ID("self"), peer.ID("boss"), peer.ID("other")
	reg := prometheus.NewRegistry()
	m := seedMap{
		Map:       locate.New(locate.Config{Self: self, SelfSeed: true, Supernodes: []peer.ID{boss}}),
		providers: locate.NewProviders(locate.ProvidersConfig{Registerer: reg}), seed: true, believes: func(peer.ID) bool { return true },
	}
	seq := uint64(0)
	elect := func(task byte, seeds ...peer.ID) {
		seq++
		m.Apply(assignment.Signed{Supernode: boss}, assignment.Update{
			Cursor: assignment.Cursor{Supernode: boss, Epoch: 1, Seq: seq}, Issued: time.Now(),
			Assigns: []assignment.Assign{{Task: content.TaskID{task}, Size: -1, Seeds: seeds, Lease: time.Hour}},
		})
	}
	announced := func() float64 {
		got, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range got {
			if f.GetName() == "p2pnode_locate_dht_provided_entries" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return 0
	}
	elect(1, self, other)
	elect(2, other, self)
	elect(3, other)
	if n := announced(); n != 2 {
		t.Errorf("%v tasks announced, want the two with this node", n)
	}
	elect(2, other)
	if n := announced(); n != 1 {
		t.Errorf("%v tasks announced after the end of a duty, want 1", n)
	}
}

// TestWanted: neighbours are four of the pool and four others that were met,
// whoever those are, and none of them twice.
func TestWanted(t *testing.T) {
	var pool []assignment.Member
	var met []peer.AddrInfo
	for i := range 12 {
		id := peer.ID(fmt.Sprint("pool", i))
		pool = append(pool, assignment.Member{ID: id, Weight: float64(1 + i%3)})
		met = append(met, peer.AddrInfo{ID: id}, peer.AddrInfo{ID: peer.ID(fmt.Sprint("other", i))})
	}
	boss, self := peer.AddrInfo{ID: "boss"}, peer.ID("other0")
	met = append(met, boss, peer.AddrInfo{ID: "other5"})
	for _, c := range []struct {
		name          string
		pool          []assignment.Member
		met           []peer.AddrInfo
		ours, strange int
	}{
		{"nobody", nil, nil, 0, 0},
		{"no pool yet", nil, met, 0, 4},
		{"all are in the pool", pool, met[:1], 4, 0},
		{"a small pool", pool[:2], met, 2, 4},
		{"many of both", pool, met, 4, 4},
		{"few are met", pool, met[:4], 4, 1},
	} {
		in := make(map[peer.ID]bool)
		for _, p := range c.pool {
			in[p.ID] = true
		}
		got := wanted(c.pool, c.met, self, []peer.AddrInfo{boss})
		seen := map[peer.ID]bool{boss.ID: true, self: true}
		ours := 0
		for _, p := range got {
			if seen[p.ID] {
				t.Errorf("%s: %s is wanted", c.name, p.ID)
			}
			seen[p.ID] = true
			if in[p.ID] {
				ours++
			}
		}
		if ours != c.ours || len(got)-ours != c.strange {
			t.Errorf("%s: %d of the pool and %d others, want %d and %d", c.name, ours, len(got)-ours, c.ours, c.strange)
		}
		turned := slices.Clone(c.met)
		slices.Reverse(turned)
		if again := wanted(c.pool, turned, self, []peer.AddrInfo{boss}); !slices.EqualFunc(got, again, func(a, b peer.AddrInfo) bool { return a.ID == b.ID }) {
			t.Errorf("%s: neighbours depend on the order in which they were met", c.name)
		}
	}
}
