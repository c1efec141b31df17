package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

// watch is what FuzzServe's origins see of one request.
type watch struct {
	t       *testing.T
	client  *http.Request // as it was before it was served
	mirror  bool
	far     bool          // the client is none of this machine
	answers *bufio.Reader // of the origins, one behind the other
	asked   int
}

// carrier is a way to the origins.
type carrier struct {
	s     *watch
	local bool
}

// dial notes a connection, and refuses it.
func (c carrier) dial(_ context.Context, _, addr string) (net.Conn, error) {
	c.s.asked++
	host, _, err := net.SplitHostPort(addr)
	c.s.check(c.local, addr, host)
	return nil, errors.Join(ErrForbidden, err)
}

// RoundTrip looks at the request, and answers the next of the answers.
func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	s := c.s
	s.asked++
	asks := r.URL.Scheme + "://" + r.URL.Host + r.URL.RequestURI() // it may have an Opaque, see keepBytes
	task, err := content.NewTask(asks, content.Filter{})
	if err != nil || r.Host != r.URL.Host {
		s.t.Errorf("asks %s of %s: %v", asks, r.Host, err)
		return nil, net.ErrClosed
	}
	s.check(c.local, hostPort(task.URL), HostOf(task.URL))
	s.checkFields(r)
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	for {
		res, err := http.ReadResponse(s.answers, r)
		if err != nil {
			return nil, err
		}
		if res.StatusCode < 100 || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, nil
		}
		res.Body.Close() // a transport waits for the final one
		if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// check looks at where a connection goes.
func (s *watch) check(local bool, addr, host string) {
	if local && s.far {
		s.t.Errorf("%s is reached as by a client of this machine", addr)
	}
	if addr == "node.test:65001" || strings.TrimSuffix(host, ".") == "blocked.test" {
		s.t.Errorf("%s is asked", addr)
	}
}

// checkFields looks at what an origin is sent.
func (s *watch) checkFields(r *http.Request) {
	before, after := s.client.Header, r.Header
	sent := before.Get("Authorization")
	if hasToken(before, "Connection", "Authorization") {
		sent = "" // to the node alone
	}
	for _, name := range []string{"Proxy-Authorization", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Transfer-Encoding", "Trailer"} {
		if after.Get(name) != "" {
			s.t.Errorf("%s is passed on: %q", name, after.Get(name))
		}
	}
	for _, line := range before.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if v := after.Get(name); v != "" && v == before.Get(name) && !slices.Contains([]string{"upgrade", "te", "connection"}, strings.ToLower(name)) {
				s.t.Errorf("%s is passed on, which Connection names: %q", name, v)
			}
		}
	}
	if te := after.Get("Te"); te != "" && te != "trailers" {
		s.t.Errorf("TE: %q", te)
	}
	if hops := after.Values("Via"); len(hops) == 0 || !strings.HasSuffix(hops[len(hops)-1], " me") {
		s.t.Errorf("Via: %q", hops)
	}
	if v := after.Get("Authorization"); v != sent && (!s.mirror || v != "" && sent != "") {
		s.t.Errorf("Authorization: %q becomes %q", sent, v)
	}
	if v := after.Get("Cookie"); v != "" && v != before.Get("Cookie") {
		s.t.Errorf("Cookie: %q becomes %q", before.Get("Cookie"), v)
	}
	if s.mirror && r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.t.Errorf("the mirror sends %s", r.Method)
	}
	n, err := strconv.ParseUint(before.Get("Max-Forwards"), 10, 32)
	if err == nil && (r.Method == http.MethodTrace || r.Method == http.MethodOptions) && after.Get("Max-Forwards") != strconv.FormatUint(n-1, 10) {
		s.t.Errorf("Max-Forwards: %d becomes %q", n, after.Get("Max-Forwards"))
	}
}

// interims is a client's end that has interim answers apart, which
// httptest.ResponseRecorder takes for final ones.
type interims struct {
	*httptest.ResponseRecorder
	t   *testing.T
	own bool // the face is the node's own
}

