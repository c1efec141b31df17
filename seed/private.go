package seed

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/singleflight"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
	"github.com/p2pnode/p2pnode/seed/store"
)

// A private file is one that its origin gives only to who has credentials. It is
// served, here and by peers, against a permit: the word of a seed, not long ago,
// that the origin gave it to who has these credentials. Credentials are in
// memory for as long as the request that brought them, and in the keys of what is
// remembered as a keyed hash, which is of no use elsewhere.

const (
	// DefaultGrantLife is the default of Config.GrantLife.
	DefaultGrantLife = 5 * time.Minute
	// MaxGrantLife is the longest for which a peer's grant is believed.
	MaxGrantLife = time.Hour
	// grantSkew is how far the clocks of the seed that granted and of who serves
	// may differ, for a grant of the longest life.
	grantSkew = time.Minute
	// askFor bounds one question whether credentials are good.
	askFor = time.Minute
	// maxPermits bounds each memory of permits, verdicts and grants; the least
	// recently used is forgotten, and asked for anew.
	maxPermits = 16384
)

// ErrPrivate: the file is served to those alone whom the origin gave it, and this
// requester has not shown that he is one: the origin's answer is his. With
// ErrUnavailable it is the word of a peer that is no seed, and no seed could be
// asked: nothing follows from it for what is held.
var ErrPrivate = errors.New("the origin gives this file only to who has credentials")

// Verdict is what an origin, asked with somebody's credentials, says of a file.
type Verdict struct {
	Generation content.Generation
	// Private: it is not given to who has none. Unsure: the origin failed to say,
	// and what it has given to anybody before is not private for that.
	Private, Unsure bool
	// Grant is the seed's that asked, for this node; nil where this node asked.
	Grant []byte
}

// Authorizer finds out to whom origins give their files.
type Authorizer interface {
	// AskOrigin asks the origin with the credentials in o, and without. Errors:
	// *OriginError, where it gives nothing, ErrNotSupported, and the context's.
	AskOrigin(ctx context.Context, task content.Task, o rangeread.Origin) (Verdict, error)
	// AskSeed asks a seed that does so. self reports that this node is the one
	// that is to ask the origin, or that no seed can be reached and it may.
	AskSeed(ctx context.Context, task content.Task, o rangeread.Origin) (v Verdict, self bool, err error)
}

// permit is leave to read a private file.
type permit struct {
	generation content.Generation
	upstream   string
	expires    time.Time
	grant      []byte // for this node to show to peers; nil where it has to sign one
}

// permitKey names the files and the credentials that a permit is good for.
type permitKey struct {
	task content.TaskID
	who  [sha256.Size]byte
}

// private is what a manager knows of private files. All is safe for concurrent
// use.
type private struct {
	secret []byte
	asking singleflight.Group
	// permits are those of this node's clients, verdicts what the origin said when
	// this node asked it, grants those of peers whose signature was good.
	permits  *lru.Cache[permitKey, *permit]
	verdicts *lru.Cache[permitKey, verdict]
	grants   *lru.Cache[string, content.Grant]
}

type verdict struct {
	Verdict
	asked time.Time
}

func newPrivate() *private {
	p := &private{secret: make([]byte, 32)}
	_, _ = rand.Read(p.secret) // it never fails
	var err1, err2, err3 error
	p.permits, err1 = lru.New[permitKey, *permit](maxPermits)
	p.verdicts, err2 = lru.New[permitKey, verdict](maxPermits)
	p.grants, err3 = lru.New[string, content.Grant](maxPermits)
	if err := errors.Join(err1, err2, err3); err != nil {
		panic("seed: " + err.Error()) // the size is a positive constant
	}
	return p
}

// credentialed reports whether a request to an origin has credentials.
func credentialed(o rangeread.Origin) bool {
	_, signed := content.SplitSignature(o.URL)
	return signed || len(o.Header) > 0
}

// bare returns o without credentials.
func bare(o rangeread.Origin) rangeread.Origin {
	o.URL, _ = content.SplitSignature(o.URL)
	o.Header = nil
	return o
}

// strip makes q one without credentials.
func (q *query) strip() { q.origin, q.permit, q.who = bare(q.origin), nil, permitKey{} }

