package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/origin/registry"
)

const (
	// maxTags bounds the tags whose last digest is remembered, and
	// maxRepositories the repositories that are known to be private; the least
	// recently used is forgotten.
	maxTags         = 8192
	maxRepositories = 4096
	// dockerHub is the registry of names without one.
	dockerHub = "docker.io"
)

var errNoRegistryPath = errors.New("no path of the OCI distribution specification")

// mirror is what the registry mirror remembers.
type mirror struct {
	// upstreams are the registries that are elsewhere than https://NAME.
	upstreams map[string]string
	tokens    *registry.Tokens
	// private are the repositories that refused anonymous clients, and until
	// when they are not tried again.
	private *lru.Cache[string, time.Time]
	// tags are the last digests of tags that anonymous clients may see.
	tags *lru.Cache[string, string]
}

func newMirror(cfg Config) *mirror {
	m := &mirror{upstreams: map[string]string{dockerHub: "https://registry-1.docker.io"}, tokens: registry.NewTokens(cfg.Now)}
	for name, base := range cfg.Registries {
		m.upstreams[name] = base
	}
	var err1, err2 error
	m.private, err1 = lru.New[string, time.Time](maxRepositories)
	m.tags, err2 = lru.New[string, string](maxTags)
	if err := errors.Join(err1, err2); err != nil {
		panic("proxy: " + err.Error()) // the sizes are positive constants
	}
	return m
}

// isRegistryPath reports whether a request is for the mirror.
func isRegistryPath(r *http.Request) bool {
	return strings.HasPrefix(r.RequestURI, "/v2/") || r.RequestURI == "/v2" || strings.HasPrefix(r.RequestURI, "/v2?")
}

// pull is a request to a registry.
type pull struct {
	registry.Path
	// registry is the name that the client gave, "" for a Base without one.
	registry string
	// base is the registry's scheme, host and port.
	base string
	// query is the client's but for ns.
	query string
}

// repository names what a client may be allowed to see.
func (p pull) repository() string { return p.base + "/" + p.Name }

// target returns the request to the registry, with another reference where ref
// is given.
func (p pull) target(ref string) (target, error) {
	path := "/v2/"
	switch p.Kind {
	case registry.Manifest:
		path += p.Name + "/manifests/" + ref
	case registry.Blob:
		path += p.Name + "/blobs/" + ref
	case registry.Other:
		path += p.Name + "/" + ref
	}
	raw := p.base + (&url.URL{Path: path}).EscapedPath()
	if p.query != "" {
		raw += "?" + p.query
	}
	return newTarget(faceMirror, raw)
}

// parse reads a request to the mirror. Which registry it is for says the
// parameter ns (containerd), else the first part of the repository's name where
// that is a host name or a name of Config.Registries (Podman, CRI-O), else it is
// Docker Hub, the only one that the Docker daemon mirrors.
func (m *mirror) parse(r *http.Request) (pull, error) {
	p := pull{registry: r.URL.Query().Get("ns"), query: withoutNS(r.URL.RawQuery)}
	var ok bool
	if p.Path, ok = registry.ParsePath(r.URL.Path); !ok {
		return p, fmt.Errorf("%w: %q", errNoRegistryPath, r.URL.Path)
	}
	if p.registry == "" {
		if p.Kind == registry.Base {
			return p, nil
		}
		p.registry = dockerHub
		if first, rest, ok := strings.Cut(p.Name, "/"); ok && m.isRegistry(first) {
			p.registry, p.Name = first, rest
		}
	}
	if p.registry == dockerHub && p.Kind != registry.Base && !strings.Contains(p.Name, "/") {
		p.Name = "library/" + p.Name
	}
	var err error
	p.base, err = m.upstream(p.registry)
	return p, err
}

func (m *mirror) isRegistry(name string) bool {
	return m.upstreams[name] != "" || strings.Contains(name, ".") || name == "localhost"
}

