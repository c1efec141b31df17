package locate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds of Health.
const (
	maxHealthPeers = 4096
	minBackoff     = time.Second
	maxBackoff     = time.Minute
	// A peer that sent wrong bytes, or only made wait, is banned for minBan, twice as long each
	// further time, up to maxBan; forgetWrong after the last ban it starts anew.
	minBan      = 10 * time.Second
	maxBan      = time.Hour
	forgetWrong = 24 * time.Hour
	// probeTime is how long the one try lasts that a peer gets when its breaker
	// closes for a look: more than a reader's patience with a silent source, but
	// for one behind a relay.
	probeTime = 3 * time.Second
	// forgetAfter is when a breaker counts as closed though nobody tried.
	forgetAfter = 10 * time.Minute
	// latencyGain is the share of a new sample in the moving average.
	latencyGain = 0.2
	// baseLatency is added to what was measured, so that differences below it
	// hardly count; slowest is the multiple of it beyond which nothing counts, so
	// that no source loses all its readers and with them the chance to be seen
	// fast again.
	baseLatency = 2 * time.Millisecond
	slowest     = 20
)

// PeerHealth is what a node has seen of one peer as a source.
type PeerHealth struct {
	Peer peer.ID `json:"peer"`
	// FirstByte is the exponentially weighted moving average of the time from
	// a request to the first byte of its answer; 0 where none was measured.
	FirstByte time.Duration `json:"first_byte_ns"`
	// Failures counts those since the last success, without the ones that came
	// while the breaker was open.
	Failures int `json:"failures"`
	// OpenUntil is when the peer is tried again like any other; zero where its
	// breaker has never been open since the last success.
	OpenUntil time.Time `json:"open_until,omitzero"`
	// Wrong counts how often the peer was banned for wrong bytes, or for nothing
	// but WAIT where bytes were due, and BannedUntil says when the last ban ends: no success ends it sooner.
	Wrong       int       `json:"wrong,omitempty"`
	BannedUntil time.Time `json:"banned_until,omitzero"`
	// probing: somebody tries whether the peer is back.
	probing bool
}

// Breaker says whether a peer is asked like any other: "closed"; "banned", it
// sent wrong bytes or nothing but WAIT, and "open", it has failed: it comes behind all others until
// OpenUntil; "probing", somebody tries whether it is back; "half-open", it is
// tried with the next read.
func (ph PeerHealth) Breaker(now time.Time) string {
	switch {
	case ph.Failures == 0:
		return "closed"
	case now.Before(ph.BannedUntil):
		return "banned"
	case ph.probing && now.Before(ph.OpenUntil):
		return "probing"
	case now.Before(ph.OpenUntil):
		return "open"
	default:
		return "half-open"
	}
}

// health remembers how peers did as sources, and has a breaker for each: a
// failure opens it for a second, doubled with each further one up to a minute,
// with jitter; after that time one probe at a time tries the peer again, and a
// success closes it. Wrong bytes open it for longer, whatever succeeds meanwhile.
// It knows the 4,096 peers that were used last and forgets others.
//
// What readers ask, whether a breaker is open, is an immutable map that is
// replaced when one opens or closes: rare, and nearly always empty.
type health struct {
	now     func() time.Time
	random  func() float64
	metrics *mapMetrics

	open atomic.Pointer[map[peer.ID]int64] // until when, Unix ns
	// latency has the moving averages in ns; a new map for each peer that is
	// measured first or forgotten.
	latency atomic.Pointer[map[peer.ID]*atomic.Int64]

	mu    sync.Mutex // guards the following
	peers *simplelru.LRU[peer.ID, *PeerHealth]
}

func newHealth(now func() time.Time, random func() float64, m *mapMetrics) *health {
	h := &health{now: now, random: random, metrics: m}
	h.open.Store(&map[peer.ID]int64{})
	h.latency.Store(&map[peer.ID]*atomic.Int64{})
	peers, err := simplelru.NewLRU(maxHealthPeers, func(p peer.ID, _ *PeerHealth) {
		h.close(p)
		h.measured(p, 0)
	})
	if err != nil {
		panic("locate: " + err.Error()) // the bound is positive
	}
	h.peers = peers
	return h
}

// broken reports whether the breaker of p is open. No lock, no allocation.
func (h *health) broken(p peer.ID, now int64) bool {
	open := *h.open.Load()
	if len(open) == 0 {
		return false
	}
	return now < open[p]
}

func (h *health) success(p peer.ID, firstByte time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ph := h.peer(p)
	if firstByte > 0 {
		if ph.FirstByte == 0 {
			ph.FirstByte = firstByte
		} else {
			ph.FirstByte += time.Duration(latencyGain * float64(firstByte-ph.FirstByte))
		}
	}
	h.measured(p, ph.FirstByte)
	if h.now().Before(ph.BannedUntil) {
		return
	}
	ph.Failures, ph.probing = 0, false
	ph.OpenUntil = time.Time{}
	h.close(p)
}

