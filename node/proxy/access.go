package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

var (
	errLogin  = errors.New("this node wants a user name and a password")
	errTooFew = errors.New("this client asks more often than this node allows")
	// errLoggedIn ends the waiting of those whose credentials were found to be good.
	errLoggedIn = errors.New("another request has logged in")
)

// Access says who may use the faces, and how much at a time. The zero Access
// lets everybody in, with the default limits.
type Access struct {
	// Users checks a name and a password of Proxy-Authorization (Basic, RFC
	// 7617), on all faces. It may be slow, and is called by one goroutine at a time:
	// a yes holds until it was not used for an hour, so that who is once let in must
	// be for as long as the handler lives. Clients of this machine need none.
	// Default: nobody needs one.
	Users func(name, password string) bool
	// MaxRequests bounds the requests that are served at once, tunnels aside;
	// further ones wait, and those that become free go to the client that has
	// the fewest. A place costs about 64 KiB, and 256 KiB while bytes move.
	// Default: 1024.
	MaxRequests int
	// MaxWaiting bounds those that wait; further ones are refused (503). As many
	// more may wait for Users, of one address a sixteenth, at least 1; further ones
	// of it are refused (429). Default: 8192.
	MaxWaiting int
	// Rate, where positive, is how many requests a second one client may begin,
	// and Burst how many at once (default: Rate, at least 1); further ones are
	// refused (429). A client is a user, or an address (an IPv6 /64).
	Rate  float64
	Burst int
}

// Bounds of what is remembered of clients; the least recently seen is forgotten.
const (
	maxClients  = 8192
	loginMemory = time.Hour // from the last use
	// An address may be wrong wrongBurst times, and once more every wrongEvery;
	// until then it is refused unchecked (429).
	wrongEvery = 2 * time.Second
	wrongBurst = 5
)

// gate enforces an Access.
type gate struct {
	Access
	now     func() time.Time
	share   *share
	buckets *lru.Cache[string, *rate.Limiter]
	// logins has the hashes of credentials that were good, and until when.
	logins *lru.Cache[[sha256.Size]byte, time.Time]
	// checks lets one login be checked at a time, since that is slow on purpose, and
	// addresses take turns; wrong has, by address, what is left of the logins that may
	// be wrong, which who has the place in checks alone makes less.
	checks *share
	wrong  *lru.Cache[string, *rate.Limiter]

	mu sync.Mutex
	// mu guards the following.
	// pending are the logins that wait for checks, by the hash of their credentials,
	// each with what ends its waiting.
	pending map[[sha256.Size]byte]map[*pendingLogin]struct{}
}

type pendingLogin struct{ end context.CancelCauseFunc }

func newGate(a Access, now func() time.Time) *gate {
	if a.MaxRequests == 0 {
		a.MaxRequests = 1024
	}
	if a.MaxWaiting == 0 {
		a.MaxWaiting = 8192
	}
	if a.Burst == 0 {
		a.Burst = max(1, int(a.Rate))
	}
	g := &gate{Access: a, now: now, share: newShare(a.MaxRequests, a.MaxWaiting, a.MaxWaiting), checks: newShare(1, a.MaxWaiting, max(1, a.MaxWaiting/16)),
		pending: make(map[[sha256.Size]byte]map[*pendingLogin]struct{})}
	var err1, err2, err3 error
	g.buckets, err1 = lru.New[string, *rate.Limiter](maxClients)
	g.logins, err2 = lru.New[[sha256.Size]byte, time.Time](maxClients)
	g.wrong, err3 = lru.New[string, *rate.Limiter](maxClients)
	if err := errors.Join(err1, err2, err3); err != nil {
		panic("proxy: " + err.Error()) // the size is a positive constant
	}
	return g
}

// admit says who a request is from, or refuses it: errLogin, errTooFew, errBusy, and
// the error of the request's context while it waits.
func (g *gate) admit(r *http.Request, local bool) (client string, err error) {
	client = addressOf(r)
	if g.Users != nil && !local {
		name, password, ok := proxyLogin(r)
		if !ok {
			return client, errLogin
		}
		if err := g.login(r.Context(), client, name, password); err != nil {
			return client, err
		}
		client = "user " + name
	}
	return client, g.allow(client)
}