// key names the credentials of q.
func (p *private) key(q *query) permitKey {
	mac := hmac.New(sha256.New, p.secret)
	text := func(s string) {
		mac.Write(binary.AppendUvarint(nil, uint64(len(s))))
		mac.Write([]byte(s))
	}
	text(q.origin.URL)
	for _, f := range q.origin.Header {
		text(f.Name)
		text(f.Value)
	}
	k := permitKey{task: q.task.ID}
	mac.Sum(k.who[:0])
	return k
}

// reads reports whether a query may read a file.
func (m *Manager) reads(f *file, q *query) bool {
	if !f.private.Load() {
		return true
	}
	p := q.permit
	return p != nil && p.generation == f.key.Generation && m.cfg.Now().Before(p.expires) &&
		(f.task.Digest == "" || p.upstream == upstream(f.disk.Info().URL))
}

// mayBePublic reports whether the origin is to be asked if a file that is held as
// private is given to anybody where q says: one that is named by its digest may
// be, in another repository.
func (m *Manager) mayBePublic(f *file, q *query) bool {
	return f.private.Load() && q.permit == nil && !q.noFill && q.task.Digest != "" && upstream(q.task.URL) == upstream(f.disk.Info().URL)
}

// permitted returns what a peer's grant lets him read, nil for nothing.
func (m *Manager) permitted(from peer.ID, req rangeread.Request) *permit {
	if len(req.Grant) == 0 || m.cfg.MayGrant == nil {
		return nil
	}
	g, known := m.private.grants.Get(string(req.Grant))
	if !known {
		var err error
		if g, err = content.ParseGrant(req.Grant); err == nil {
			err = g.Verify()
		}
		if err != nil {
			m.metrics.badGrants.Inc()
			return nil
		}
		m.private.grants.Add(string(req.Grant), g)
	}
	now, expires := m.cfg.Now(), time.Unix(g.Expires, 0)
	if g.Peer != from || g.Task != req.Task || !now.Before(expires) || expires.After(now.Add(MaxGrantLife+grantSkew)) || !m.cfg.MayGrant(g.Issuer) {
		m.metrics.badGrants.Inc()
		return nil
	}
	return &permit{generation: g.Generation, upstream: g.Upstream, expires: time.Unix(g.Expires, 0)}
}

// grantTo signs a grant.
func (m *Manager) grantTo(to peer.ID, task content.TaskID, p *permit) ([]byte, error) {
	return content.SignGrant(m.cfg.Key, m.cfg.Self, content.Grant{
		Task: task, Generation: p.generation, Upstream: p.upstream, Peer: to, Expires: p.expires.Unix(),
	})
}

// renewAt is the part of a grant's life, one in so many, at whose end it is
// renewed.
const renewAt = 5

// authorize makes a query of a client of this node with credentials one that may
// read: with a permit, or, where the origin gives the file to anybody, without
// credentials. again asks also where there is a permit.
func (m *Manager) authorize(ctx context.Context, q *query, again bool) error {
	key := m.private.key(q)
	q.who = key
	last, known := m.private.permits.Get(key)
	left := time.Duration(0)
	if known {
		left = last.expires.Sub(m.cfg.Now())
	}
	switch {
	case !again && left > m.cfg.GrantLife/renewAt, q.noFill && left > 0:
		q.permit = last
		return nil
	case q.noFill:
		return ErrNotFound
	}
	got, err := m.once(ctx, "permit", key, func(ctx context.Context) (any, error) { return m.newPermit(ctx, *q) })
	var refused *OriginError
	switch {
	case err == nil && got.(*permit) == nil:
		q.strip()
		return nil
	case err == nil:
		m.private.permits.Add(key, got.(*permit))
		q.permit = got.(*permit)
		return nil
	case errors.As(err, &refused) && !passes(err), errors.Is(err, ErrNotSupported):
		m.private.permits.Remove(key) // whatever it was worth, it is not now
		return err
	case !again && left > 0: // nobody can say just now
		q.permit = last
		return nil
	default:
		return err
	}
}

// renew gets a client who reads for long another permit, before the one it has
// ends: peers serve no more than that. Where it cannot be had the reading ends
// when a peer is asked.
func (m *Manager) renew(ctx context.Context, q *query) {
	if q.permit == nil || q.from != "" || q.noFill {
		return
	}
	if err := m.authorize(ctx, q, false); err != nil {
		m.log.Debug("cannot renew a permit", "task", q.task.ID, "err", err)
	}
}

