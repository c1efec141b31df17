package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// opening is a node that opens the TLS of an origin at 127.0.0.1.
type opening struct {
	*node
	origin *httptest.Server
	roots  *x509.CertPool // the authority's
	swarm  *fakeSwarm
	reg    *prometheus.Registry
}

func startOpening(t *testing.T, change func(*Config)) *opening {
	o := &opening{swarm: newFakeSwarm(1000), reg: prometheus.NewRegistry()}
	o.origin = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
	}))
	o.origin.EnableHTTP2 = true
	o.origin.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that does not trust it is a case
	o.origin.StartTLS()
	t.Cleanup(o.origin.Close)
	ca, roots := newTestCA(t, time.Now)
	o.roots = roots
	upstream := NewTransport(new(net.Dialer).DialContext)
	upstream.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	upstream.TLSClientConfig.RootCAs.AddCert(o.origin.Certificate())
	cfg := Config{Opener: o.swarm, DirectLocal: upstream, Registerer: o.reg, Intercept: &Interception{CA: ca, Hosts: HostPatterns{"127.0.0.1"}}}
	if change != nil {
		change(&cfg)
	}
	o.node = startNode(t, cfg)
	return o
}

// through returns a client that trusts the authority alone and uses the node.
func (o *opening) through(t *testing.T) *http.Client {
	tr := &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: o.addr}), TLSClientConfig: &tls.Config{RootCAs: o.roots}, ForceAttemptHTTP2: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func send(t *testing.T, c *http.Client, method, url, body string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, got
}

func TestIntercept(t *testing.T) {
	o := startOpening(t, nil)
	client := o.through(t)
	host := strings.TrimPrefix(o.origin.URL, "https://")
	res, body := send(t, client, http.MethodGet, o.origin.URL+"/a//b%2fc?x=1", "")
	wantStatus(t, res, 200)
	wantBody(t, body, o.swarm.data)
	wantHeader(t, res.Header, "P2pnode-Source", "peer")
	if res.ProtoMajor != 2 {
		t.Errorf("the client was answered in %s", res.Proto)
	}
	if got := o.swarm.requests(); len(got) != 1 || got[0].URL != o.origin.URL+"/a//b%2fc?x=1" || !got[0].Local {
		t.Errorf("the swarm was asked %+v", got)
	}
	res, body = send(t, client, http.MethodPost, o.origin.URL+"/up?y", "hello")
	wantStatus(t, res, 200)
	if want := "POST " + host + " /up?y hello"; string(body) != want {
		t.Errorf("the origin saw %q, want %q", body, want)
	}
	if res.TLS.PeerCertificates[0].Issuer.CommonName == o.origin.Certificate().Issuer.CommonName {
		t.Error("the client saw the origin's certificate")
	}
	client.CloseIdleConnections()
	o.shutdown(t)
	if n := counter(t, o.reg, "p2pnode_proxy_requests_total", "connect", outcomeIntercepted); n != 1 {
		t.Errorf("%v connections were intercepted, want 1 for both requests", n)
	}
}

// Hosts that are not listed are tunnelled: the client sees the origin's own
// certificate.
func TestInterceptOthers(t *testing.T) {
	o := startOpening(t, func(c *Config) { c.Intercept.Hosts = HostPatterns{"other.example"} })
	o.roots.AddCert(o.origin.Certificate())
	res, _ := send(t, o.through(t), http.MethodGet, o.origin.URL+"/", "")
	wantStatus(t, res, 200)
	if !res.TLS.PeerCertificates[0].Equal(o.origin.Certificate()) || len(o.swarm.requests()) != 0 {
		t.Error("the connection was opened")
	}
}

// An origin that the node does not trust is not vouched for.
func TestInterceptUntrustedOrigin(t *testing.T) {
	o := startOpening(t, func(c *Config) {
		c.DirectLocal = NewTransport(new(net.Dialer).DialContext)
		c.Opener = &fakeSwarm{openErr: ErrPassThrough}
	})
	res, body := send(t, o.through(t), http.MethodGet, o.origin.URL+"/", "")
	wantStatus(t, res, 502)
	if !strings.Contains(string(body), "certificate") {
		t.Errorf("the error is %q", body)
	}
}

// eager sends its first bytes behind the CONNECT, without waiting for the answer.
type eager struct {
	net.Conn
	connect []byte
	answer  *bufio.Reader
	read    bool
}

func (e *eager) Write(p []byte) (int, error) {
	n, err := e.Conn.Write(append(e.connect, p...))
	n -= len(e.connect)
	e.connect = nil
	return n, err
}