// allow refuses a client that asks too often: errTooFew.
func (g *gate) allow(client string) error {
	if g.Rate <= 0 {
		return nil
	}
	bucket, ok := g.buckets.Get(client)
	if !ok {
		bucket = rate.NewLimiter(rate.Limit(g.Rate), g.Burst)
		if other, there, _ := g.buckets.PeekOrAdd(client, bucket); there {
			bucket = other
		}
	}
	if !bucket.AllowN(g.now(), 1) {
		return errTooFew
	}
	return nil
}

// enter waits for a place of the client's; leave must follow where it returns
// nil.
func (g *gate) enter(ctx context.Context, client string) error { return g.share.take(ctx, client) }

func (g *gate) leave(client string) { g.share.leave(client) }

// login checks credentials, and remembers that they were good: a password that
// is stored well takes long to check.
func (g *gate) login(ctx context.Context, addr, name, password string) error {
	key := sha256.Sum256([]byte(strconv.Itoa(len(name)) + ":" + name + password))
	if g.loggedIn(key) {
		return nil
	}
	if g.guesses(addr) { // without a place in checks' queue, which is for all
		return errTooFew
	}
	ctx, stop := g.pend(ctx, key)
	defer stop()
	if g.loggedIn(key) { // before pend
		return nil
	}
	if err := g.checks.take(ctx, addr); errors.Is(err, errLoggedIn) {
		return nil
	} else if err != nil {
		return err
	}
	defer g.checks.leave(addr)
	if g.loggedIn(key) { // as the place came
		return nil
	}
	if g.guesses(addr) { // by those that were in front of this one
		return errTooFew
	}
	now := g.now()
	if !g.Users(name, password) {
		wrong, ok := g.wrong.Get(addr)
		if !ok {
			wrong = rate.NewLimiter(rate.Every(wrongEvery), wrongBurst)
		}
		wrong.AllowN(now, 1)
		g.wrong.Add(addr, wrong)
		return errLogin
	}
	g.logins.Add(key, g.now().Add(loginMemory))
	g.letIn(key)
	return nil
}

// pend returns the context in which a login waits, which ends with errLoggedIn once
// another with the same credentials was good: those need no turn any more. stop must
// be called after it.
func (g *gate) pend(ctx context.Context, key [sha256.Size]byte) (waiting context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	p := &pendingLogin{end}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pending[key] == nil {
		g.pending[key] = make(map[*pendingLogin]struct{})
	}
	g.pending[key][p] = struct{}{}
	return ctx, func() {
		end(nil)
		g.mu.Lock()
		defer g.mu.Unlock()
		if delete(g.pending[key], p); len(g.pending[key]) == 0 {
			delete(g.pending, key)
		}
	}
}

// letIn ends the waiting of those who have these credentials.
func (g *gate) letIn(key [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.pending[key] {
		p.end(errLoggedIn)
	}
}

// guesses reports whether an address has been wrong too often.
func (g *gate) guesses(addr string) bool {
	wrong, ok := g.wrong.Get(addr)
	return ok && wrong.TokensAt(g.now()) < 1
}

// loggedIn reports whether credentials are remembered as good, and does so anew.
func (g *gate) loggedIn(key [sha256.Size]byte) bool {
	until, ok := g.logins.Get(key)
	now := g.now()
	if !ok || !now.Before(until) {
		return false
	}
	g.logins.Add(key, now.Add(loginMemory))
	return true
}

// proxyLogin reads Proxy-Authorization.
func proxyLogin(r *http.Request) (name, password string, ok bool) {
	fields := r.Header.Values("Proxy-Authorization")
	if len(fields) != 1 {
		return "", "", false
	}
	as := http.Request{Header: http.Header{"Authorization": fields}}
	return as.BasicAuth()
}

// addressOf returns the address of a client, of IPv6 its network.
func addressOf(r *http.Request) string {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := addr.Addr().Unmap()
	if p, err := ip.Prefix(64); ip.Is6() && err == nil {
		return p.String()
	}
	return ip.String()
}

// stallBody cuts off a client that sends nothing of its body for clientStall.
type stallBody struct {
	rc *http.ResponseController
	io.ReadCloser
}

// Read follows io.Reader.
func (b *stallBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(clientStall)) // not every connection can
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.rc.SetReadDeadline(time.Time{}) // what follows has its own
	}
	return n, err
}