// WriteHeader looks at an interim answer.
func (w interims) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.ResponseRecorder.WriteHeader(status)
		return
	}
	if w.own {
		w.t.Errorf("an origin's %d comes from the node: %q", status, w.Header())
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Transfer-Encoding", "Upgrade"} {
		if w.Header().Get(name) != "" {
			w.t.Errorf("%d passes on %s: %q", status, name, w.Header().Get(name))
		}
	}
}

// FuzzServe: whatever a client writes, and whatever origins answer, no host that a
// rule blocks is asked, nor this node itself, nor anybody for a request that has been
// here, that a page of another site sends to the gateway or the mirror, or whose
// client has not logged in; origins see no field that was for this node alone; and
// a client elsewhere is not served as one of this machine.
func FuzzServe(f *testing.F) {
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	file := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nEtag: \"1\"\r\n\r\nfile"
	hints := "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: connection, x\r\nX: y\r\nProxy-Authenticate: Basic\r\nKeep-Alive: 1\r\nAlt-Svc: h3\r\n\r\n"
	challenge := func(realm string) string {
		return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer realm=\"" + realm + "\",scope=\"repository:a:pull\"\r\n\r\n" +
			"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"x\"}" + file
	}
	for _, s := range []struct{ request, answers string }{
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", file},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 me\r\n\r\n", file},
		{"GET http://BLOCKED.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", file},
		{"GET http://NODE.test:65001/x HTTP/1.1\r\nHost: a.test\r\n\r\n", file},
		{"POST http://a.test/x HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic dTpw\r\nAuthorization: Basic eDp5\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: cookie, x-forwarded-for, close\r\nCookie: a=b\r\nX-Forwarded-For: 1\r\nTE: gzip, trailers\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: /y\r\nConnection: x\r\nX: y\r\nContent-Length: 0\r\n\r\n"},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nConnection: Authorization ,COOKIE\r\nCookie: a=b\r\nAuthorization: x\r\n\r\n", file},
		{"GET /v2/a/b/manifests/v1?ns=a.test HTTP/1.1\r\nHost: localhost\r\nConnection: authorization\r\nAuthorization: x\r\n\r\n", challenge("https://a.test/token")},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		{"OPTIONS http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n", file},
		{"TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 5\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + file},
		{"GET /url/https://a.test/x HTTP/1.1\r\nHost: localhost:65001\r\nSec-Fetch-Site: cross-site\r\n\r\n", file},
		{"GET /url/http:/a.test/x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: x\r\n\r\n", "HTTP/1.1 302 Found\r\nAlt-Svc: h3\r\nLocation: //b.test/\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"},
		{"GET /url/http:/a.test/x HTTP/1.1\r\nHost: evil.test\r\n\r\n", "HTTP/1.1 042 Odd\r\nAlt-Svc: h3\r\nContent-Length: 0\r\n\r\n"},
		{"GET /v2/a/b/tags/list?ns=a.test HTTP/1.1\r\nHost: localhost\r\n\r\n", challenge("http://node.test:65001/")},
		{"GET /v2/a/b/tags/list?ns=a.test HTTP/1.1\r\nHost: localhost\r\nCookie: a=b\r\nConnection: cookie\r\n\r\n", challenge("https://a.test/token")},
		{"GET /url/http:/a.test/x HTTP/1.1\r\nHost: localhost\r\n\r\n", hints + file},
		{"GET /v2/a/b/tags/list?ns=a.test HTTP/1.1\r\nHost: localhost\r\n\r\n", hints + file},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", hints + file},
		{"GET /v2/a/b/manifests/v1?ns=localhost:5000 HTTP/1.1\r\nHost: [::1]:65001\r\nConnection: accept\r\nAccept: x\r\n\r\n", challenge("http://blocked.test/")},
		{"HEAD /v2/a/b/blobs/" + digest + "?ns=a.test HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", file},
		{"GET /v2/blocked.test/a/manifests/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", file},
		{"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n", ""},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=0-1,5-\r\nAuthorization: x\r\nProxy-Authorization: Basic dTpw\r\n\r\n", file},
		{"POST http://a.test/x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n", file},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic dTpx\r\n\r\n", file},
		{"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic dTpx\r\n\r\n", ""},
		{"GET http://a.test/\"x|y HTTP/1.1\r\nHost: a.test\r\n\r\n", file},
		{"GET /elsewhere HTTP/1.1\r\nHost: a.test\r\n\r\n", file},
	} {
		f.Add(s.request, s.answers, false, false)
		f.Add(s.request, s.answers, true, true)
		f.Add(strings.Replace(s.request, "\r\n", "\r\nProxy-Authorization: Basic dTpw\r\n", 1), s.answers, true, false)
	}
	rules, err := NewRules([]Rule{{Hosts: []string{"blocked.test"}, Action: ActionBlock}})
	if err != nil {
		f.Fatal(err)
	}
	whole := newFakeSwarm(1000)
	f.Fuzz(func(t *testing.T, raw, answers string, remote, carried bool) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		r.RemoteAddr = "127.0.0.1:9"
		if remote {
			r.RemoteAddr = "192.0.2.1:9"
		}
		s := &watch{t: t, client: r.Clone(t.Context()), mirror: isRegistryPath(r), answers: bufio.NewReader(strings.NewReader(answers))}
		own := strings.HasPrefix(r.RequestURI, "/") // it is for the node's own name
		s.far = remote || own && !namesLoopback(r.Host)
		swarm := &fakeSwarm{openErr: ErrPassThrough}
		if carried {
			swarm = &fakeSwarm{data: whole.data, meta: whole.meta}
		}
		near, far := carrier{s, true}, carrier{s, false}
		h := New(Config{
			Opener: swarm, Rules: rules, Name: "me", DialLocal: near.dial, DialRemote: far.dial, DirectLocal: near, DirectRemote: far,
			Access: Access{Users: func(name, password string) bool { return name == "u" && password == "p" }},
			Self:   func(hostport string) bool { return hostport == "node.test:65001" }, Logger: slog.New(slog.DiscardHandler),
		})
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is a panic's own value
					panic(p)
				}
			}()
			h.ServeHTTP(interims{w, t, own}, r)
		}()
		for _, open := range swarm.requests() {
			s.asked++
			s.check(open.Local, hostPort(open.Task.URL), HostOf(open.Task.URL))
			for name, values := range open.Credentials {
				if name != "Authorization" && name != "Cookie" || !slices.Equal(values, s.client.Header[name]) || hasToken(s.client.Header, "Connection", name) {
					t.Errorf("the swarm gets %s: %q", name, values)
				}
			}
		}
		before := s.client.Header
		name, password, _ := proxyLogin(s.client)
		switch {
		case s.asked == 0:
		case slices.Contains(before.Values("Via"), "1.1 me"):
			t.Error("a request that has been here is sent on")
		case own && before.Get("Sec-Fetch-Site") == "cross-site":
			t.Error("a page of another site is served")
		case s.far && (name != "u" || password != "p"):
			t.Errorf("%q with the password %q is served", name, password)
		}
		if own && s.asked > 0 {
			for _, name := range ofOrigin {
				if w.Header().Get(name) != "" {
					t.Errorf("%s of an origin comes from the node: %q", name, w.Header().Get(name))
				}
			}
			if w.Header().Get("Content-Security-Policy") != "sandbox" {
				t.Errorf("an origin's page is not kept apart: %q", w.Header())
			}
		}
		if login := w.Header().Get("Proxy-Authenticate"); login != "" && w.Code != http.StatusProxyAuthRequired {
			t.Errorf("an origin asks for the proxy's password: %d %q", w.Code, login)
		}
	})
}

// namesLoopback reports whether a Host names this machine without asking DNS.
func namesLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil { // whatever stands for the port
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}