func (e *eager) Read(p []byte) (int, error) {
	if !e.read {
		e.read = true
		res, err := http.ReadResponse(e.answer, &http.Request{Method: http.MethodConnect})
		if err != nil || res.StatusCode != 200 {
			return 0, fmt.Errorf("CONNECT: %v, %w", res, err)
		}
	}
	return e.answer.Read(p)
}

func (o *opening) eager(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", o.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	host := strings.TrimPrefix(o.origin.URL, "https://")
	return &eager{Conn: conn, connect: []byte("CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"), answer: bufio.NewReader(conn)}
}

// TestInterceptRequests sends what no well-behaved client sends, each on a
// connection whose first bytes come with the CONNECT.
func TestInterceptRequests(t *testing.T) {
	o := startOpening(t, nil)
	host := strings.TrimPrefix(o.origin.URL, "https://")
	for name, c := range map[string]struct {
		request string
		want    int
	}{
		"its own host":            {"GET /x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200},
		"another host":            {"GET /x HTTP/1.1\r\nHost: other.example\r\n\r\n", 421},
		"another port":            {"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421},
		"an absolute URL":         {"GET http://" + host + "/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 421},
		"a tunnel in the tunnel":  {"CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 421},
		"a path that is a URL":    {"GET //other.example/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200},
		"the gateway's path":      {"GET /url/http://other.example/x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200},
		"the mirror's path":       {"GET /v2/a/manifests/b?ns=other.example HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200},
		"a path with a traversal": {"GET /../x HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(o.swarm.requests())
			conn := tls.Client(o.eager(t), &tls.Config{RootCAs: o.roots, ServerName: "127.0.0.1"})
			defer conn.Close()
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			wantStatus(t, res, c.want)
			asked := o.swarm.requests()[before:]
			if c.want == 200 && (len(asked) != 1 || !strings.HasPrefix(asked[0].URL, o.origin.URL+"/")) || c.want != 200 && len(asked) != 0 {
				t.Errorf("the swarm was asked %+v", asked)
			}
		})
	}
}

// Intercepted connections count as tunnels do, and end with the server.
func TestInterceptBounds(t *testing.T) {
	o := startOpening(t, func(c *Config) { c.MaxTunnels = 1 })
	first := tls.Client(o.eager(t), &tls.Config{RootCAs: o.roots, ServerName: "127.0.0.1"})
	defer first.Close()
	host := strings.TrimPrefix(o.origin.URL, "https://")
	if _, err := io.WriteString(first, "HEAD /x HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(first)
	res, err := http.ReadResponse(answers, &http.Request{Method: http.MethodHead})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, res, 200)
	res, _ = o.raw(t, http.MethodConnect, "CONNECT "+host+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	wantStatus(t, res, 503)
	o.shutdown(t)
	if rest, err := io.ReadAll(answers); len(rest) != 0 {
		t.Errorf("after the end came %q, %v", rest, err)
	}
}

// TestServeTLS: a listener of TLS serves all faces, tunnels too.
func TestServeTLS(t *testing.T) {
	ca, roots := newTestCA(t, time.Now)
	leaf, err := ca.certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	swarm := newFakeSwarm(1000)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*leaf}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "tunnelled") }))
	defer origin.Close()
	roots.AddCert(origin.Certificate())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(New(Config{Opener: swarm}), ln).Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "https", Host: ln.Addr().String()}),
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}}
	_, body := send(t, client, http.MethodGet, "http://origin.test/file", "")
	wantBody(t, body, swarm.data)
	if _, body := send(t, client, http.MethodGet, origin.URL, ""); string(body) != "tunnelled" {
		t.Errorf("through the tunnel came %q", body)
	}
	direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	_, body = send(t, direct, http.MethodGet, "https://"+ln.Addr().String()+"/url/http://origin.test/file", "")
	wantBody(t, body, swarm.data)
	client.CloseIdleConnections()
	direct.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who a request within an intercepted connection is from the CONNECT has said.
func TestInterceptClient(t *testing.T) {
	swarm := newFakeSwarm(10)
	h := New(Config{Opener: swarm, Access: Access{Rate: 1, Burst: 2, Users: func(string, string) bool { return false }}})
	for i, want := range []int{200, 200, 429} {
		r := httptest.NewRequest(http.MethodGet, "/file", http.NoBody)
		r.Host, r.RemoteAddr = "origin.test", "192.0.2.1:9"
		conn := &openedConn{authority: "origin.test:443", client: "user ann"}
		w := httptest.NewRecorder()
		h.serveOpened(w, r.WithContext(context.WithValue(t.Context(), connKey{}, conn)))
		if w.Code != want {
			t.Errorf("request %d: %d, want %d", i, w.Code, want)
		}
	}
	if asked := swarm.requests(); len(asked) != 2 || asked[0].URL != "https://origin.test/file" || asked[0].Local {
		t.Errorf("the swarm was asked %+v", asked)
	}
}
