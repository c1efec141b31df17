package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// NewTransport returns a transport that changes nothing on the way: no
// decompression, no redirects, no proxy of its own. It connects with dial.
func NewTransport(dial DialFunc) *http.Transport {
	return &http.Transport{
		DialContext:           dial,
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		// An origin may send as much as a client.
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// direct streams a request to its origin, and the answer back, untouched but
// for hop-by-hop fields and Via; for interim ones see wantsInterim.
func (h *Handler) direct(x *exchange, t target) {
	transport := x.transport
	if transport == nil {
		transport = h.transport(x)
	}
	if wantsInterim(x.r, t.face) {
		transport = passInterim{transport, x.r, x.w}
	} else {
		transport = finalOnly{transport, x.r}
	}
	failed := false
	r := x.r
	if hasBody(r) {
		// A copy: net/http looks at its own Body for what Expect asked.
		r = r.WithContext(r.Context())
		r.Body = &stallBody{x.w.rc, r.Body}
	}
	proxy := httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		BufferPool:    buffers,
		Rewrite:       func(pr *httputil.ProxyRequest) { x.rewrite(pr, t) },
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode < 100 { // which net/http reads, and does not write
				return fmt.Errorf("the origin answered with the status %03d", res.StatusCode)
			}
			x.answer(res, t)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			failed = true
			if x.w.full {
				err = errTunnels // err has it as text alone
			}
			x.w.onHeader = nil
			x.fail(err)
		},
		ErrorLog: h.errorLog,
	}
	x.w.onHeader = func() { x.firstByte(sourceDirect) }
	x.w.upgraded = func(conn net.Conn) net.Conn {
		if x.leave != nil {
			x.leave() // it is a tunnel from here on, and counts as one
		}
		return newIdleConn(conn, h.cfg.TunnelIdle)
	}
	defer func() { h.metrics.bytes.WithLabelValues(sourceDirect).Add(float64(x.w.bytes)) }()
	proxy.ServeHTTP(x.w, r)
	if !failed {
		x.outcome = outcomeDirect
	}
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// transport returns what carries an exchange's requests to origins.
func (h *Handler) transport(x *exchange) http.RoundTripper {
	if x.local {
		return h.cfg.DirectLocal
	}
	return h.cfg.DirectRemote
}

// forwards reports whether Max-Forwards lets an OPTIONS or TRACE request go on,
// and counts it down (RFC 9110 section 7.6.2); else it answers.
func (x *exchange) forwards() bool {
	field := x.r.Header.Get("Max-Forwards")
	if field == "" || x.r.Method != http.MethodOptions && x.r.Method != http.MethodTrace {
		return true
	}
	n, err := strconv.ParseUint(field, 10, 32)
	if err != nil || n > 0 {
		if err == nil {
			x.r.Header.Set("Max-Forwards", strconv.FormatUint(n-1, 10))
		}
		return true
	}
	x.w.Header().Set("Allow", "GET, HEAD, OPTIONS, CONNECT")
	if x.r.Method == http.MethodTrace {
		x.text(http.StatusMethodNotAllowed, "p2pnode: this node does not answer TRACE: it would show what the request holds.\nAsk without Max-Forwards for the origin's answer.\n")
		return false
	}
	x.text(http.StatusOK, "")
	return false
}

// rewrite undoes what httputil.ReverseProxy does for a server's own backends,
// and aims the request at its origin.
func (x *exchange) rewrite(pr *httputil.ProxyRequest, t target) {
	pr.Out.URL = t.url
	pr.Out.Host = t.url.Host
	pr.Out.Trailer = pr.In.Trailer // filled when the body has been read
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := pr.In.Header[name]; ok && !hasToken(pr.In.Header, "Connection", name) {
			pr.Out.Header[name] = v
		}
	}
	pr.Out.Header.Add("Via", via(x.r.ProtoMajor, x.r.ProtoMinor, x.h.cfg.Name))
}

// answer adapts the origin's header to the face.
func (x *exchange) answer(res *http.Response, t target) {
	res.Header.Add("Via", via(res.ProtoMajor, res.ProtoMinor, x.h.cfg.Name))
	if len(res.Header.Values("Content-Type")) == 0 {
		x.w.Header()["Content-Type"] = nil // net/http would guess one
	}
	if t.face == faceMirror {
		x.mirrored(res, t)
	}
	if t.face == faceGateway || t.face == faceMirror {
		for _, name := range ofOrigin {
			res.Header.Del(name)
		}
	}
	if loc := res.Header.Get("Location"); loc != "" && t.face == faceGateway {
		credentials := x.r.Header.Get("Authorization") != "" || x.r.Header.Get("Cookie") != ""
		res.Header.Set("Location", gatewayLocation(t.url, loc, credentials))
	}
}

// gatewayLocation makes a redirect of base stay on the gateway; see the
// package's doc for the exception.
func gatewayLocation(base *url.URL, location string, credentials bool) string {
	ref, err := url.Parse(location)
	if err != nil {
		return location
	}
	plain := *base
	plain.Opaque = "" // which ResolveReference would take for a URL without host
	to := plain.ResolveReference(ref)
	same := strings.EqualFold(to.Scheme, base.Scheme) && strings.EqualFold(to.Host, base.Host)
	if !isWebScheme(to.Scheme) || to.User != nil || credentials && !same {
		return location
	}
	if ref.IsAbs() {
		return gatewayPrefix + location // byte for byte: it may be signed
	}
	return gatewayPrefix + to.String()
}

// via names the version in which a message came, and this node (RFC 9110 section
// 7.6.3).
func via(major, minor int, name string) string {
	return strconv.Itoa(major) + "." + strconv.Itoa(minor) + " " + name
}

// bufferSize is large enough that a system call a buffer does not matter.
const bufferSize = 64 << 10

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool sync.Pool }

var buffers = &bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}

// Get returns a buffer of bufferSize bytes.
func (b *bufferPool) Get() []byte { return b.pool.Get().(*[bufferSize]byte)[:] }

// Put takes it back.
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
