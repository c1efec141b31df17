package origin

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/semaphore"

	"github.com/p2pnode/p2pnode/internal/content"
)

// gates has one gate for each origin: scheme, host and port.
type gates struct {
	limits  Limits
	atOnce  int
	now     func() time.Time
	metrics *metrics

	mu sync.Mutex
	// mu guards the following, but not the gates in it.
	byOrigin *simplelru.LRU[string, *gate]
}

func newGates(limits Limits, atOnce int, now func() time.Time, m *metrics) *gates {
	return &gates{limits: limits, atOnce: atOnce, now: now, metrics: m, byOrigin: newLRU[string, *gate](limits.Origins)}
}

// gate is what all requests to one origin pass: first come, first served.
type gate struct {
	all   *gates
	slots *semaphore.Weighted

	mu sync.Mutex
	// mu guards the following.
	//
	// tokens are the failures that may still happen. Rejected: rate.Limiter of
	// x/time, which takes nothing back for what succeeds, so that a busy origin
	// that fails one request in a hundred would be throttled as a dead one.
	tokens   float64
	filled   time.Time
	failed   error // the last failure
	breaker  breaker
	waits    map[content.TaskID]time.Time // tasks that were told to come again later
	until    time.Time                    // nothing is asked before, because several were
	toldWait error
}

// pass is one request's leave to go to an origin. leave ends it.
type pass struct {
	gate  *gate
	task  content.TaskID
	trial bool // it tries an origin that was out of reach
	ended bool
}

// originOf names the origin of a URL (RFC 6454 section 4).
func originOf(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}

func (g *gates) of(u *url.URL) *gate {
	key := originOf(u)
	g.mu.Lock()
	defer g.mu.Unlock()
	one, ok := g.byOrigin.Get(key)
	if !ok {
		one = &gate{
			all: g, slots: semaphore.NewWeighted(int64(g.atOnce)), tokens: float64(g.limits.OriginFailures),
			waits: make(map[content.TaskID]time.Time),
		}
		g.byOrigin.Add(key, one)
	}
	return one
}

// unreachable counts the origins whose breaker is open.
func (g *gates) unreachable() float64 {
	g.mu.Lock()
	all := g.byOrigin.Values()
	g.mu.Unlock()
	n := 0.0
	for _, one := range all {
		one.mu.Lock()
		if one.breaker.open {
			n++
		}
		one.mu.Unlock()
	}
	return n
}

// enter waits for one of the origin's slots, or returns a *BudgetError at once
// where the origin is not to be asked.
func (g *gate) enter(ctx context.Context, task content.TaskID) (*pass, error) {
	if err := g.refused(); err != nil {
		return nil, g.counted(err)
	}
	m := g.all.metrics
	if !g.slots.TryAcquire(1) {
		m.queued.Inc()
		err := g.slots.Acquire(ctx, 1)
		m.queued.Dec()
		if err != nil {
			return nil, fmt.Errorf("wait until %d other requests to the origin leave a place: %w", g.all.atOnce, context.Cause(ctx))
		}
	}
	p := &pass{gate: g, task: task}
	if err := g.take(p); err != nil { // what has come to be known while waiting
		g.slots.Release(1)
		return nil, g.counted(err)
	}
	m.inFlight.Inc()
	return p, nil
}

func (g *gate) counted(err *BudgetError) error {
	g.all.metrics.refused.WithLabelValues(string(err.Reason)).Inc()
	return err
}

// refused says why the origin is not to be asked now, nil if it may be.
func (g *gate) refused() *BudgetError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusal(g.all.now())
}

// take gives p leave to ask, or says why not.
func (g *gate) take(p *pass) *BudgetError {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refusal(g.all.now()); err != nil {
		return err
	}
	p.trial = g.breaker.open
	g.breaker.trying = p.trial
	return nil
}

// refusal is refused under mu.
func (g *gate) refusal(now time.Time) *BudgetError {
	if now.Before(g.until) {
		return &BudgetError{Reason: ReasonRetryAfter, RetryAfter: g.until.Sub(now), Last: g.toldWait}
	}
	if wait := g.breaker.wait(now); wait > 0 {
		return &BudgetError{Reason: ReasonUnreachable, RetryAfter: wait, Last: g.breaker.last}
	}
	if g.refill(now); g.tokens < 1 && g.failed != nil {
		wait := time.Duration((1 - g.tokens) / g.perSecond() * float64(time.Second))
		return &BudgetError{Reason: ReasonOrigin, RetryAfter: wait + 1, Last: g.failed}
	}
	return nil
}

func (g *gate) perSecond() float64 {
	return float64(g.all.limits.OriginFailures) / g.all.limits.Period.Seconds()
}

// refill brings tokens up to date; mu is held.
func (g *gate) refill(now time.Time) {
	full := float64(g.all.limits.OriginFailures)
	if !g.filled.IsZero() {
		g.tokens = min(full, g.tokens+now.Sub(g.filled).Seconds()*g.perSecond())
	}
	g.filled = now
}

// connected says that the origin is within reach.
func (p *pass) connected() {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.breaker = breaker{}
	p.trial = false
}

// leave ends the pass with what came of the request: nil if all is well. It may
// be called more than once.
func (p *pass) leave(err error) {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	g.slots.Release(1)
	g.all.metrics.inFlight.Dec()
	if p.trial {
		g.breaker.trying = false
	}
	now := g.all.now()
	g.refill(now)
	switch blameOf(err) {
	case blameConnection:
		if g.breaker.failed(now, g.all.limits, err) {
			g.all.metrics.broken.Inc()
		}
	case blameBlock:
		g.failed = err
		g.tokens = max(0, g.tokens-1)
		g.hold(now, p.task, err)
	case blameNobody:
		if err == nil {
			g.tokens = min(float64(g.all.limits.OriginFailures), g.tokens+goodFor)
		}
	}
}

// hold leaves the origin alone when several of its tasks were told to come
// again later, until the first of them may; mu is held.
func (g *gate) hold(now time.Time, task content.TaskID, err error) {
	d := asksToWait(err)
	if d <= 0 {
		return
	}
	for id, until := range g.waits {
		if !now.Before(until) {
			delete(g.waits, id)
		}
	}
	if _, known := g.waits[task]; len(g.waits) < severalTasks || known {
		g.waits[task] = now.Add(g.all.limits.hold(d))
	}
	if len(g.waits) < severalTasks {
		return
	}
	g.until, g.toldWait = slices.MinFunc(slices.Collect(maps.Values(g.waits)), time.Time.Compare), err
}
