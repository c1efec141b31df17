package locate

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Bounds of a search for providers.
const (
	maxProviders = 8
	findTimeout  = 3 * time.Second
	// settleTime is how long a search goes on for more after the first
	// provider: the rest of a DHT walk may hang on peers that are gone.
	settleTime    = 100 * time.Millisecond
	positiveTTL   = 30 * time.Second
	negativeTTL   = 10 * time.Second
	maxCachedFind = 4096
)

// Router is what Providers needs of a DHT. FindProvidersAsync closes its
// channel after count results, at the end of the search or of ctx.
type Router interface {
	FindProvidersAsync(ctx context.Context, key cid.Cid, count int) <-chan peer.AddrInfo
	Provide(ctx context.Context, key cid.Cid, announce bool) error
}

// ProvidersConfig says where providers are found.
type ProvidersConfig struct {
	// Router is the DHT; nil disables: nothing is found, nothing announced.
	Router Router
	// Self is left out of what Find returns.
	Self       peer.ID
	Logger     *slog.Logger          // nil: slog.Default()
	Registerer prometheus.Registerer // nil: none
}

// Providers finds the peers that hold a task through the DHT, and announces
// there the tasks that this node holds. It is asked where the seed map has
// nobody alive: with every supernode dead it is how a fresh node reads.
type Providers struct {
	router  Router
	self    peer.ID
	logger  *slog.Logger
	metrics *providerMetrics

	mu      sync.Mutex // guards the following
	cache   *simplelru.LRU[content.TaskID, found]
	flights map[content.TaskID]*search
	due     schedule
	added   map[content.TaskID]*announcement
	wake    chan struct{} // buffered: something in due has changed
}

// found is a cached answer; no peers is one too.
type found struct {
	peers []peer.AddrInfo
	until time.Time
}

// search is one walk of the DHT that any number of callers wait for.
type search struct {
	waiting int // guarded by Providers.mu
	cancel  context.CancelFunc
	done    chan struct{}
	peers   []peer.AddrInfo // valid when done is closed
}

// NewProviders starts nothing. Find works without Run; announcing needs it.
func NewProviders(cfg ProvidersConfig) *Providers {
	cache, err := simplelru.NewLRU[content.TaskID, found](maxCachedFind, nil)
	if err != nil {
		panic("locate: " + err.Error()) // the bound is positive
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Providers{
		router:  cfg.Router,
		self:    cfg.Self,
		logger:  cfg.Logger,
		metrics: newProviderMetrics(cfg.Registerer),
		cache:   cache,
		flights: make(map[content.TaskID]*search),
		added:   make(map[content.TaskID]*announcement),
		wake:    make(chan struct{}, 1),
	}
}

// Find returns up to eight other peers that say they hold the task, or none.
// It blocks for at most three seconds and not beyond ctx. Callers of the same
// task share one search, which ends when the last of them has left; what was
// found is remembered for 30 s, that nothing was found for 10 s. The slice is
// the caller's, the addresses in it are shared and not to be changed.
func (p *Providers) Find(ctx context.Context, task content.TaskID) []peer.AddrInfo {
	if p.router == nil || ctx.Err() != nil {
		return nil
	}
	p.mu.Lock()
	if f, ok := p.cache.Get(task); ok && time.Now().Before(f.until) {
		p.mu.Unlock()
		p.metrics.lookups.WithLabelValues("cached").Inc()
		return slices.Clone(f.peers)
	}
	s, ok := p.flights[task]
	if !ok {
		s = p.start(ctx, task)
	}
	s.waiting++
	p.mu.Unlock()

	select {
	case <-s.done:
	case <-ctx.Done():
	}
	p.mu.Lock()
	s.waiting--
	last := s.waiting == 0
	if last && p.flights[task] == s {
		delete(p.flights, task) // nobody may join a search that is given up
	}
	p.mu.Unlock()
	if last {
		s.cancel()
		<-s.done // soon: it waits for nothing but its context
	}
	if ctx.Err() != nil {
		return nil
	}
	return slices.Clone(s.peers)
}

// start begins a search, the caller holding mu. It goes on without the caller
// as long as others wait for it.
func (p *Providers) start(ctx context.Context, task content.TaskID) *search {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), findTimeout)
	s := &search{cancel: cancel, done: make(chan struct{})}
	p.flights[task] = s
	go func() {
		defer close(s.done)
		s.peers = p.walk(ctx, task)
		outcome, ttl := "found", positiveTTL
		switch {
		case len(s.peers) > 0:
		case errors.Is(context.Cause(ctx), context.Canceled):
			outcome, ttl = "cancelled", 0
		default:
			outcome, ttl = "none", negativeTTL
		}
		cancel()
		p.metrics.lookups.WithLabelValues(outcome).Inc()
		p.mu.Lock()
		defer p.mu.Unlock()
		if ttl > 0 {
			p.cache.Add(task, found{s.peers, time.Now().Add(ttl)})
		}
		if p.flights[task] == s {
			delete(p.flights, task)
		}
	}()
	return s
}

// walk asks the DHT until it has enough providers, until no more come soon
// after the first, or until ctx ends.
func (p *Providers) walk(ctx context.Context, task content.TaskID) []peer.AddrInfo {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := p.router.FindProvidersAsync(ctx, task.CID(), maxProviders+1) // one may be ourselves
	var peers []peer.AddrInfo
	var settled <-chan time.Time
	for {
		select {
		case info, ok := <-results:
			if !ok {
				return peers
			}
			known := func(q peer.AddrInfo) bool { return q.ID == info.ID }
			if info.ID == p.self || slices.ContainsFunc(peers, known) {
				continue
			}
			peers = append(peers, info)
			if len(peers) == maxProviders {
				return peers
			}
			if settled == nil {
				settled = time.After(settleTime)
			}
		case <-settled:
			return peers
		case <-ctx.Done():
			return peers
		}
	}
}

// jittered returns d changed by up to a tenth either way, so that what began
// together does not repeat together.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