// measured publishes a moving average, the caller holding mu; 0 forgets it.
func (h *health) measured(p peer.ID, average time.Duration) {
	known := *h.latency.Load()
	if at := known[p]; at != nil && average > 0 {
		at.Store(int64(average))
		return
	} else if at == nil && average == 0 {
		return
	}
	next := maps.Clone(known)
	if average == 0 {
		delete(next, p)
	} else {
		next[p] = new(atomic.Int64)
		next[p].Store(int64(average))
	}
	h.latency.Store(&next)
}

// draw returns a random number by which sources that are equally good are
// ordered, the highest first: each comes first with a probability in proportion
// to its weight (Efraimidis and Spirakis, "Weighted random sampling with a
// reservoir", 2006), which is the inverse of its latency within a factor of 20.
// One that was never measured counts as fast, so that it is measured. No lock,
// no allocation.
func (h *health) draw(p peer.ID) float64 {
	cost := float64(baseLatency)
	if at := (*h.latency.Load())[p]; at != nil {
		cost = min(cost+float64(at.Load()), slowest*cost)
	}
	return math.Log(max(h.random(), math.SmallestNonzeroFloat64)) * cost
}

func (h *health) failure(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ph := h.peer(p)
	now := h.now()
	if now.Before(ph.OpenUntil) && !ph.probing {
		return // one event: requests that were under way when the peer failed
	}
	backoff := min(minBackoff<<min(ph.Failures, 16), maxBackoff)
	backoff = time.Duration(float64(backoff) * (0.8 + 0.4*h.random()))
	ph.Failures++
	ph.probing = false
	h.metrics.breakers.Inc()
	h.openUntil(ph, now.Add(backoff))
}

// wrong bans p; it reports false where p is banned already.
func (h *health) wrong(p peer.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	ph := h.peer(p)
	now := h.now()
	if now.Before(ph.BannedUntil) {
		return false
	}
	if now.Sub(ph.BannedUntil) > forgetWrong {
		ph.Wrong = 0
	}
	ban := min(minBan<<min(ph.Wrong, 16), maxBan)
	ph.BannedUntil = now.Add(time.Duration(float64(ban) * (0.8 + 0.4*h.random())))
	ph.Wrong++
	ph.Failures = max(ph.Failures, 1)
	ph.probing = false
	h.metrics.bans.Inc()
	h.openUntil(ph, ph.BannedUntil)
	return true
}

// openUntil opens the breaker, the caller holding mu.
func (h *health) openUntil(ph *PeerHealth, t time.Time) {
	ph.OpenUntil = t
	open := maps.Clone(*h.open.Load())
	old := h.now().Add(-forgetAfter).UnixNano()
	maps.DeleteFunc(open, func(_ peer.ID, until int64) bool { return until < old })
	open[ph.Peer] = t.UnixNano()
	h.open.Store(&open)
}

// doubtful reports whether p has failed and not succeeded since. No lock, no
// allocation.
func (h *health) doubtful(p peer.ID) bool {
	_, ok := (*h.open.Load())[p]
	return ok
}

// probe reports whether it is time to try a doubtful peer again, and the caller
// is the one to do it. What comes of it is told by success or failure; else
// another may try after probeTime.
func (h *health) probe(p peer.ID) bool {
	if !h.doubtful(p) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ph := h.peer(p)
	now := h.now()
	if ph.Failures == 0 || now.Before(ph.OpenUntil) {
		return false
	}
	ph.probing = true
	h.openUntil(ph, now.Add(probeTime))
	return true
}

// peer returns the record of p, the caller holding mu.
func (h *health) peer(p peer.ID) *PeerHealth {
	ph, ok := h.peers.Get(p)
	if !ok {
		ph = &PeerHealth{Peer: p}
		h.peers.Add(p, ph)
	}
	return ph
}

// close takes p out of the open breakers, the caller holding mu.
func (h *health) close(p peer.ID) {
	if _, ok := (*h.open.Load())[p]; !ok {
		return
	}
	open := maps.Clone(*h.open.Load())
	delete(open, p)
	h.open.Store(&open)
}

// snapshot returns a copy of all records, by peer ID.
func (h *health) snapshot() []PeerHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]PeerHealth, 0, h.peers.Len())
	for _, ph := range h.peers.Values() {
		all = append(all, *ph)
	}
	slices.SortFunc(all, func(a, b PeerHealth) int { return cmp.Compare(a.Peer, b.Peer) })
	return all
}