// upstream returns where a registry is: https, but http for a port of this
// machine, as container tools have it.
func (m *mirror) upstream(name string) (string, error) {
	if base := m.upstreams[name]; base != "" {
		return base, nil
	}
	u, err := url.Parse("https://" + name)
	if err != nil || u.Host != name || u.Hostname() == "" {
		return "", fmt.Errorf("%w: ns=%q is no registry's host", content.ErrURL, name)
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	if port := u.Port(); port != "" && port != "443" && (ip.IsLoopback() || u.Hostname() == "localhost") {
		u.Scheme = "http"
	}
	return u.String(), nil
}

// withoutNS drops the parameter that is for the mirror from a query.
func withoutNS(query string) string {
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(pair, "="); name != "ns" && pair != "" {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// registry answers a request on the mirror. What a digest names is read through
// the swarm, where its registry gives it to anonymous clients; a tag is resolved
// at the registry each time. All else is relayed.
func (h *Handler) registry(x *exchange) {
	x.face = faceMirror
	p, err := h.mirror.parse(x.r)
	if err != nil {
		x.fail(err)
		return
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.w.Header().Set("Allow", "GET, HEAD")
		x.text(http.StatusMethodNotAllowed, "p2pnode: the mirror serves pulls alone; push to the registry itself")
		return
	}
	if crossSite(x.r) {
		x.fail(errCrossSite)
		return
	}
	x.w.Header().Set("Content-Security-Policy", "sandbox")
	if p.base == "" {
		x.json(http.StatusOK, "{}")
		x.outcome = outcomeSwarm
		return
	}
	t, err := p.target(p.Ref)
	if err == nil {
		x.host = t.url.Host
		err = h.mayPull(x, t)
	}
	if err != nil {
		x.fail(err)
		return
	}
	switch {
	case (p.Kind == registry.Manifest || p.Kind == registry.Blob) && content.IsDigest(p.Ref):
		if !h.byDigest(x, p, p.Ref, nil) {
			h.relay(x, t)
		}
	case p.Kind == registry.Manifest && !strings.Contains(p.Ref, ":"):
		h.byTag(x, p, t)
	default:
		h.relay(x, t)
	}
}

// mayPull returns an error where a target is this node, or the rules block it.
func (h *Handler) mayPull(x *exchange, t target) error {
	task, err := content.NewTask(t.raw, h.cfg.Filter())
	if err != nil {
		return err
	}
	if h.cfg.Self(hostPort(task.URL)) || viaSelf(x.r, h.cfg.Name) {
		return ErrLoop
	}
	x.asked = Asked{Method: x.r.Method, URL: task.URL, Host: HostOf(task.URL), Size: SizeUnknown}
	if rule, _, decided := h.cfg.Rules.Decide(x.asked); decided && rule.Action == ActionBlock {
		return errBlocked
	}
	return nil
}

// byDigest answers from the swarm, for a tag under the freshness fields of the
// registry's answer for it, which are nil for a digest. It reports false, with
// nothing sent, where the registry is to be asked with what the client has sent.
//
// What the registry gives to anybody is read without the client's credentials.
// Where it refused that lately they are tried, so that a client that sends none
// gets no more than the registry would give him.
func (h *Handler) byDigest(x *exchange, p pull, digest string, fresh http.Header) bool {
	t, err := p.target(digest)
	if err != nil {
		return false
	}
	task, err := content.NewTask(t.raw, h.cfg.Filter())
	ask := wantsOf(x.r.Header, h.cfg.Now())
	if err != nil || ask.noStore || !carried(x.r) || len(x.r.Header.Values("Cookie")) > 0 {
		return false
	}
	credentials, private := credentialsOf(x.r), h.isPrivate(p)
	if private && len(credentials) == 0 {
		return false
	}
	x.asked.URL = task.URL
	rule, _, decided := h.cfg.Rules.Decide(x.asked)
	if decided && rule.Action != ActionP2P {
		return false
	}
	ask.prefetch = rule.Prefetch
	x.w.onHeader = func() {
		if x.w.status >= 400 {
			return
		}
		header := x.w.Header()
		header.Set(headerContentDigest, digest)
		header.Set(headerAPIVersion, apiVersion)
		if fresh != nil { // a tag's own: a digest is for ever, a tag is not
			header.Del("Age")
			header.Del("Cache-Control")
			header.Del("Expires")
			setIf(header, "Cache-Control", strings.Join(fresh.Values("Cache-Control"), ", "))
		}
	}
	if !private && !h.passed(task.ID, false) {
		if h.swarm(x, t, task, ask, nil) {
			return true
		}
		if private = denies(x.err); private {
			h.mirror.private.Add(p.repository(), h.cfg.Now().Add(passMemory))
		}
	}
	if private && len(credentials) > 0 && !h.passed(task.ID, true) && !h.isDenied(t, credentials) && h.swarm(x, t, task, ask, credentials) {
		return true
	}
	x.w.onHeader = nil
	return false
}

// isPrivate reports whether a repository lately refused anonymous clients.
func (h *Handler) isPrivate(p pull) bool {
	until, ok := h.mirror.private.Get(p.repository())
	return ok && h.cfg.Now().Before(until)
}
