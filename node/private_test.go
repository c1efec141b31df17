package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// vault is an origin that gives its files to who shows a credential that is in
// force, in a swarm of two seeds and two readers that hold what they read.
type vault struct {
	t      *testing.T
	origin *p2ptest.Origin
	nodes  []*node.Node // the seeds first
	again  []func()     // stop a node and start it anew, in its place

	mu   sync.Mutex
	good map[string]bool // credentials in force
}

// seeds is how many of a vault's nodes are seeds.
const seeds = 2

func newVault(t *testing.T, change func(*node.Config)) *vault {
	t.Helper()
	v := &vault{t: t, origin: p2ptest.NewOrigin(t), good: map[string]bool{}}
	v.origin.SetFault(v.check)
	super := startNode(t, node.Config{})
	for i := range 2 * seeds {
		reg := prometheus.NewRegistry()
		cfg := node.Config{
			Seed: i < seeds, Supernodes: []string{super.Info().Supernode}, OriginAllow: []string{"127.0.0.0/8"},
			Registerer: reg, Gatherer: reg, DataDir: t.TempDir(),
		}
		if change != nil {
			change(&cfg)
		}
		n, stop := startStoppable(t, cfg)
		v.nodes = append(v.nodes, n)
		v.again = append(v.again, func() {
			stop()
			cfg.Registerer, cfg.Gatherer = nil, nil
			v.nodes[i], stop = startStoppable(t, cfg)
		})
	}
	v.waitPool()
	return v
}

// metric is the sum of a counter over all nodes.
func (v *vault) metric(name string) (sum int64) {
	v.t.Helper()
	for _, n := range v.nodes {
		_, body := fetch(v.t, n.Info().Admin+"/metrics")
		_, after, ok := strings.Cut(string(body), "\n"+name+`{part="node"} `)
		value, _, _ := strings.Cut(after, "\n")
		count, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil {
			v.t.Fatalf("no metric %s at %s: %v", name, n.Info().Peer, err)
		}
		sum += count
	}
	return sum
}

// waitPool waits until every node knows who the seeds are.
func (v *vault) waitPool() {
	v.t.Helper()
	for _, n := range v.nodes {
		p2ptest.Eventually(v.t, 30*time.Second, func() bool {
			var st node.Status
			_, body := fetch(v.t, n.Info().Admin+"/v1/status")
			return json.Unmarshal(body, &st) == nil && len(st.Pool) == seeds
		}, "every node knows the pool")
	}
}

// check is the origin's: 401 without a good Authorization or Cookie, 403 without a
// good signature.
func (v *vault) check(r *http.Request) p2ptest.Fault {
	if strings.HasPrefix(r.URL.Path, "/public") {
		return p2ptest.Fault{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range []string{r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.URL.Query().Get("X-Amz-Signature")} {
		if v.good[c] {
			return p2ptest.Fault{}
		}
	}
	if strings.HasPrefix(r.URL.Path, "/signed") {
		return p2ptest.Fault{Status: http.StatusForbidden}
	}
	return p2ptest.Fault{Status: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {`Basic realm="vault"`}}}
}

func (v *vault) allow(ok bool, credentials ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range credentials {
		v.good[c] = ok
	}
}

// put makes a file that may be cached for long.
func (v *vault) put(path string, data []byte) string {
	return v.origin.Put(path, p2ptest.Object{Data: data, ETag: `"` + path + `"`, Header: http.Header{"Cache-Control": {"max-age=3600"}}})
}

// askProxy sends a request through a node's proxy.
func askProxy(t *testing.T, n *node.Node, address string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	res, body, err := tryAsk(t.Context(), n, address, header)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

func tryAsk(ctx context.Context, n *node.Node, address string, header http.Header) (*http.Response, []byte, error) {
	proxy, err := url.Parse(n.Info().Proxy)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), DisableCompression: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

// wantFile checks that a node serves a file from the swarm.
func (v *vault) wantFile(n int, address string, header http.Header, data []byte) {
	v.t.Helper()
	res, body := askProxy(v.t, v.nodes[n], address, header)
	if res.StatusCode != http.StatusOK || !bytes.Equal(body, data) || res.Header.Get("P2pnode-Source") == "" {
		v.t.Errorf("node %d with %v: %s with %d bytes from %q", n, header, res.Status, len(body), res.Header.Get("P2pnode-Source"))
	}
}

// wantOnce checks that each byte of a file left the origin once.
func (v *vault) wantOnce(path string, data []byte) {
	v.t.Helper()
	if got, size := v.origin.Bytes(path), int64(len(data)); got != size {
		v.t.Errorf("%d bytes of %d left the origin", got, size)
	}
}

// wantRefused checks that a client gets the origin's own refusal.
func (v *vault) wantRefused(n int, address string, header http.Header, status int) {
	v.t.Helper()
	res, body := askProxy(v.t, v.nodes[n], address, header)
	if res.StatusCode != status || string(body) != http.StatusText(status) || res.Header.Get("P2pnode-Source") != "" {
		v.t.Errorf("node %d with %v: %s with %d bytes from %q, want the origin's %d", n, header, res.Status, len(body), res.Header.Get("P2pnode-Source"), status)
	}
	if challenge := res.Header.Get("Www-Authenticate"); status == http.StatusUnauthorized && challenge != `Basic realm="vault"` {
		v.t.Errorf("challenge %q", challenge)
	}
}

// kind is a way to show credentials.
type kind struct {
	name   string
	status int // of a refusal
	// with returns the request for a path with a credential, "" for none.
	with func(base, credential string) (string, http.Header)
}

func kinds() []kind {
	field := func(name string) func(base, credential string) (string, http.Header) {
		return func(base, credential string) (string, http.Header) {
			if credential == "" {
				return base, nil
			}
			return base, http.Header{name: {credential}}
		}
	}
	return []kind{
		{"authorization", http.StatusUnauthorized, field("Authorization")},
		{"cookie", http.StatusUnauthorized, field("Cookie")},
		{"signed", http.StatusForbidden, func(base, credential string) (string, http.Header) {
			if credential == "" {
				return base, nil
			}
			return base + "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=1&X-Amz-Signature=" + credential, nil
		}},
	}
}

// TestPrivate: what the origin gives only to who has credentials is served from
// the swarm to these alone, by every node, whether it holds the file or not; a
// credential that has expired is not one, and one that is revoked is none soon.
// The file leaves the origin once.
func TestPrivate(t *testing.T) {
	const life = 4 * time.Second
	v := newVault(t, func(c *node.Config) { c.GrantLife = life })
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			v.t = t
			path := "/" + k.name
			data := p2ptest.Bytes(7, 3<<20+17)
			base := v.put(path, data)
			v.allow(true, k.name+"-ann", k.name+"-bob")
			refusals := func(when string) {
				for n := range v.nodes {
					for _, credential := range []string{"", "wrong", k.name + "-expired"} {
						address, header := k.with(base, credential)
						t.Log(when, n, credential)
						v.wantRefused(n, address, header, k.status)
					}
				}
			}
			refusals("cold")
			if got := v.origin.Bytes(path); got != 0 {
				t.Errorf("%d bytes left the origin for nobody", got)
			}
			for _, credential := range []string{"ann", "bob"} {
				for n := len(v.nodes) - 1; n >= 0; n-- { // readers first
					address, header := k.with(base, k.name+"-"+credential)
					v.wantFile(n, address, header, data)
				}
			}
			refusals("warm")
			v.wantOnce(path, data)
			v.allow(false, k.name+"-ann")
			for n := range v.nodes {
				address, header := k.with(base, k.name+"-ann")
				p2ptest.Eventually(t, 30*time.Second, func() bool {
					res, _ := askProxy(t, v.nodes[n], address, header)
					return res.StatusCode == k.status
				}, "a revoked credential is refused")
				address, header = k.with(base, k.name+"-bob")
				v.wantFile(n, address, header, data)
			}
			v.wantOnce(path, data)
		})
	}
}

