package node_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/p2pnode/p2pnode/node"
)

// realmRegistry gives its tags to who shows a token, and says where tokens are
// had.
type realmRegistry struct {
	*httptest.Server
	mu sync.Mutex
	// mu guards the following.
	realm string
	shown []string // the Authorization fields that it was sent
}

func newRealmRegistry(t *testing.T) *realmRegistry {
	r := &realmRegistry{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if shown := req.Header.Get("Authorization"); shown != "" {
			r.shown = append(r.shown, shown)
			_, _ = io.WriteString(w, `{"tags":["v1"]}`)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.realm+`",service="s",scope="repository:a:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(r.Close)
	return r
}

// names sets the realm, and forgets what was shown.
func (r *realmRegistry) names(realm string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.realm, r.shown = realm, nil
}

func (r *realmRegistry) wasShown() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shown
}

// port is that of a URL of this machine.
func port(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil || u.Port() == "" {
		t.Fatalf("no port in %q: %v", raw, err)
	}
	return u.Port()
}

// TestMirrorRealm: where a token is had is the registry's word. A client of this
// machine may name a registry in the machine's own network, but that registry, or
// one far away, does not thereby choose whom the node asks there: only the host
// that the client has named, what the seeds' policy admits, and never the node
// itself.
func TestMirrorRealm(t *testing.T) {
	const secret = "internal-secret"
	var (
		mu    sync.Mutex
		asked []string
	)
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+r.Header.Get("Cookie"))
		_, _ = io.WriteString(w, `{"token":"`+secret+`"}`)
	}))
	defer inside.Close()
	at := func(host, path string) string { return "http://" + host + ":" + port(t, inside.URL) + path }
	r := newRealmRegistry(t)
	strict := startNode(t, node.Config{Seed: true, OriginFallback: true})
	allowed := startNode(t, node.Config{Seed: true, OriginFallback: true, OriginAllow: []string{"127.0.0.0/8", "localhost"}})
	const metadata = "/latest/meta-data/iam/security-credentials/x"
	for name, tc := range map[string]struct {
		n     *node.Node
		realm string
		asked bool
	}{
		"a service of this machine":         {strict, at("127.0.0.1", metadata), false},
		"the name's own host, another port": {strict, at("localhost", "/token"), true},
		"in other letters":                  {strict, at("LocalHost", "/token"), true},
		"what the operator allows":          {allowed, at("127.0.0.1", "/token"), true},
		"the node's proxy":                  {strict, "http://localhost:" + port(t, strict.Info().Proxy) + "/url/" + at("localhost", metadata), false},
		"the same, where allowed":           {allowed, "http://127.0.0.1:" + port(t, allowed.Info().Proxy) + "/url/" + at("localhost", metadata), false},
		"the same, in another spelling":     {allowed, "http://[::ffff:7f00:1]:" + port(t, allowed.Info().Proxy) + "/url/" + at("localhost", metadata), false},
	} {
		t.Run(name, func(t *testing.T) {
			mu.Lock()
			asked = nil
			mu.Unlock()
			r.names(tc.realm)
			// A repository for each, as tokens are kept.
			path := fmt.Sprintf("/v2/a%x/tags/list?ns=localhost:%s", name, port(t, r.URL))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tc.n.Info().Proxy+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Cookie", "mine=1")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			mu.Lock()
			defer mu.Unlock()
			if !tc.asked {
				if len(asked) != 0 || len(r.wasShown()) != 0 {
					t.Errorf("asked %q, and the registry was shown %q", asked, r.wasShown())
				}
				if challenge := res.Header.Get("Www-Authenticate"); res.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, tc.realm) {
					t.Errorf("%s with the challenge %q: the client cannot get a token of its own", res.Status, challenge)
				}
				return
			}
			if res.StatusCode != http.StatusOK || !slices.Equal(asked, []string{"GET /token "}) || !slices.Equal(r.wasShown(), []string{"Bearer " + secret}) {
				t.Errorf("%s; asked %q, and the registry was shown %q", res.Status, asked, r.wasShown())
			}
		})
	}
}

// TestOwnPorts: nothing that a client of this machine writes makes the proxy connect
// to a port of its own node.
func TestOwnPorts(t *testing.T) {
	n := startNode(t, node.Config{Seed: true, OriginFallback: true, OriginAllow: []string{"127.0.0.0/8", "localhost"}})
	ports := map[string]string{"proxy": port(t, n.Info().Proxy), "admin": port(t, n.Info().Admin)}
	for _, s := range n.Info().Addrs {
		addr, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		if tcp, err := manet.ToNetAddr(addr.Decapsulate(multiaddr.StringCast("/p2p/" + n.Info().Peer))); err == nil && tcp.Network() == "tcp" {
			ports["peers"] = port(t, "tcp://"+tcp.String())
		}
	}
	if ports["peers"] == "" {
		t.Fatalf("no TCP port among %q", n.Info().Addrs)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	ports["other"] = port(t, other.URL)
	for name, p := range ports {
		for _, host := range []string{"127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"} {
			for what, request := range map[string]string{
				"tunnel":  "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n",
				"forward": "GET http://%[1]s/metrics HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n",
				"gateway": "GET /url/http://%[1]s/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
			} {
				status := speak(t, n, fmt.Sprintf(request, net.JoinHostPort(host, p)))
				if refused := status == http.StatusLoopDetected; refused != (name != "other") {
					t.Errorf("%s to %s, the port %q: %d", what, net.JoinHostPort(host, p), name, status)
				}
			}
		}
	}
}

// speak sends bytes to the proxy as they are, and returns the answer's status.
func speak(t *testing.T, n *node.Node, request string) int {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(n.Info().Proxy, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}
