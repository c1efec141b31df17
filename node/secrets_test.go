package node_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	pebbleds "github.com/ipfs/go-ds-pebble"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
)

// buffer is where logs go.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// gossip hears what a supernode publishes of assignments, as any member does.
func gossip(t *testing.T, h host.Host, swarm string) *buffer {
	t.Helper()
	ps, err := pubsub.NewGossipSub(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join("/p2pnode/" + swarm + "/assignments/1")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	heard := &buffer{}
	go func() {
		for {
			m, err := sub.Next(t.Context())
			if err != nil {
				return
			}
			_, _ = heard.Write(m.Data) // it never fails
		}
	}()
	return heard
}

// secret begins all secrets of TestSecretsStaySecret.
const secret = "hunter2-"

// TestSecretsStaySecret uses known credentials in every way, good and bad, at all
// nodes: of origins, of a registry, which gives a token of its own besides, and of
// the proxy. It looks for them in the logs at the finest level, the metrics, what
// the admin ports show (status, tasks, traces of goroutines), everything on the
// disks (records as they are read, blocks, the supernode's snapshot), what gossip
// published, and the texts of errors. The DHT has the names of files, as they are
// without secrets.
func TestSecretsStaySecret(t *testing.T) {
	logs := &buffer{}
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	super, stopSuper := startStoppable(t, node.Config{Logger: log})
	v := &vault{t: t, origin: p2ptest.NewOrigin(t), good: map[string]bool{}}
	v.origin.SetFault(v.check)
	registry := tokenRegistry(t)
	var stops []func()
	var dirs []string
	for i := range 2 * seeds {
		reg := prometheus.NewRegistry()
		cfg := node.Config{
			Seed: i < seeds, Supernodes: []string{super.Info().Supernode}, OriginAllow: []string{"127.0.0.0/8"}, Registries: []string{"registry.test=" + registry.URL},
			Registerer: reg, Gatherer: reg, Logger: log, Beat: 200 * time.Millisecond,
		}
		if i == 0 {
			cfg.Proxy, cfg.ProxyUsers = "0.0.0.0:0", proxyUsers(t, "ann", secret+"proxy")
		}
		n, stop := startStoppable(t, cfg)
		v.nodes, stops = append(v.nodes, n), append(stops, stop)
		dirs = append(dirs, n.DataDir())
	}
	v.waitPool()
	o := newOutsider(t, v)
	heard := gossip(t, o.host, node.DefaultSwarm)
	told := newDHTServer(t, o.host)

	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+secret+password))
	}
	v.allow(true, secret+"bearer", "session="+secret+"cookie", secret+"signature", basic("basic"))
	texts := &buffer{}
	data := p2ptest.Bytes(1, 2<<20)
	requests := map[string]http.Header{
		v.put("/bearer", data): {"Authorization": {secret + "bearer"}, "Proxy-Authorization": {basic("proxy")}},
		v.put("/basic", data):  {"Authorization": {basic("basic")}},
		v.put("/cookie", data): {"Cookie": {"session=" + secret + "cookie"}},
		v.put("/signed", data) + "?X-Amz-Credential=" + secret + "id&X-Amz-Signature=" + secret + "signature": nil,
	}
	for address, header := range requests {
		for n := range v.nodes {
			v.wantFile(n, address, header, data)
		}
		header.Del("Proxy-Authorization")
		fmt.Fprintln(texts, prefetched(t, v.nodes[seeds], "seeds", address, header).Error)
	}
	for _, h := range v.origin.Hits("/bearer") {
		if got := h.Header.Get("Proxy-Authorization"); got != "" {
			t.Errorf("the origin is shown the proxy's password: %s", got)
		}
	}
	blob := blobPath(data)
	registry.Put(blob, p2ptest.Object{Data: data})
	for _, n := range v.nodes {
		for _, path := range []string{blob, blobPath([]byte("none"))} {
			for _, credentials := range []string{"", "Bearer " + secret + "registry", "Bearer " + secret + "wrong"} {
				status, body := v.pull(n.Info().Proxy+path+"?ns=registry.test", credentials)
				if path == blob && !bytes.Equal(body, data) {
					t.Errorf("blob with %q: %d", credentials, status)
				}
				if path != blob {
					fmt.Fprintln(texts, status, string(body))
				}
			}
		}
	}
	bad := map[string]http.Header{
		v.origin.URL + "/bearer": {"Authorization": {secret + "wrong"}, "Proxy-Authorization": {basic("wrong")}},
		v.origin.URL + "/basic":  {"Authorization": {basic("wrong")}},
		v.origin.URL + "/cookie": {"Cookie": {secret + "wrong"}},
		v.origin.URL + "/signed?X-Amz-Signature=" + secret + "wrong":                                 nil,
		v.origin.URL + "/signed?X-Amz-Signature=" + percents(secret) + "wrong":                       nil,
		v.origin.URL + "/public?token=" + secret + "unknown":                                         nil,
		v.origin.URL + "/none?X-Amz-Signature=" + secret + "wrong":                                   nil,
		"http://127.0.0.1:1/refused?X-Amz-Signature=" + secret + "wrong":                             {"Authorization": {secret + "wrong"}},
		"http://10.255.255.1:1/forbidden?access_token=" + secret + "wrong":                           {"Cache-Control": {"only-if-cached"}},
		v.origin.URL + "/bearer?only&X-Amz-Signature=" + secret + "wrong&X-Amz-Date=" + secret + "d": {"Cache-Control": {"only-if-cached"}, "Authorization": {secret + "wrong"}},
	}
	for address, header := range bad {
		for _, n := range v.nodes {
			res, body := askProxy(t, n, address, header)
			fmt.Fprintln(texts, res.Status, res.Header, string(body))
			fmt.Fprintln(texts, gatewayText(t, n, address, header))
		}
		header.Del("Cache-Control")
		header.Del("Proxy-Authorization")
		fmt.Fprintln(texts, prefetched(t, v.nodes[seeds], "seeds", address, header).Error)
	}
	logIn(t, v.nodes[0], v.origin.Add("/public", data))
	p2ptest.Eventually(t, 30*time.Second, func() bool { return strings.Contains(heard.String(), "/signed") }, "the files are assigned")
	names := []string{registry.URL + blob}
	for _, path := range []string{"/bearer", "/basic", "/cookie", "/signed", "/public"} {
		names = append(names, v.origin.URL+path)
	}
	told.check(t, names)
	for _, n := range append(v.nodes, super) {
		for _, path := range []string{"/metrics", "/v1/status", "/v1/tasks", "/v1/seeds", "/v1/peers", "/debug/pprof/goroutine?debug=2"} {
			_, body := fetch(t, n.Info().Admin+path)
			fmt.Fprintln(texts, string(body))
		}
	}
	for _, stop := range append(stops, stopSuper) {
		stop()
	}
	places := map[string]string{"logs": logs.String(), "gossip": heard.String(), "texts and pages": texts.String()}
	for _, d := range append(dirs, super.DataDir()) {
		collect(t, d, places)
	}
	checkSecrets(t, places, secret)
	for place, part := range map[string]string{"logs": "request done", filepath.Join(dirs[0], "records"): "/bearer"} {
		if !strings.Contains(places[place], part) {
			t.Errorf("%s holds nothing of the requests: the test looks in the wrong place", place)
		}
	}
}

