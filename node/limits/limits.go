// Package limits bounds what peers may ask of a node: how many of their reads
// run at once, and how many of those are one peer's while few places are free,
// how many one peer begins a second, and how many files it has the node look at a
// minute. What is over a bound is answered BUSY before anything is done for it,
// so that an overloaded node spends itself on the reads that it has taken on. It
// also bounds the bytes a second that a node sends and gets over the uplink of its
// site, and those that one peer gets: these wait. The bounds can be changed while
// it runs.
//
// The bytes of one answer, the streams of a peer and its reads at once are
// bounded by protocols/rangeread, memory by the resource manager of node/host.
package limits

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

const (
	// maxPeers bounds the peers that are counted; the one that asked longest
	// ago goes, and begins anew.
	maxPeers = 4096
	// maxTasks bounds the files of a peer that are not counted again.
	maxTasks = 256
	// retryAfter is what a BUSY answer tells the peer to wait.
	retryAfter = 250 * time.Millisecond
	// fairPart is the part of the places that are free which one peer may hold
	// once half of all are taken. Of the 2048 of the default, 16 peers with the 64
	// reads of rangeread each take half; 32 leave 632, 100 leave 91, and it takes
	// more than 170 to leave none.
	fairPart = 32
	// lonePart is the part of all places that a peer leaves free for who comes next
	// while nobody else holds one.
	lonePart = 8
)

// Limits are the bounds. A field that is 0 is none.
type Limits struct {
	// Reads is how many reads of all peers run at once; default 2048. The first
	// half of these places is for whoever asks; of the others a peer gets one only
	// while it holds none, or less than a 32nd of how many are free, so that few
	// with many slow reads do not take all. A peer beside which nobody holds a place,
	// as may be the gateway of a site, leaves an eighth of all free, at least one:
	// were it slow, whoever comes next would else be shut out until a read ends. Of
	// 64 places it gets 56, of 2 it gets 1.
	Reads int `json:"reads"`
	// PeerReads is how many reads a second one peer begins, with as many at
	// once after a pause; default 50,000.
	PeerReads float64 `json:"peer_reads_per_second"`
	// PeerTasks is how many files a minute one peer may name with their URL,
	// which this node may then have to ask an origin for; the same one again
	// counts no more. Default 6000, and as many at once.
	PeerTasks float64 `json:"peer_tasks_per_minute"`
	// Up is how many bytes of files a second are sent to peers beyond this node's
	// site, all together; Down how many come from those and from origins. A node
	// without a site counts all peers. Default none; small reads, of 16 KiB at
	// most, do not wait, but count.
	Up   float64 `json:"up_bytes_per_second"`
	Down float64 `json:"down_bytes_per_second"`
	// PeerUp is how many bytes of files a second one peer is sent. Default none.
	PeerUp float64 `json:"peer_up_bytes_per_second"`
}

// MinBytes is the least bound on bytes a second that is taken: with less a block
// takes longer than a reader waits for it.
const MinBytes = 16 << 10

// Default returns the limits of a node that has just started.
func Default() Limits { return Limits{Reads: 2048, PeerReads: 50_000, PeerTasks: 6000} }

// Validate names the field that cannot be.
func (l Limits) Validate() error {
	for name, v := range map[string]float64{"reads": float64(l.Reads), "peer_reads_per_second": l.PeerReads, "peer_tasks_per_minute": l.PeerTasks} {
		if !(v >= 0 && v <= 1e9) {
			return fmt.Errorf("limit %s is %v: must be from 0 (for none) to 1e9", name, v)
		}
	}
	for name, v := range map[string]float64{"up_bytes_per_second": l.Up, "down_bytes_per_second": l.Down, "peer_up_bytes_per_second": l.PeerUp} {
		if v != 0 && !(v >= MinBytes && v <= 1e15) {
			return fmt.Errorf("limit %s is %v: must be 0 (for none) or from %d to 1e15", name, v, MinBytes)
		}
	}
	return nil
}

