package locate

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// TestGateway: all nodes of a site name the same member of it for a stripe, each
// for another stripe; the next in order where that one is skipped, broken or
// cordoned; nobody where an owner is near, or there is no site.
func TestGateway(t *testing.T) {
	task := taskNamed(1)
	site := []string{"a", "b", "c"}
	const stripe = 5
	first := rankOf(task, stripe, site...)
	cases := []struct {
		name     string
		self     peer.ID
		label    string
		seeds    []peer.ID
		whole    bool // the second seed has the file
		skip     []peer.ID
		broken   []peer.ID
		cordoned []peer.ID
		head     bool
		want     peer.ID
	}{
		{name: "reader", want: first[0]},
		{name: "member", self: first[2], want: first[0]},
		{name: "itself", self: first[0]},
		{name: "itself while its breaker is open", self: first[0], broken: first[:1]},
		{name: "skipped", skip: first[:1], want: first[1]},
		{name: "broken", broken: first[:1], want: first[1]},
		{name: "cordoned", cordoned: first[:1], want: first[1]},
		{name: "all gone", skip: first},
		{name: "head", head: true, want: rankOf(task, 0, site...)[0]},
		{name: "another site", label: "elsewhere"},
		{name: "no site", label: "none"},
		{name: "owner near", seeds: ids("a")},
		{name: "a whole copy near", seeds: ids("z", "a"), whole: true},
		{name: "a copy near", seeds: append(ids("z"), first[1]), want: first[0]},
		{name: "owner near but skipped", seeds: append(ids("z"), first[0]), skip: first[:1], want: first[1]},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.self == "" {
				c.self = id("reader")
			}
			if c.seeds == nil {
				c.seeds = ids("z")
			}
			label := map[string]string{"": "here", "elsewhere": "elsewhere", "none": ""}[c.label]
			clk := &clock{start}
			m := New(Config{Self: c.self, SelfSeed: true, Site: label, Supernodes: ids("super"), Now: clk.Now})
			pub := newPublisher("super")
			pool := members(1, append(site, "z")...)
			for i := range site {
				pool[i].Site = "here"
				for _, p := range c.cordoned {
					pool[i].Cordoned = pool[i].Cordoned || p == pool[i].ID
				}
			}
			apply(m, pub.pool(pool)...)
			a := assignTo(task, c.seeds...)
			a.Size = 100 << 20
			if len(c.seeds) == 2 { // a copy: z owns all
				a = shares(task, c.seeds, assignment.Runs{}, assignment.AllRuns)
				a.Whole = []bool{false, c.whole}
			}
			apply(m, pub.assign(a))
			for _, p := range c.broken {
				m.Failure(p)
			}
			n := int64(stripe)
			if c.head {
				n = 0
			}
			got, ok := m.Gateway(task, n, false, c.skip)
			if got2, _ := m.Gateway(task, 0, true, c.skip); c.head && got2 != got {
				t.Errorf("%q where the task is sequential, want %q", got2, got)
			}
			if !ok {
				got = ""
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			reader, ok := m.SiteReader(task, n, false, c.skip)
			switch {
			case c.label != "" || c.name == "all gone":
				if ok {
					t.Errorf("%q reads for no site", reader)
				}
			case c.want != "" && reader != c.want:
				t.Errorf("%q reads for the site, the gateway is %q", reader, c.want)
			case c.want == "" && reader != first[0]:
				t.Errorf("%q reads for the site, want %q", reader, first[0])
			}
		})
	}
}

// TestGatewayDoesNotAllocate, as it is asked for each run that is missing.
func TestGatewayDoesNotAllocate(t *testing.T) {
	clk := &clock{start}
	m := New(Config{Self: id("reader"), Site: "here", Supernodes: ids("super"), Now: clk.Now})
	pool := peers(100)
	for i := range pool[:50] {
		pool[i].Site = "here"
	}
	pub := newPublisher("super")
	apply(m, pub.pool(pool)...)
	task := content.TaskID{1}
	apply(m, pub.assign(assignTo(task, pool[60].ID)))
	n := 0
	if allocs := testing.AllocsPerRun(100, func() {
		if _, ok := m.Gateway(task, 3, false, nil); ok {
			n++
		}
	}); allocs != 0 || n == 0 {
		t.Errorf("%v allocations a call, found %d times", allocs, n)
	}
}

// TestAtSite: the other members of the site, but for cordoned ones; nobody without a
// site, or a pool.
func TestAtSite(t *testing.T) {
	for label, want := range map[string][]peer.ID{"here": ids("b"), "": nil} {
		clk := &clock{start}
		m := New(Config{Self: id("a"), SelfSeed: true, Site: label, Supernodes: ids("super"), Now: clk.Now})
		if got := m.AtSite(nil); len(got) != 0 {
			t.Errorf("site %q, no pool: %v", label, got)
		}
		pool := members(1, "a", "b", "c", "z")
		for i := range 3 {
			pool[i].Site = "here"
		}
		pool[2].Cordoned = true
		apply(m, newPublisher("super").pool(pool)...)
		if got := m.AtSite(ids("x")); !slices.Equal(got, append(ids("x"), want...)) {
			t.Errorf("site %q: %v, want %v behind x", label, got, want)
		}
	}
}
