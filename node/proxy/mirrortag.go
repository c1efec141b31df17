package proxy

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// resolveWait is how long a registry may take to resolve a tag whose last digest
// is known here.
const resolveWait = 5 * time.Second

const (
	headerContentDigest = "Docker-Content-Digest"
	headerAPIVersion    = "Docker-Distribution-Api-Version"
	apiVersion          = "registry/2.0"
)

// byTag asks the registry, with the client's own credentials, what a tag is now,
// and answers with that manifest from the swarm. A HEAD at the registry costs it
// no body, and does not count against the limits of Docker Hub. Where the
// registry cannot say, an anonymous client gets what the tag last was.
func (h *Handler) byTag(x *exchange, p pull, t target) {
	key := p.repository() + ":" + p.Ref + " " + strings.Join(x.r.Header.Values("Accept"), ",")
	anonymous := x.r.Header.Get("Authorization") == ""
	last, known := "", false
	if anonymous {
		last, known = h.mirror.tags.Get(key)
	}
	res, err := h.resolve(x, t, known)
	switch {
	case (err != nil || res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests) && known:
		h.cfg.Logger.Debug("registry cannot resolve a tag, serving its last manifest", "host", x.host, "err", err)
		if !h.byDigest(x, p, last, http.Header{}) {
			h.relay(x, t)
		}
	case err != nil:
		x.fail(err)
	case x.r.Method == http.MethodHead:
		h.remember(key, anonymous, res)
		x.transport = answered{res}
		h.direct(x, t)
	default:
		digest := h.remember(key, anonymous, res)
		if digest == "" || !h.byDigest(x, p, digest, res.Header) {
			h.relay(x, t) // the client gets the registry's own answer
		}
	}
}

// resolve asks the registry for a tag by HEAD.
func (h *Handler) resolve(x *exchange, t target, known bool) (*http.Response, error) {
	ctx := x.r.Context()
	if known {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, resolveWait)
		defer cancel()
	}
	req := (&http.Request{Method: http.MethodHead, URL: t.url, Host: t.url.Host, Header: http.Header{}}).WithContext(ctx)
	fields := []string{"Accept", "Authorization", "Cookie", "User-Agent"}
	if x.r.Method == http.MethodHead {
		fields = append(fields, "If-None-Match", "If-Modified-Since")
	}
	for _, name := range fields {
		if v := x.r.Header.Values(name); len(v) > 0 && !hasToken(x.r.Header, "Connection", name) {
			req.Header[name] = v
		}
	}
	req.Header.Add("Via", via(x.r.ProtoMajor, x.r.ProtoMinor, h.cfg.Name))
	res, err := h.anonymous(x).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body.Close() // a HEAD has none
	res.Body = http.NoBody
	return res, nil
}

// remember notes the digest that a registry's answer to a HEAD names, and
// returns it; "" where it names none that the swarm can check.
func (h *Handler) remember(key string, anonymous bool, res *http.Response) string {
	digest := res.Header.Get(headerContentDigest)
	if res.StatusCode != http.StatusOK || !content.IsDigest(digest) {
		return ""
	}
	if anonymous {
		h.mirror.tags.Add(key, digest)
	}
	return digest
}

// answered is a RoundTripper that has the answer already.
type answered struct{ res *http.Response }

// RoundTrip implements http.RoundTripper.
func (a answered) RoundTrip(r *http.Request) (*http.Response, error) {
	a.res.Request = r
	return a.res, nil
}
