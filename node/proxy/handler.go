package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

const (
	// passMemory and passTasks bound the memory of tasks that the swarm does
	// not carry, and passTasks that of those that were changed: how long, and
	// how many; the least recently used is forgotten.
	passMemory = time.Minute
	passTasks  = 4096
	// clientStall is how long a client may take to accept one write.
	clientStall = 2 * time.Minute
)

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Config says what the faces stand on. Opener is required.
type Config struct {
	Opener Opener
	// Filter returns the swarm's, for task names. Default: none.
	Filter func() content.Filter
	// Rules decide what goes where. Default: all through the swarm that a shared
	// cache may answer.
	Rules *Rules
	// DialLocal connects the tunnels of loopback clients, who could go to
	// those places themselves. Default: net.Dialer.
	DialLocal DialFunc
	// DialRemote connects the tunnels of all other clients; it holds the
	// policy against forged targets. Default: they are refused (403).
	DialRemote DialFunc
	// DirectLocal and DirectRemote carry the requests that do not go through
	// the swarm. They must not decompress, follow redirects or use a proxy
	// that leads back here. Default: NewTransport of the Dial beside each.
	DirectLocal, DirectRemote http.RoundTripper
	// Self reports whether "host:port", host in canonical form, is one of the
	// node's own HTTP ports: such requests are refused (508). Default: loops
	// are found by Via alone.
	Self func(hostport string) bool
	// Registries says where registries are that are not at https://NAME, as
	// scheme://host[:port] by the name that clients use. Docker Hub is known.
	Registries map[string]string
	// Intercept says which hosts' TLS is opened. Default: none, all are tunnelled.
	Intercept *Interception
	// Name is the pseudonym in Via, unique to this node. Default: random.
	Name string
	// MaxTunnels bounds the tunnels and upgraded connections open at once;
	// further ones are refused (503). Each takes two sockets and two
	// goroutines. Default: 1024.
	MaxTunnels int
	// TunnelIdle ends a tunnel in which nothing moved for that long, or half
	// as long again. Default: 5 minutes.
	TunnelIdle time.Duration
	// Access says who may ask, and how much.
	Access Access
	// Now is the clock of the memory. Default: time.Now.
	Now func() time.Time
	// Logger gets one Debug line a request. Default: slog.Default.
	Logger *slog.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
}

// Handler serves the faces. It must not sit behind http.ServeMux, which
// rewrites paths. Safe for concurrent use; create it with New.
type Handler struct {
	cfg     Config
	metrics *metrics
	passes  *lru.Cache[passKey, time.Time]
	// denied are credentials that the origin lately refused, and secret keeps what
	// is remembered of them from being of use elsewhere.
	denied *lru.Cache[[sha256.Size]byte, time.Time]
	secret []byte
	mirror *mirror
	// inside takes the intercepted connections to their server.
	inside *openedListener
	// written are the files that clients have changed, and when.
	written *lru.Cache[content.TaskID, time.Time]
	// tunnels holds a token for each open tunnel.
	tunnels  chan struct{}
	gate     *gate
	errorLog *log.Logger
}

// New returns a handler. It starts nothing.
func New(cfg Config) *Handler {
	if cfg.DialLocal == nil {
		cfg.DialLocal = new(net.Dialer).DialContext
	}
	if cfg.DialRemote == nil {
		cfg.DialRemote = func(_ context.Context, network, addr string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: ErrForbidden}
		}
	}
	if cfg.DirectLocal == nil {
		cfg.DirectLocal = NewTransport(cfg.DialLocal)
	}
	if cfg.DirectRemote == nil {
		cfg.DirectRemote = NewTransport(cfg.DialRemote)
	}
	if cfg.Filter == nil {
		cfg.Filter = func() content.Filter { return content.Filter{} }
	}
	if cfg.Self == nil {
		cfg.Self = func(string) bool { return false }
	}
	if cfg.Name == "" {
		cfg.Name = "p2pnode-" + strings.ToLower(rand.Text())
	}
	if cfg.MaxTunnels == 0 {
		cfg.MaxTunnels = 1024
	}
	if cfg.TunnelIdle == 0 {
		cfg.TunnelIdle = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // it never fails
	return &Handler{
		cfg:     cfg,
		metrics: newMetrics(cfg.Registerer),
		mirror:  newMirror(cfg),
		inside:  newOpenedListener(),
		gate:    newGate(cfg.Access, cfg.Now),
		passes:  newTimes[passKey](),
		denied:  newTimes[[sha256.Size]byte](),
		secret:  secret,
		written: newTimes[content.TaskID](),
		tunnels: make(chan struct{}, cfg.MaxTunnels),
		// What net/http has to say is about single requests.
		errorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
}

func newTimes[K comparable]() *lru.Cache[K, time.Time] {
	c, err := lru.New[K, time.Time](passTasks)
	if err != nil {
		panic("proxy: " + err.Error()) // the size is a positive constant
	}
	return c
}

// ServeHTTP answers one request on whichever face it asks for. It panics with
// http.ErrAbortHandler to cut a response short.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := h.begin(w, r)
	defer x.end()
	t, err := target{face: faceConnect}, error(nil)
	if r.Method != http.MethodConnect {
		t, err = parseTarget(r)
	}
	x.face, x.local = t.face, isLocal(r, t.face)
	client, refused := h.gate.admit(r, x.local)
	if refused != nil {
		x.fail(refused)
		return
	}
	x.client = client
	r.Header.Del("Proxy-Authorization")
	if t.face == faceConnect {
		h.connect(x)
		return
	}
	h.admitted(x, t, err)
}