// TestJoinSecretStaysSecret: what an operator gives to a machine so that it joins
// stands nowhere afterwards, nor where it was refused.
func TestJoinSecretStaysSecret(t *testing.T) {
	logs := &buffer{}
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, other := newClosedSwarm(t), newClosedSwarm(t)
	once := s.secret(node.TokenConfig{Role: "seed", Uses: 1})
	reader, foreign := s.secret(node.TokenConfig{Role: "reader"}), other.secret(node.TokenConfig{Role: "seed"})
	texts := &buffer{}
	places := map[string]string{}
	origin := p2ptest.NewOrigin(t)
	body := p2ptest.Bytes(1, 1<<20)
	url := origin.Add("/file", body)
	var stops []func()
	var dirs []string
	for i, join := range []string{once, reader} {
		cfg := s.config(join)
		reg := prometheus.NewRegistry()
		cfg.Logger, cfg.Registerer, cfg.Gatherer = log, reg, reg
		n, stop := s.start(cfg)
		eventually(t, "the pool has a seed", func() bool { return len(n.ReadStatus().Pool) == 1 })
		fetched(t, n, url, body)
		for _, path := range []string{"/metrics", "/v1/status", "/v1/peers", "/debug/pprof/goroutine?debug=2"} {
			_, page := fetch(t, n.Info().Admin+path)
			fmt.Fprintln(texts, i, string(page))
		}
		stops, dirs = append(stops, stop), append(dirs, cfg.DataDir)
	}
	for _, join := range []string{once, foreign, once[:len(once)-2], once + "AA"} {
		cfg := s.config(join)
		cfg.Logger = log
		n, err := node.New(cfg)
		if err == nil {
			err = n.Run(t.Context())
		}
		if err == nil {
			t.Error("a secret that is used up, damaged or of another swarm is good")
		}
		fmt.Fprintln(texts, err)
		dirs = append(dirs, cfg.DataDir)
	}
	for _, stop := range stops {
		stop()
	}
	for _, d := range append(dirs, s.superDir) {
		if files, err := os.ReadDir(d); err != nil || len(files) > 0 {
			collect(t, d, places)
		}
	}
	places["logs"], places["texts and pages"] = logs.String(), texts.String()
	if !strings.Contains(places["logs"], "certificate") || !strings.Contains(places["texts and pages"], "damaged join secret") {
		t.Error("nothing is said of secrets: the test looks in the wrong place")
	}
	for _, join := range []string{once, reader, foreign} {
		coded := strings.TrimPrefix(join, "p2pnode-join-")
		raw, err := base64.RawURLEncoding.DecodeString(coded)
		if err != nil {
			t.Fatal(err)
		}
		key := string(raw[len(raw)-ed25519.SeedSize:]) // the rest is for all to see
		checkSecrets(t, places, key)
		checkSecrets(t, places, coded[len(coded)-40:])
	}
}

