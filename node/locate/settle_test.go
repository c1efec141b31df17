package locate

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestSettle: a node that finds out where it stands, or moves, reads by that from
// the next read on, also what it has read before.
func TestSettle(t *testing.T) {
	task := taskNamed(1)
	clk := &clock{start}
	m := New(Config{Self: id("reader"), Supernodes: ids("super", "second"), Now: clk.Now})
	pool := members(1, "a", "b", "c", "z")
	for i, site := range []string{"here", "here", "there", ""} {
		pool[i].Site = site
	}
	for _, super := range []string{"super", "second"} {
		pub := newPublisher(super)
		apply(m, pub.pool(pool)...)
		a := assignTo(task, ids("z", "c")...)
		a.Size = 100 << 20
		apply(m, pub.assign(a))
	}
	unknown := taskNamed(2)
	at := map[string]map[peer.ID]bool{"here": {id("a"): true, id("b"): true}, "there": {id("c"): true}}
	stripe := int64(-1) // of z's
	for i := range int64(50) {
		if owner, _ := m.Owner(task, i, false, nil); owner == id("z") {
			stripe = i
		}
	}
	look := func(site string) {
		t.Helper()
		m.Settle(site)
		m.Settle(site)
		gateway, ok := m.Gateway(task, stripe, false, nil)
		if ok != (at[site] != nil) || ok && !at[site][gateway] {
			t.Errorf("at %q the gateway is %q, %v", site, gateway, ok)
		}
		sources := m.Sources(nil, task, stripe, false, nil)
		if near := sources[0] == (Source{id("c"), SiteSeed}); near != (site == "there") {
			t.Errorf("at %q the sources are %v", site, sources)
		}
		if far := m.Far(id("z"), id("a")); far != (site != "here") {
			t.Errorf("at %q a holder here is far from one without a site: %v", site, far)
		}
		if got := len(m.Sources(nil, unknown, 0, false, nil)); got == 0 {
			t.Errorf("at %q nobody has a file that was not heard of", site)
		}
	}
	for _, site := range []string{"", "here", "there", "here", "elsewhere", ""} {
		look(site)
	}
}

// TestLoneInferredSite: a node behind a NAT of its own is referred to as one
// without a site is; where another shares its address its uplink is spared.
func TestLoneInferredSite(t *testing.T) {
	far := func(home string, sites ...string) bool {
		m := New(Config{Self: id("self"), Site: home, Supernodes: ids("super"), Now: (&clock{start}).Now})
		pool := members(1, "holder", "b", "c")
		for i := range sites {
			pool[i].Site = sites[i]
		}
		apply(m, newPublisher("super").pool(pool)...)
		return m.Far(id("reader"), id("holder"))
	}
	for _, c := range []struct {
		home  string
		sites []string
		want  bool
	}{
		{"", []string{"auto-u-1", "auto-u-2", ""}, false},
		{"", []string{"auto-u-1", "auto-u-1", ""}, true},
		{"", []string{"auto-u-1", "auto-u-1", "auto-u-1"}, true},
		{"", []string{"given", "auto-u-1", ""}, true},
		{"auto-u-1", []string{"auto-u-1", "", ""}, false},
	} {
		if got := far(c.home, c.sites...); got != c.want {
			t.Errorf("at %q, with sites %q: far is %v", c.home, c.sites, got)
		}
	}
}
