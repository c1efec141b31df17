package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/seed/origin/registry"
)

// maxRedirects is how many redirects of a digest task are followed. Registries
// send one; with more an attempt could cost more than Limits.BlockFailures.
const maxRedirects = 3

// answer is an origin's response whose body has not been looked at.
type answer struct {
	*http.Response
	cancel context.CancelFunc
	pass   *pass
	sent   time.Time // when it was asked for
}

// close drops the rest of the answer without reading it. err is what was wrong
// with it.
func (a *answer) close(err error) {
	a.Body.Close()
	a.cancel()
	a.pass.leave(err)
}

// exchange sends one request and, for a digest task, follows the redirects.
// An empty asked sends no Range field. The caller closes the answer.
func (c *Client) exchange(ctx context.Context, method string, r Request, asked content.Range, t *ticket) (*answer, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: unusable URL", ErrForbiddenTarget) // url.Error would show the query
	}
	header := c.header(u, r.Header, asked)
	ctx, cancel := context.WithCancel(ctx)
	var been []string
	for hops := 0; ; hops++ {
		sent := c.cfg.Now()
		resp, pass, err := c.roundTripAnonymous(ctx, method, u, header, r, t)
		if err != nil {
			cancel()
			if hops > 0 && errors.Is(err, ErrForbiddenTarget) {
				return nil, fmt.Errorf("%w: %w", errRedirect, err)
			}
			return nil, err
		}
		next := redirectTarget(resp)
		if r.Digest == "" || next == nil {
			return &answer{resp, cancel, pass, sent}, nil
		}
		resp.Body.Close()
		pass.leave(nil)
		been = append(been, u.String())
		if hops == maxRedirects || slices.Contains(been, next.String()) {
			cancel()
			return nil, fmt.Errorf("%w after %d: %w", errRedirect, len(been), newStatusError(resp, c.cfg.Now()))
		}
		if !sameOrigin(u, next) {
			for _, name := range credentials {
				header.Del(name)
			}
		}
		u = next
	}
}

// credentials are the requester's header fields that are passed on.
var credentials = []string{"Authorization", "Cookie"}

// header builds the canonical request header.
func (c *Client) header(u *url.URL, requester http.Header, asked content.Range) http.Header {
	accept := "*/*"
	if p, ok := registry.ParsePath(u.Path); ok && p.Kind == registry.Manifest {
		accept = registry.Accept
	}
	h := http.Header{
		"Accept":          {accept},
		"Accept-Encoding": {"identity"},
		"User-Agent":      {c.cfg.UserAgent},
	}
	for _, name := range credentials {
		if v := requester.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	if !asked.Empty() {
		h.Set("Range", "bytes="+strconv.FormatInt(asked.Off, 10)+"-"+strconv.FormatInt(asked.End()-1, 10))
	}
	return h
}

type proxyKey struct{}

// chosenProxy is the Proxy function of the transport that goes through proxies.
func chosenProxy(r *http.Request) (*url.URL, error) {
	proxy, _ := r.Context().Value(proxyKey{}).(*url.URL)
	if proxy == nil {
		return nil, fmt.Errorf("%w: no proxy was chosen", ErrForbiddenTarget)
	}
	return proxy, nil
}

// roundTrip sends one request, directly under the policy's dialer, or through
// an upstream proxy after a check of the target. The caller ends the pass.
func (c *Client) roundTrip(ctx context.Context, method string, u *url.URL, header http.Header, t *ticket) (*http.Response, *pass, error) {
	if err := checkScheme(u); err != nil {
		return nil, nil, err
	}
	req := &http.Request{
		Method: method, URL: u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header.Clone(),
	}
	proxy, err := c.cfg.Proxy(req.WithContext(ctx))
	if err != nil {
		return nil, nil, fmt.Errorf("choose a proxy for %s: %w: %w: %w", bareURL(u), ErrUnreachable, errConnect, err)
	}
	transport := c.direct
	if proxy != nil {
		if err := c.cfg.Policy.CheckURL(ctx, u); err != nil {
			return nil, nil, err
		}
		transport = c.proxied
		ctx = context.WithValue(ctx, proxyKey{}, proxy)
	}
	pass, err := c.gates.of(u).enter(ctx, t.task)
	if err != nil {
		return nil, nil, fmt.Errorf("ask %s: %w", bareURL(u), err)
	}
	ctx, stop := context.WithCancelCause(ctx) // ends with exchange's
	var connected atomic.Bool
	tries := 0
	trace := &httptrace.ClientTrace{
		// The transport asks again by itself where a used connection turns out
		// to be closed, and would go through all of those it has: the second
		// request gets a new one, and counts.
		GetConn: func(string) {
			if tries++; tries == 1 {
				return
			}
			connected.Store(false)
			transport.CloseIdleConnections()
			if err := t.another(); err != nil {
				stop(err)
			}
		},
		GotConn: func(httptrace.GotConnInfo) {
			connected.Store(true)
			pass.connected()
			t.sent()
		},
	}
	sent := c.cfg.Now()
	resp, err := transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil {
		err = failed(ctx, u, err, connected.Load(), c.cfg.Now().Sub(sent))
		pass.leave(err)
		return nil, nil, err
	}
	c.metrics.firstByte.Observe(c.cfg.Now().Sub(sent).Seconds())
	return resp, pass, nil
}

// redirectTarget returns where a response redirects to, nil if it does not.
func redirectTarget(resp *http.Response) *url.URL {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if u, err := resp.Location(); err == nil {
			return u
		}
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }
