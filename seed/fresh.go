package seed

import (
	"context"
	"errors"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/store"
)

const (
	// minFresh is how long content counts as current after it was validated
	// where the origin does not say for how long it is, and how long the origin
	// is left alone after it could not be reached.
	minFresh = time.Minute
	// staleWait is how long a reader waits for a validation before it is served
	// what is held (RFC 9111 section 4.2.4 allows it unless must-revalidate): longer
	// than it takes to find that a peer beyond this machine's links is silent.
	staleWait = 3 * time.Second
)

// Demand is how current an answer must be for one reader, besides what the
// origin says (RFC 9111 section 5.2.1). The zero Demand asks for nothing more.
// Where the origin cannot be reached what is held is served all the same.
type Demand struct {
	// Since, where not zero: the origin must have been asked after that time.
	Since time.Time
	// MaxAge, where positive, is the greatest age.
	MaxAge time.Duration
	// MinFresh, where positive, is how much longer it must stay current.
	MinFresh time.Duration
	// MaxStale, where positive, is for how long it may be stale already.
	MaxStale time.Duration
	// Lifetime, where positive, is how long content counts as current after it
	// was validated, whatever the origin says.
	Lifetime time.Duration
}

// terms are what an origin says of how its answer may be used again.
type terms struct {
	freshness
	cacheControl string
	fields       content.Fields
}

func newTerms(cacheControl, digest string, fields content.Fields) *terms {
	return &terms{newFreshness(cacheControl, digest, fields), cacheControl, fields}
}

// freshenLocked takes over what a source says of a file that is known (RFC 9111
// section 3.2), unless it is older; m.mu is held.
func (f *file) freshenLocked(found Found, now time.Time) {
	validated := now.Add(-found.Age)
	if !validated.After(f.validated) {
		return
	}
	f.validated, f.quiet = validated, time.Time{}
	if found.CacheControl == "" && found.Fields == "" {
		return // an import, which knows nothing of them
	}
	if old := f.terms.Load(); old.cacheControl != found.CacheControl || old.fields != found.Fields {
		f.terms.Store(newTerms(found.CacheControl, f.task.Digest, found.Fields))
	}
}

// current reports whether the file may be served without asking.
func (m *Manager) current(f *file, q *query) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.currentLocked(f, q)
}

func (m *Manager) currentLocked(f *file, q *query) bool {
	now, t := m.cfg.Now(), f.terms.Load()
	lifetime := t.lifetime
	if q.demand.Lifetime > 0 {
		lifetime = q.demand.Lifetime
	} else if !t.mustRevalidate {
		lifetime += min(q.demand.MaxStale, forever)
	}
	fresh := now.Sub(f.validated) < lifetime || now.Before(f.quiet)
	q.validate = !m.meetsLocked(f, q)
	return fresh && !q.validate
}

// meets reports whether the file is what its reader demands, and notes in q
// whether its source must ask anew.
func (m *Manager) meets(f *file, q *query) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	q.validate = !m.meetsLocked(f, q)
	return !q.validate
}

func (m *Manager) meetsLocked(f *file, q *query) bool {
	d := q.demand
	if !d.Since.IsZero() {
		return !f.asked.Before(d.Since)
	}
	age := m.cfg.Now().Sub(f.validated)
	enough := (d.MaxAge <= 0 || age <= d.MaxAge) && (d.MinFresh <= 0 || f.terms.Load().lifetime-age >= d.MinFresh)
	return enough || !f.asked.Before(q.began)
}

// revalidate asks what the task's file is now: the head asks the origin, others
// ask the head, once for all who wait here. It returns the file to serve: a new
// generation, or the one that is held, also where nobody could say.
func (m *Manager) revalidate(ctx context.Context, q *query, held *file) (f *file, release func(), err error) {
	release = func() {}
	limited := ctx
	if m.staleAllowed(held) {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, staleWait)
		defer cancel()
	}
	q.known, q.knownSize = held.meta.Generation, held.meta.Size
	f, release, err = m.find(limited, q, content.Range{})
	if err == nil {
		return f, release, nil
	}
	if unsized := (*unsizedError)(nil); errors.As(err, &unsized) { // of the one that is held the size would do
		m.outdate(held)
		return nil, nil, err
	}
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if errors.Is(err, ErrPrivate) && !errors.Is(err, ErrUnavailable) { // he who asks has to show what he may read now
		if held.task.Digest == "" && !held.private.Load() {
			m.closeUp(q.task, held.key)
		}
		return nil, nil, err
	}
	var origin *OriginError
	gone := errors.As(err, &origin) && origin.Status >= 300 && origin.Status < 500 && origin.Status != 429
	if gone || errors.Is(err, ErrNotSupported) || errors.Is(err, ErrClosed) || !m.mayBeStale(held) {
		return nil, nil, err
	}
	m.log.Debug("cannot validate, serving what is held", "task", q.task.ID, "err", err)
	return held, func() {}, nil
}

// mayBeStale reports whether a file may be served now that nobody can say
// whether it is current, and if so leaves the origin alone for a while.
func (m *Manager) mayBeStale(f *file) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.staleAllowedLocked(f) {
		return false
	}
	f.quiet = m.cfg.Now().Add(minFresh)
	return true
}

// staleAllowed reports whether a file may be served now though nobody says whether
// it is current.
func (m *Manager) staleAllowed(f *file) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.staleAllowedLocked(f)
}

func (m *Manager) staleAllowedLocked(f *file) bool {
	t, age := f.terms.Load(), m.cfg.Now().Sub(f.validated)
	return !(t.mustRevalidate && age >= t.lifetime || t.staleIfError >= 0 && age >= t.lifetime+t.staleIfError)
}

// outdate says that the origin has another generation now: the file is no
// answer any more to a request for whatever is current. Who reads it goes on.
func (m *Manager) outdate(f *file) {
	m.mu.Lock()
	f.stale = true
	m.mu.Unlock()
	m.retire(f.disk)
}

// retire says that a file is not what the origin has now: its blocks go first,
// its pins end, and it is not offered any more.
func (m *Manager) retire(disk store.File) {
	disk.Outdate(true)
	if n := disk.Pinned(); n > 0 {
		key := disk.Key()
		m.log.Info("a pinned file has changed at its origin: pin it anew", "url", disk.Info().URL, "pinned_bytes", n)
		if err := disk.Unpin(content.Range{Len: disk.Info().Size}); err != nil {
			m.log.Warn("cannot end the pins of an old file", "task", key.Task, "generation", key.Generation, "err", err)
		}
	}
	m.changed(disk.Key().Task)
}