// Limiter is a handler of range reads in front of another one. Safe for
// concurrent use.
type Limiter struct {
	next rangeread.Handler
	near func(peer.ID) bool
	// counts is set while there is a bound on bytes: without one no answer takes mu
	// for each of its frames.
	counts atomic.Bool

	mu sync.Mutex
	// mu guards the following.
	limits   Limits
	active   int
	held     map[peer.ID]int // of the active reads, by peer
	peers    *simplelru.LRU[peer.ID, *account]
	up, down *rate.Limiter // of the uplink
}

// account is what one peer has used up.
type account struct {
	reads, tasks *rate.Limiter
	up           *rate.Limiter // of bytes
	seen         *simplelru.LRU[content.TaskID, struct{}]
}

// New returns a limiter with the default limits. near says which peers are at
// this node's site, so that what goes there crosses no uplink; it must not block.
func New(next rangeread.Handler, near func(peer.ID) bool) *Limiter {
	return &Limiter{
		next: next, near: near, limits: Default(), held: make(map[peer.ID]int), peers: newLRU[peer.ID, *account](maxPeers),
		up: newBytes(0), down: newBytes(0),
	}
}

func newLRU[K comparable, V any](size int) *simplelru.LRU[K, V] {
	l, err := simplelru.NewLRU[K, V](size, nil)
	if err != nil {
		panic("limits: " + err.Error()) // the bounds are positive
	}
	return l
}

// Serve implements rangeread.Handler.
func (l *Limiter) Serve(ctx context.Context, from peer.ID, req rangeread.Request, a *rangeread.Answer) error {
	if over := l.enter(from, req); over != "" {
		return &rangeread.Error{Status: rangeread.StatusBusy, RetryAfter: retryAfter, Size: -1, Detail: over}
	}
	defer l.leave(from)
	return l.next.Serve(ctx, from, req, a)
}

// enter counts a read, or says which bound it is over.
func (l *Limiter) enter(from peer.ID, req rangeread.Request) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Reads > 0 {
		free := l.limits.Reads - l.active
		if free <= 0 {
			return "too many reads at once"
		}
		if l.full(l.held[from], free) {
			return "too many reads of this peer at once"
		}
	}
	acc := l.account(from)
	if !acc.reads.Allow() {
		return "too many reads of this peer"
	}
	if req.Origin != nil {
		if _, seen := acc.seen.Get(req.Task); !seen {
			if !acc.tasks.Allow() {
				return "too many files of this peer"
			}
			acc.seen.Add(req.Task, struct{}{})
		}
	}
	l.active++
	l.held[from]++
	return ""
}

// full reports whether a peer that holds so many places has to leave those that
// are free to others. The caller holds mu.
func (l *Limiter) full(held, free int) bool {
	switch held {
	case 0:
		return false
	case l.active: // nobody else holds one
		return free <= max(1, l.limits.Reads/lonePart)
	default:
		return free <= l.limits.Reads/2 && held >= free/fairPart
	}
}

// account returns a peer's. The caller holds mu.
func (l *Limiter) account(of peer.ID) *account {
	acc, ok := l.peers.Get(of)
	if !ok {
		acc = &account{
			reads: bucket(l.limits.PeerReads, l.limits.PeerReads), tasks: bucket(l.limits.PeerTasks/60, l.limits.PeerTasks),
			up: newBytes(l.limits.PeerUp), seen: newLRU[content.TaskID, struct{}](maxTasks),
		}
		l.peers.Add(of, acc)
	}
	return acc
}

func (l *Limiter) leave(from peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	if l.held[from]--; l.held[from] == 0 {
		delete(l.held, from)
	}
}

// bucket returns a token bucket; without a bound where perSecond is 0.
func bucket(perSecond, burst float64) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(math.Max(1, burst)))
}

// Limits returns the limits in force.
func (l *Limiter) Limits() Limits {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limits
}

// Set changes the limits at once: of reads for those to come, of bytes also for
// those that run.
func (l *Limiter) Set(to Limits) error {
	if err := to.Validate(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = to
	l.setBytes()
	l.peers.Purge()
	return nil
}

// Change sets the limits that a JSON object names, leaves the others, and
// returns what is in force then.
func (l *Limiter) Change(text []byte) (any, error) {
	to := l.Limits()
	if err := json.Unmarshal(text, &to); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	if to == l.Limits() {
		return to, nil
	}
	return to, l.Set(to)
}