// tokenRegistry is an origin that wants a token, which it gives to anybody.
func tokenRegistry(t *testing.T) *p2ptest.Origin {
	t.Helper()
	o := p2ptest.NewOrigin(t)
	o.Put("/token", p2ptest.Object{Data: []byte(`{"token": "` + secret + `registry"}`)})
	o.SetFault(func(r *http.Request) p2ptest.Fault {
		if r.URL.Path == "/token" || r.Header.Get("Authorization") == "Bearer "+secret+"registry" {
			return p2ptest.Fault{}
		}
		return p2ptest.Fault{Status: http.StatusUnauthorized, Header: http.Header{
			"Www-Authenticate": {`Bearer realm="` + o.URL + `/token",service="registry.test",scope="repository:app:pull"`},
		}}
	})
	return o
}

// proxyUsers is a file with one user of the proxy.
func proxyUsers(t *testing.T, name, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(name+":"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// logIn uses the proxy from elsewhere, with the right password and a wrong one.
func logIn(t *testing.T, n *node.Node, address string) {
	t.Helper()
	host := otherAddress(t)
	if host == "" {
		t.Log("nobody logs in from elsewhere: this machine has no address but loopback")
		return
	}
	proxy, err := url.Parse(n.Info().Proxy)
	if err != nil {
		t.Fatal(err)
	}
	proxy.Host = net.JoinHostPort(host, proxy.Port())
	for password, want := range map[string]int{"proxy": http.StatusOK, "wrong": http.StatusProxyAuthRequired} {
		proxy.User = url.UserPassword("ann", secret+password)
		if got := through(t, proxy, nil, address); got != want {
			t.Errorf("proxy with password %q from elsewhere: %d, want %d", password, got, want)
		}
	}
}

// dhtServer is a server of the DHT that keeps what it is told.
type dhtServer struct {
	*dht.IpfsDHT
	store ds.Batching
}

func newDHTServer(t *testing.T, h host.Host) dhtServer {
	t.Helper()
	store := dssync.MutexWrap(ds.NewMapDatastore())
	d, err := dht.New(h, dht.ProtocolPrefix("/p2pnode"), dht.Mode(dht.ModeServer), dht.DisableValues(), dht.Datastore(store), dht.AddressFilter(nil),
		dht.QueryFilter(func(any, peer.AddrInfo) bool { return true }), dht.RoutingTableFilter(func(any, peer.ID) bool { return true }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return dhtServer{d, store}
}

// check wants all files found in the DHT by their names, and nothing else there.
func (d dhtServer) check(t *testing.T, names []string) {
	t.Helper()
	known := map[string]string{}
	for _, name := range names {
		task, err := content.NewTask(name, content.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		known[base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(task.ID.CID().Hash())] = name
		p2ptest.Eventually(t, 30*time.Second, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			found, err := d.FindProviders(ctx, task.ID.CID())
			return err == nil && len(found) > 0
		}, "the DHT knows who has ", name)
	}
	if err := d.Close(); err != nil { // which writes what it was told
		t.Fatal(err)
	}
	all, err := d.store.Query(t.Context(), query.Query{})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := all.Rest()
	if err != nil {
		t.Fatal(err)
	}
	providers := 0
	for _, e := range entries {
		part := strings.Split(e.Key, "/")
		if len(part) != 4 || part[1] != "providers" {
			t.Errorf("the DHT was told %q", e.Key)
			continue
		}
		if known[part[2]] == "" {
			t.Errorf("the DHT was told of a file whose name is none of those without secrets: %q", e.Key)
		}
		providers++
	}
	if providers == 0 {
		t.Error("nobody told the DHT anything: nothing was tested")
	}
}

// gatewayText is what the gateway says to a request.
func gatewayText(t *testing.T, n *node.Node, address string, header http.Header) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Info().Proxy+"/url/"+address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(res.Status, res.Header, body.String())
}

// collect reads everything below a directory, datastores also as they are read:
// in their files it is compressed.
func collect(t *testing.T, dir string, into map[string]string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "records" {
			into[path] = datastore(t, path)
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		into[path] = string(b)
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files below %s, %v", files, dir, err)
	}
}

// datastore returns all keys and values of a datastore that nobody has open.
func datastore(t *testing.T, dir string) string {
	t.Helper()
	db, err := pebbleds.NewDatastore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := db.Query(t.Context(), query.Query{})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := all.Rest()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		out.WriteString(e.Key + "\n")
		out.Write(e.Value)
		out.WriteString("\n")
	}
	return out.String()
}

// checkSecrets looks for a secret, as it is and as it may be written.
func checkSecrets(t *testing.T, places map[string]string, secret string) {
	t.Helper()
	exact, folded := spellings(secret)
	for place, text := range places {
		lower := lowered(text)
		at := -1
		for _, s := range exact {
			at = max(at, strings.Index(text, s))
		}
		for _, s := range folded {
			at = max(at, strings.Index(lower, s))
		}
		if at >= 0 {
			t.Errorf("%s: ...%.300q", place, text[max(0, at-200):])
		}
	}
}

// spellings returns how a secret may be written: exact as it is and in base64,
// wherever that begins, folded where case does not count, in lower case.
func spellings(secret string) (exact, folded []string) {
	for before := range 3 {
		text := []byte(strings.Repeat("x", before) + secret)
		from, to := (8*before+5)/6, 8*len(text)/6 // what is of the secret alone
		exact = append(exact, base64.StdEncoding.EncodeToString(text)[from:to], base64.URLEncoding.EncodeToString(text)[from:to])
	}
	return append(exact, secret), []string{lowered(secret), hex.EncodeToString([]byte(secret)), percents(secret), lowered(url.QueryEscape(secret))}
}

// lowered is strings.ToLower for text that may be no UTF-8.
func lowered(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// percents escapes every byte as URLs do, in lower case.
func percents(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		fmt.Fprintf(&out, "%%%02x", b)
	}
	return out.String()
}

// TestSpellings: what TestSecretsStaySecret would find.
func TestSpellings(t *testing.T) {
	for _, text := range []string{
		"ann:" + secret + "x", strings.ToUpper(secret), "%68%75%6E%74%65%72%32%2D", "68756E746572322d",
		base64.StdEncoding.EncodeToString([]byte("ann:" + secret + "x")), base64.RawURLEncoding.EncodeToString([]byte("bob:" + secret + "?>")),
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte("ab" + secret)),
	} {
		exact, folded := spellings(secret)
		if !slices.ContainsFunc(exact, func(s string) bool { return strings.Contains(text, s) }) &&
			!slices.ContainsFunc(folded, func(s string) bool { return strings.Contains(lowered(text), s) }) {
			t.Errorf("%s is not found", text)
		}
	}
}