// admitted answers a request, whose target is t unless err says what is wrong
// with it, once its client has a place.
func (h *Handler) admitted(x *exchange, t target, err error) {
	if err == nil {
		err = h.gate.enter(x.r.Context(), x.client)
	}
	if err != nil {
		x.fail(err)
		return
	}
	x.leave = sync.OnceFunc(func() { h.gate.leave(x.client) })
	defer x.leave()
	h.serve(x, t)
}

// serve answers a request that has its place.
func (h *Handler) serve(x *exchange, t target) {
	r := x.r
	if t.face == faceMirror {
		h.registry(x)
		return
	}
	if t.face == faceNone {
		x.help()
		return
	}
	x.host = t.url.Host
	task, err := content.NewTask(t.raw, h.cfg.Filter())
	if err != nil {
		x.fail(err)
		return
	}
	if t.face == faceGateway {
		if crossSite(r) {
			x.fail(errCrossSite)
			return
		}
		x.w.Header().Set("Content-Security-Policy", "sandbox")
	}
	if h.cfg.Self(hostPort(task.URL)) || viaSelf(r, h.cfg.Name) {
		x.fail(ErrLoop)
		return
	}
	h.route(x, t, task)
}

// route answers a request for a file as the rules, and the request itself, say.
func (h *Handler) route(x *exchange, t target, task content.Task) {
	r := x.r
	ask := wantsOf(r.Header, h.cfg.Now())
	credentials := credentialsOf(r)
	through := carried(r) && !ask.noStore && task.Secret == "" && !h.passed(task.ID, len(credentials) > 0) && !h.isDenied(t, credentials)
	x.asked = Asked{Method: r.Method, URL: task.URL, Size: SizeNone}
	if h.cfg.Rules != nil {
		x.asked.Host = HostOf(task.URL)
	}
	if through {
		x.asked.Size = SizeUnknown
	}
	rule, _, decided := h.cfg.Rules.Decide(x.asked)
	if decided && rule.Action == ActionBlock {
		x.fail(errBlocked)
		return
	}
	ask.Lifetime, ask.prefetch = rule.Fresh, rule.Prefetch
	if through && (!decided || rule.Action == ActionP2P) && h.swarm(x, t, task, ask, credentials) {
		return
	}
	if ask.onlyIfCached && safe(r.Method) {
		x.fail(ErrNotHeld)
		return
	}
	if !x.forwards() {
		return
	}
	h.direct(x, t)
	if !safe(r.Method) && x.outcome == outcomeDirect && x.w.status < 400 {
		h.changed(task.ID)
	}
}

// safe reports whether a method changes nothing (RFC 9110 section 9.2.1).
func safe(method string) bool {
	return slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace}, method)
}

// changed notes that a client may have changed a file: what is known of it from
// before is not used any more without asking (RFC 9111 section 4.4).
func (h *Handler) changed(id content.TaskID) {
	h.passes.Remove(passKey{id, false})
	h.passes.Remove(passKey{id, true})
	h.written.Add(id, h.cfg.Now())
}

// passKey names what the opener does not carry: an origin may answer otherwise to
// who has credentials.
type passKey struct {
	task        content.TaskID
	credentials bool
}

// passed reports whether the opener lately said that it does not carry a task.
func (h *Handler) passed(id content.TaskID, credentials bool) bool {
	until, ok := h.passes.Get(passKey{id, credentials})
	return ok && h.cfg.Now().Before(until)
}

// isLocal reports whether the client is on this machine, and not a page of a
// site that gave the node's address out as its own (DNS rebinding): those name
// the site in Host, which on the gateway and the mirror names the node.
func isLocal(r *http.Request, f face) bool {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !addr.Addr().Unmap().IsLoopback() {
		return false
	}
	if f != faceGateway && f != faceMirror {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err = netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}

// crossSite reports whether a browser sent the request for a page of another
// site (Fetch Metadata, W3C).
func crossSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

// viaSelf reports whether the request came through this node before.
func viaSelf(r *http.Request, name string) bool {
	for _, line := range r.Header.Values("Via") {
		for hop := range strings.SplitSeq(line, ",") {
			if f := strings.Fields(hop); len(f) >= 2 && f[1] == name {
				return true
			}
		}
	}
	return false
}