// once runs f once for all who ask the same at a time; the first of them may
// leave.
func (m *Manager) once(ctx context.Context, what string, key permitKey, f func(ctx context.Context) (any, error)) (any, error) {
	name := what + string(key.task[:]) + string(key.who[:])
	result := m.private.asking.DoChan(name, func() (any, error) {
		ctx, leave, err := m.enter(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		defer leave()
		ctx, cancel := context.WithTimeout(ctx, askFor)
		defer cancel()
		return f(ctx)
	})
	select {
	case r := <-result:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// newPermit asks a seed, or the origin; nil where the file is public.
func (m *Manager) newPermit(ctx context.Context, q query) (*permit, error) {
	v, self, err := m.cfg.Authorizer.AskSeed(ctx, q.task, q.origin)
	if err != nil {
		return nil, err
	}
	if self {
		p, _, err := m.judge(ctx, q)
		return p, err
	}
	m.learn(&q, v)
	if !v.Private {
		return nil, nil
	}
	g, err := content.ParseGrant(v.Grant)
	if err != nil || g.Peer != m.cfg.Self || g.Task != q.task.ID || g.Generation != v.Generation {
		return nil, fmt.Errorf("%w: a seed's grant is for another purpose", ErrUnavailable)
	}
	return &permit{generation: g.Generation, upstream: g.Upstream, expires: time.Unix(g.Expires, 0), grant: v.Grant}, nil
}

// judge returns what the origin gives to who has a query's credentials, asked not
// long ago: a permit, or nil where it gives the file to anybody.
func (m *Manager) judge(ctx context.Context, q query) (*permit, content.Generation, error) {
	if held := m.held(q.task, content.Generation{}); q.task.Digest != "" && held != nil && !held.private.Load() && m.admits(held, &q) {
		return nil, held.key.Generation, nil // what has been public once, and is named by its digest, is no secret
	}
	key := m.private.key(&q)
	v, ok := m.private.verdicts.Get(key)
	if !ok || m.cfg.Now().Sub(v.asked) > m.cfg.GrantLife/2 {
		got, err := m.once(ctx, "verdict", key, func(ctx context.Context) (any, error) {
			asked := m.cfg.Now()
			v, err := m.cfg.Authorizer.AskOrigin(ctx, q.task, q.origin)
			return verdict{v, asked}, err
		})
		if err != nil && passes(err) {
			return m.unasked(&q, v, err)
		}
		if err != nil {
			m.private.verdicts.Remove(key)
			return nil, content.Generation{}, err
		}
		v = got.(verdict)
		m.private.verdicts.Add(key, v)
		m.metrics.verdicts.Inc()
		m.learn(&q, v.Verdict)
	}
	if !v.Private || v.Unsure && m.wasPublic(q.task, v.Generation) {
		return nil, v.Generation, nil
	}
	return &permit{
		generation: v.Generation, upstream: upstream(q.task.URL),
		expires: v.asked.Add(m.cfg.GrantLife).Truncate(time.Second),
	}, v.Generation, nil
}

// unasked is judge where the origin cannot say: last is what it said before, if
// anything. What is held as public is, and of the rest Config.Grace decides; else
// the error is err.
func (m *Manager) unasked(q *query, last verdict, err error) (*permit, content.Generation, error) {
	held := m.held(q.task, content.Generation{})
	if held != nil && q.task.Digest != "" && upstream(held.disk.Info().URL) != upstream(q.task.URL) {
		held = nil
	}
	if held != nil && !held.private.Load() {
		return nil, held.key.Generation, nil
	}
	if m.cfg.Grace == nil {
		return nil, content.Generation{}, err
	}
	now := m.cfg.Now()
	until, gen := now.Add(m.cfg.GrantLife), last.Generation
	switch after, open := m.cfg.Grace(q.task); {
	case last.Private && !last.Unsure && now.Sub(last.asked) < after:
		if end := last.asked.Add(after); end.Before(until) {
			until = end
		}
	case open && held != nil:
		gen = held.key.Generation
	default:
		return nil, content.Generation{}, err
	}
	m.log.Debug("granting a private file without its origin's word", "task", q.task.ID, "err", err)
	return &permit{generation: gen, upstream: upstream(q.task.URL), expires: until.Truncate(time.Second)}, gen, nil
}

// wasPublic reports whether a generation is held as what the origin has given to
// anybody.
func (m *Manager) wasPublic(task content.Task, gen content.Generation) bool {
	held := m.held(task, content.Generation{})
	return task.Digest == "" && held != nil && held.key.Generation == gen && !held.private.Load()
}

// learn takes what the origin said a moment ago for what is held: it is of
// another generation, or has become private, or public.
func (m *Manager) learn(q *query, v Verdict) {
	held := m.held(q.task, content.Generation{})
	switch {
	case held == nil || held.task.Digest != "" && upstream(held.disk.Info().URL) != upstream(q.task.URL):
	case held.key.Generation != v.Generation:
		m.outdate(held)
	case v.Unsure && !held.private.Load():
	case v.Private && !held.private.Load() && held.task.Digest != "":
	case v.Private && !held.private.Load():
		m.closeUp(q.task, held.key)
	default:
		held.private.Store(v.Private)
	}
}

// closeUp drops what is held of a file as public that has become private: who
// held it so may have given it on.
func (m *Manager) closeUp(task content.Task, key store.Key) {
	disk, err := m.cfg.Store.Open(key)
	if err != nil {
		return
	}
	m.mu.Lock()
	f := m.addLocked(task, disk)
	m.mu.Unlock()
	if f.private.Load() {
		return
	}
	m.metrics.madePrivate.Inc()
	if err := m.discard(f); err != nil {
		m.log.Debug("cannot drop a file that has become private", "task", task.ID, "err", err)
	}
}

// vouch answers a peer who wants to know whether his credentials are good.
func (m *Manager) vouch(ctx context.Context, q query, a *rangeread.Answer) error {
	if !m.cfg.Seed || m.cfg.Authorizer == nil {
		return rangeread.NewError(rangeread.StatusNotFound, "no seed")
	}
	if !credentialed(q.origin) {
		return rangeread.NewError(rangeread.StatusBadRequest, "no credentials")
	}
	if q.task.Secret != "" {
		return wireError(secretError(q.task))
	}
	var p *permit
	var h rangeread.Header
	var err error
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(done)
		p, h.Generation, err = m.judge(ctx, q)
	}()
	if err := a.Wait(ctx, rangeread.WaitOrigin, done); err != nil {
		cancel()
		<-done
		return err
	}
	if err != nil {
		return wireError(err)
	}
	if h.Private = p != nil; h.Private {
		if h.Grant, err = m.grantTo(q.from, q.task.ID, p); err != nil {
			return err
		}
		m.metrics.granted.Inc()
	}
	_, err = a.Header(h)
	return err
}

// secretError is the refusal of a task whose name would tell a secret.
func secretError(task content.Task) error {
	return fmt.Errorf("%w: its URL has a parameter %q, which seems to be a secret", ErrNotSupported, task.Secret)
}

// Grant returns the job's grant for peers; nil where it needs none.
func (j *Job) Grant() []byte { return j.m.shown(j.Task.ID, j.permit) }

// shown returns the grant to show to peers for a permit; nil where there is none.
func (m *Manager) shown(task content.TaskID, p *permit) []byte {
	if p == nil || p.grant != nil || !m.cfg.Seed { // who is no seed is not believed
		return p.ofSeed()
	}
	g, err := m.grantTo(m.cfg.Self, task, p)
	if err != nil {
		m.log.Warn("cannot sign a grant", "task", task, "err", err)
		return nil
	}
	return g
}

// ofSeed is the grant that a seed gave; nil where none did.
func (p *permit) ofSeed() []byte {
	if p == nil {
		return nil
	}
	return p.grant
}

// Private reports whether the file is read with leave of its origin.
func (f *File) Private() bool { return f.q.permit != nil }

// Leave returns what a seed has to be shown that is to bring in blocks of the file
// for this reader: where its origin is, with the credentials and a grant where it
// is private. So it is for peers that Config.MayGrant believes alone. A grant that
// ends soon is renewed.
func (f *File) Leave(ctx context.Context) (o rangeread.Origin, grant []byte) {
	q := f.q
	f.f.m.renew(ctx, &q)
	return q.origin, f.f.m.shown(q.task.ID, q.permit)
}

// Private reports whether the job reads for one who has credentials, which
// Origin then holds: they are for the origin, and for peers that are seeds.
func (j *Job) Private() bool { return j.permit != nil }

// refusedFor reports whether a job's failure is an answer to its credentials
// alone, and those of q are others.
func (j *Job) refusedFor(q *query, err error) bool {
	var origin *OriginError
	if !errors.As(err, &origin) && !errors.Is(err, ErrPrivate) || j.who == q.who {
		return false
	}
	return origin == nil || origin.Status == 401 || origin.Status == 403 || origin.Status == 404 || origin.Status == 407
}
