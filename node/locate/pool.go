package locate

import (
	"cmp"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/assignment"
)

// maxPartial bounds the pools of one supernode of which pages are still
// missing; the oldest goes.
const maxPartial = 4

// pool is one whole seed pool, immutable.
type pool struct {
	id      uint64 // differs among all pools of a Map; not 0
	members []assignment.Member
	ranking []content.Member  // the same, in the same order, no member twice, at most MaxPool
	index   map[peer.ID]int32 // into both
	open    []content.Member  // those who take new duties
	home    string            // this node's site
	local   []content.Member  // those of the open ones there
	lone    map[string]bool   // inferred sites of which only one member is known
	digest  [32]byte
	// replicas is what its supernode says; 0: nothing.
	replicas int
	// filterQuery is what its supernode, in that epoch, says; none: nothing.
	filterQuery []string
	epoch       uint64
	// shards is in how many its supernode publishes; 0 or 1: in one.
	shards int
	// since is when it came to rank as it does, Unix ns; former are the pools
	// that ranked otherwise before, the latest first.
	since  int64
	former []*pool
}

// maxFormer bounds the pools that are remembered behind the present one.
const maxFormer = 4

// succeed makes p follow old.
func (p *pool) succeed(old *pool, now int64) {
	p.since = now
	switch {
	case old == nil:
	case p.replicas == old.replicas && slices.Equal(p.ranking, old.ranking) && slices.Equal(p.open, old.open):
		p.former, p.since = old.former, old.since
	default:
		last := *old
		last.former = nil
		p.former = append([]*pool{&last}, old.former[:min(len(old.former), maxFormer-1)]...)
	}
}

// newPool makes a pool of an epoch; site is this node's.
func newPool(id, epoch uint64, whole *partial, site string) *pool {
	members, first := whole.members(), whole.pages[0]
	p := &pool{
		id: id, epoch: epoch, replicas: first.Replicas, shards: first.Shards, filterQuery: first.FilterQuery,
		index: make(map[peer.ID]int32, len(members)), digest: assignment.PoolDigest(members, first.FilterQuery...),
	}
	for _, m := range members {
		if _, twice := p.index[m.ID]; twice || len(p.members) == assignment.MaxPool {
			continue
		}
		p.index[m.ID] = int32(len(p.members))
		p.members = append(p.members, m)
		p.ranking = append(p.ranking, content.Member{ID: m.ID, Weight: m.Weight})
		if m.Cordoned {
			continue
		}
		p.open = append(p.open, p.ranking[len(p.ranking)-1])
	}
	p.settle(site)
	return p
}

// Inferred begins the names of sites that nobody gave: see Config.Site.
const Inferred = "auto-"

// settle makes a site this node's.
func (p *pool) settle(site string) {
	p.home, p.local, p.lone = site, nil, map[string]bool{}
	for _, m := range p.members {
		if _, seen := p.lone[m.Site]; strings.HasPrefix(m.Site, Inferred) && m.Site != site {
			p.lone[m.Site] = !seen
		}
	}
	for i, m := range p.members {
		if site != "" && m.Site == site && !m.Cordoned {
			p.local = append(p.local, p.ranking[i])
		}
	}
}

// near reports whether a member is at this node's site. No site is near anything.
func (p *pool) near(id peer.ID) bool {
	if p == nil || p.home == "" {
		return false
	}
	at, ok := p.index[id]
	return ok && p.members[at].Site == p.home
}

// site returns the site of a member; "" where it has none, or is none. A site whose
// name was inferred and that is no other member's is none: every node behind a NAT
// has a name, but an uplink to spare is there only where several stand behind it.
func (p *pool) site(id peer.ID) string {
	if p == nil {
		return ""
	}
	if at, ok := p.index[id]; ok && !p.lone[p.members[at].Site] {
		return p.members[at].Site
	}
	return ""
}

// key identifies the pool; 0 is no pool.
func (p *pool) key() uint64 {
	if p == nil {
		return 0
	}
	return p.id
}

// partial is a pool of which pages are missing.
type partial struct {
	version uint64
	pages   []*assignment.PoolPage
	records []*record
	missing int
}

// pools puts the pages of one supernode's pools together.
type pools struct {
	version  uint64    // of the newest whole pool of this epoch; 0: none
	records  []*record // the pages it came in
	partials []*partial
}

// add takes a page and returns the members of the pool that it completes. A
// page of a pool that is not newer than the one there is, or that it has
// already, changes nothing; nor does one that contradicts the pages before it.
func (ps *pools) add(u assignment.Update, r *record) (whole *partial, news bool) {
	version, page := u.PoolVersion(), u.Pool
	if version <= ps.version {
		return nil, false
	}
	i, found := slices.BinarySearchFunc(ps.partials, version, func(p *partial, v uint64) int { return cmp.Compare(p.version, v) })
	if !found {
		if page.Pages < 1 || page.Pages > assignment.MaxPool {
			return nil, false
		}
		p := &partial{
			version: version, missing: page.Pages,
			pages: make([]*assignment.PoolPage, page.Pages), records: make([]*record, page.Pages),
		}
		ps.partials = slices.Insert(ps.partials, i, p)
		if len(ps.partials) > maxPartial {
			ps.partials = slices.Delete(ps.partials, 0, 1)
			i--
		}
		if i < 0 {
			return nil, false
		}
	}
	p := ps.partials[i]
	if page.Pages != len(p.pages) || page.Page < 0 || page.Page >= len(p.pages) || p.pages[page.Page] != nil {
		return nil, false
	}
	p.pages[page.Page], p.records[page.Page] = page, r
	p.missing--
	if p.missing > 0 {
		return nil, true
	}
	ps.version = version
	ps.partials = slices.Delete(ps.partials, 0, i+1)
	return p, true
}

// members are those of a whole pool.
func (p *partial) members() []assignment.Member {
	var all []assignment.Member
	for _, page := range p.pages {
		all = append(all, page.Members...)
	}
	return all
}
