package seed

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// Defaults of Config.
const (
	// DefaultUploads is how many bulk answers a node sends at once before it
	// refers further readers to those whom it sends the same stripe to; those of
	// its site, for which it reads, have as many for themselves.
	DefaultUploads = 16
	// DefaultStripeUploads is the same of one stripe.
	DefaultStripeUploads = 3
)

const (
	// bulk is the least length in bytes of a request that may be referred: small
	// ones share the link, and a round trip costs them more.
	bulk = 256 << 10
	// maxGatherings bounds the stripes whose readers are remembered, and
	// maxReceivers those of each; the oldest go.
	maxGatherings = 4096
	maxReceivers  = 64
	// maxReferred bounds the holders that one answer names.
	maxReferred = 3
	// holds is for how long one who got a stripe is thought to have it.
	holds = 2 * time.Minute
	// referredFor is for how long a peer that was referred is not referred again:
	// it comes back because it was not served there.
	referredFor = 10 * time.Second
)

// gatheringKey names one stripe of one generation.
type gatheringKey struct {
	store.Key
	stripe int64
}

// receiver is a peer that a stripe is sent to, or was.
type receiver struct {
	peer    peer.ID
	running int       // answers that run
	until   time.Time // when it counts no more
	given   int       // readers who were sent to it
}

// gathering is the readers of one stripe.
type gathering struct {
	receivers []receiver
	referred  map[peer.ID]time.Time // until when they are served here
}

// uploads counts the bulk answers that run and remembers who gets what. Over a
// bound a further reader of a stripe is referred to those who get it, so that
// each stripe has a short-lived tree of its own and every uplink works, not the
// seeds' alone.
type uploads struct {
	all, stripe int // bounds; 0 for none

	mu sync.Mutex
	// mu guards the following.
	running    map[bool]int // those at this node's site, and others
	gatherings *simplelru.LRU[gatheringKey, *gathering]
}

func newUploads(all, stripe int) *uploads {
	g, err := simplelru.NewLRU[gatheringKey, *gathering](maxGatherings, nil)
	if err != nil {
		panic("seed: " + err.Error()) // the bound is positive
	}
	return &uploads{all: cmp.Or(all, DefaultUploads), stripe: cmp.Or(stripe, DefaultStripeUploads), running: map[bool]int{}, gatherings: g}
}

// upload is one bulk answer.
type upload struct {
	key  gatheringKey
	from peer.ID
	site bool // he reads through this node, which is of his site
	now  time.Time
	// fit says whom the reader may be referred to; waiting whether he would wait
	// there for what has not come yet.
	fit func(p peer.ID, waiting bool) bool
}

// enter counts an upload, or returns those to whom its reader is referred.
func (u *uploads) enter(up upload) (referred []peer.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	g, ok := u.gatherings.Get(up.key)
	if !ok {
		g = &gathering{referred: map[peer.ID]time.Time{}}
		u.gatherings.Add(up.key, g)
	}
	g.receivers = slices.DeleteFunc(g.receivers, func(r receiver) bool { return r.running == 0 && !up.now.Before(r.until) })
	running := 0
	for _, r := range g.receivers {
		if r.running > 0 && r.peer != up.from {
			running++
		}
	}
	if (running >= u.stripe || u.running[up.site] >= u.all) && !up.now.Before(g.referred[up.from]) {
		if referred = g.others(up); len(referred) > 0 {
			if len(g.referred) >= maxReceivers {
				clear(g.referred) // whoever comes back may be referred once more
			}
			g.referred[up.from] = up.now.Add(referredFor)
			return referred
		}
	}
	u.running[up.site]++
	at := g.index(up.from)
	if at < 0 {
		if len(g.receivers) >= maxReceivers {
			g.receivers = slices.Delete(g.receivers, 0, 1)
		}
		at = len(g.receivers)
		g.receivers = append(g.receivers, receiver{peer: up.from})
	}
	g.receivers[at].running++
	return nil
}

// count returns how many uploads run.
func (u *uploads) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.running[false] + u.running[true]
}

// leave says that an upload has ended, and whether its reader got all of it.
func (u *uploads) leave(up upload, now time.Time, whole bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.running[up.site]--
	g, ok := u.gatherings.Peek(up.key)
	if !ok {
		return
	}
	at := g.index(up.from)
	if at < 0 || g.receivers[at].running == 0 {
		return // it was forgotten meanwhile
	}
	g.receivers[at].running--
	switch {
	case whole:
		g.receivers[at].until = now.Add(holds)
	case g.receivers[at].running == 0 && !now.Before(g.receivers[at].until):
		g.receivers = slices.Delete(g.receivers, at, at+1)
	}
}

func (g *gathering) index(p peer.ID) int {
	return slices.IndexFunc(g.receivers, func(r receiver) bool { return r.peer == p })
}

// others returns up to maxReferred receivers that fit, those first to whom the
// fewest readers were sent, and counts the first.
func (g *gathering) others(up upload) (out []peer.ID) {
	var fit []int
	for i, r := range g.receivers {
		if r.peer != up.from && up.fit(r.peer, r.running > 0) {
			fit = append(fit, i)
		}
	}
	slices.SortStableFunc(fit, func(a, b int) int { return cmp.Compare(g.receivers[a].given, g.receivers[b].given) })
	for n, i := range fit[:min(len(fit), maxReferred)] {
		if n == 0 {
			g.receivers[i].given++
		}
		out = append(out, g.receivers[i].peer)
	}
	return out
}

// refer counts a request as an upload until leave is called with what became of
// it, or returns the error that refers its reader elsewhere.
func (m *Manager) refer(f *file, q query, req rangeread.Request) (leave func(error), err error) {
	want := req.Range.Intersect(content.Range{Len: f.meta.Size})
	if m.cfg.Reach == nil || want.Len < bulk || req.Validate || req.Recheck {
		return func(error) {}, nil
	}
	stripe := f.layout.StripeOf(want.Off)
	up := upload{key: gatheringKey{f.key, stripe}, from: q.from, site: q.site, now: m.cfg.Now()}
	up.fit = func(p peer.ID, waiting bool) bool {
		switch {
		case slices.Contains(q.path, p) || slices.Contains(q.skip, p):
			return false
		case waiting && (q.site || !above(f.key.Task, stripe, p, q.from)):
			return false // he may not wait there: see Hold.refusal
		case m.cfg.Far != nil && m.cfg.Far(q.from, p):
			return false
		}
		_, ok := m.cfg.Reach(p)
		return ok
	}
	if referred := m.uploads.enter(up); len(referred) > 0 {
		e := rangeread.NewError(rangeread.StatusRefer, "others are receiving it")
		for _, p := range referred {
			if info, ok := m.cfg.Reach(p); ok {
				e.Holders = append(e.Holders, info)
			}
		}
		m.metrics.referrals.Inc()
		return nil, e
	}
	return func(err error) { m.uploads.leave(up, m.cfg.Now(), err == nil) }, nil
}

// above reports whether a peer's score for a stripe is higher than another's.
func above(task content.TaskID, stripe int64, p, other peer.ID) bool {
	key := content.StripeKey(task, stripe)
	return content.Score(key, content.Member{ID: p, Weight: 1}) > content.Score(key, content.Member{ID: other, Weight: 1})
}