// TestPublicWithCredentials: what the origin gives to anybody needs no grant: who
// has credentials is served too, and nobody is told of them.
func TestPublicWithCredentials(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(3, 2<<20)
	base := v.put("/public", data)
	for n := range v.nodes {
		v.wantFile(n, base, http.Header{"Authorization": {"Bearer any"}}, data)
		v.wantFile(n, base, nil, data)
		v.wantFile(n, base+"?X-Amz-Signature=any", nil, data)
	}
	v.wantOnce("/public", data)
	for _, h := range v.origin.Hits("/public") {
		if h.Method == http.MethodGet && h.Header.Get("Authorization") != "" {
			t.Error("a fill was sent with somebody's credentials")
		}
	}
}

// TestPrivateTwenty: of twenty clients at once, on all nodes, with a token of
// their own each, one of them bad, nineteen get the file, which leaves the origin
// once but for a block, and one the origin's refusal. What the origin gives to who
// has none is asked once, not by each.
func TestPrivateTwenty(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(5, 5<<20+3)
	address := v.put("/file", data)
	for i := range 20 {
		v.allow(i != 7, fmt.Sprint("Bearer ", i))
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			res, body, err := tryAsk(t.Context(), v.nodes[i%len(v.nodes)], address, http.Header{"Authorization": {fmt.Sprint("Bearer ", i)}})
			switch {
			case err != nil:
				t.Errorf("client %d: %v", i, err)
			case i == 7 && (res.StatusCode != http.StatusUnauthorized || len(body) > 100):
				t.Errorf("the client with the bad token: %s with %d bytes", res.Status, len(body))
			case i != 7 && (res.StatusCode != http.StatusOK || !bytes.Equal(body, data) || res.Header.Get("P2pnode-Source") == ""):
				t.Errorf("client %d: %s with %d bytes from %q", i, res.Status, len(body), res.Header.Get("P2pnode-Source"))
			}
		})
	}
	wg.Wait()
	for i := range 5 {
		v.allow(true, fmt.Sprint("later ", i))
		v.wantFile(len(v.nodes)-1, address, http.Header{"Authorization": {fmt.Sprint("later ", i)}}, data)
	}
	without := 0
	for _, h := range v.origin.Hits("/file") {
		if h.Header.Get("Authorization") == "" {
			without++
		}
	}
	if without > seeds { // one of each that is asked, at most
		t.Errorf("%d requests without credentials", without)
	}
	// A seed that says nothing for so long that it is taken for dead may cost a block;
	// a machine with more to do than it can brings that about.
	silent := v.metric("p2pnode_rangeread_client_silent_total")
	if got, size := v.origin.Bytes("/file"), int64(len(data)); got < size || got > size+silent*content.BlockSize {
		t.Errorf("%d bytes of %d left the origin, %d sources were silent", got, size, silent)
		for _, h := range v.origin.Hits("/file") {
			t.Logf("%+v", h)
		}
	}
}
