package proxy

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
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
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// fakeRegistry is a registry with one repository a/b, whose tag v1 is a
// manifest. Where private it wants a token: "Bearer secret", or "Bearer anybody",
// which /token gives, unless strict.
type fakeRegistry struct {
	*httptest.Server
	manifest, digest string

	mu sync.Mutex
	// mu guards the following.
	private, strict bool
	status          int // answered in place of all, 0 for none
	asked           []string
}

func newFakeRegistry(t *testing.T) *fakeRegistry {
	f := &fakeRegistry{manifest: `{"schemaVersion":2}`}
	f.digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(f.manifest)))
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRegistry) ns() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fakeRegistry) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.asked = nil
}

func (f *fakeRegistry) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.asked, want) {
		t.Errorf("the registry was asked %q, want %q", f.asked, want)
	}
	f.asked = nil
}

func (f *fakeRegistry) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	authorization := r.Header.Get("Authorization")
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+authorization))
	if f.status != 0 {
		w.WriteHeader(f.status)
		return
	}
	if r.URL.Path == "/token" {
		_, _ = io.WriteString(w, `{"token":"anybody"}`)
		return
	}
	if f.private && authorization != "Bearer secret" && (f.strict || authorization != "Bearer anybody") {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="s",scope="repository:a/b:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	switch r.URL.Path {
	case "/v2/a/b/manifests/v1", "/v2/a/b/manifests/" + f.digest:
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", f.digest)
		w.Header().Set("Cache-Control", "max-age=7")
		_, _ = io.WriteString(w, f.manifest)
	case "/v2/a/b/tags/list":
		w.Header().Add("Link", `</v2/a/b/tags/list?last=v1&n=1>; rel="next", </v2/a/b/tags/list?n=1>; rel="first"`)
		w.Header().Add("Link", `<list?n=1&last=z>; rel="last"`)
		_, _ = io.WriteString(w, `{"tags":["v1"]}`)
	case "/v2/a/b/referrers/" + f.digest:
		http.Redirect(w, r, "/v2/a/b/tags/list", http.StatusFound)
	default:
		http.NotFound(w, r)
	}
}

// ask sends a request to the mirror itself, and returns the answer.
func (n *node) ask(t *testing.T, method, path string, pairs ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header(pairs...)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// wantError checks that an answer is an error as registries' clients read it.
func wantError(t *testing.T, res *http.Response, body string, status int, code string) {
	t.Helper()
	var e struct {
		Errors []struct{ Code, Message string }
	}
	err := json.Unmarshal([]byte(body), &e)
	if res.StatusCode != status || err != nil || len(e.Errors) != 1 || e.Errors[0].Code != code || e.Errors[0].Message == "" {
		t.Errorf("%s %s, want %d %s", res.Status, body, status, code)
	}
	wantHeader(t, res.Header, "Content-Type", "application/json")
}

func TestMirrorBlob(t *testing.T) {
	f := newFakeRegistry(t)
	swarm := newFakeSwarm(1000)
	n := startNode(t, Config{Opener: swarm})
	digest := "sha512:" + strings.Repeat("ab", 64)
	res, _ := n.ask(t, http.MethodGet, "/v2/a/b/blobs/"+digest+"?ns="+f.ns())
	wantHeader(t, res.Header, "Docker-Content-Digest", digest)
	if asked := swarm.requests(); len(asked) != 1 || asked[0].Task.Digest != digest {
		t.Fatalf("the swarm was asked %+v", asked)
	}
	swarm = newFakeSwarm(1000)
	n = startNode(t, Config{Opener: swarm})
	digest = "sha256:" + strings.Repeat("ab", 32)
	path := "/v2/a/b/blobs/" + digest + "?ns=" + f.ns()
	for _, pairs := range [][]string{nil, {"Authorization", "Bearer secret"}} {
		res, body := n.ask(t, http.MethodGet, path, pairs...)
		wantStatus(t, res, 200)
		wantBody(t, []byte(body), swarm.data)
		wantHeader(t, res.Header, "Docker-Content-Digest", digest)
		wantHeader(t, res.Header, "Docker-Distribution-Api-Version", "registry/2.0")
		wantHeader(t, res.Header, "P2pnode-Source", "peer")
	}
	res, body := n.ask(t, http.MethodGet, path, "Range", "bytes=10-19")
	wantStatus(t, res, 206)
	wantBody(t, []byte(body), swarm.data[10:20])
	res, _ = n.ask(t, http.MethodGet, path, "Range", "bytes=5000-")
	wantStatus(t, res, 416)
	res, body = n.ask(t, http.MethodHead, path)
	wantStatus(t, res, 200)
	if body != "" || res.ContentLength != 1000 {
		t.Errorf("HEAD: %d bytes of body, length %d", len(body), res.ContentLength)
	}
	f.wantAsked(t)
	for _, r := range swarm.requests() {
		if r.URL != f.URL+"/v2/a/b/blobs/"+digest || r.Task.Digest != digest || !r.Local {
			t.Errorf("the swarm was asked %+v", r)
		}
	}
}

// What the registry gives neither to anybody nor for the client's credentials, as
// the swarm has found, is not asked of it again for a while, and passes through
// uncached: the client gets the registry's own answer.
func TestMirrorPrivate(t *testing.T) {
	f := newFakeRegistry(t)
	f.private, f.strict = true, true
	swarm := newFakeSwarm(1000)
	swarm.openErr = &OriginError{Status: http.StatusUnauthorized}
	now := time.Now()
	n := startNode(t, Config{Opener: swarm, Now: func() time.Time { return now }})
	path := "/v2/a/b/manifests/" + f.digest + "?ns=" + f.ns()
	up := "/v2/a/b/manifests/" + f.digest
	for range 2 {
		res, body := n.ask(t, http.MethodGet, path, "Authorization", "Bearer secret")
		wantStatus(t, res, 200)
		if body != f.manifest || res.Header.Get("P2pnode-Source") != "" || len(res.Header.Values("Docker-Content-Digest")) != 1 ||
			len(res.Header.Values("Docker-Distribution-Api-Version")) != 1 {
			t.Errorf("got %q with %q", body, res.Header)
		}
		f.wantAsked(t, "GET "+up+" Bearer secret")
	}
	if n := len(swarm.requests()); n != 2 { // without credentials, and with them
		t.Errorf("the swarm was asked %d times for a repository that refused it", n)
	}
	res, _ := n.ask(t, http.MethodGet, path)
	wantStatus(t, res, 401)
	if !strings.Contains(res.Header.Get("Www-Authenticate"), `scope="repository:a/b:pull"`) {
		t.Errorf("challenge %q", res.Header.Get("Www-Authenticate"))
	}
	f.wantAsked(t, "GET "+up, "GET /token?scope=repository%3Aa%2Fb%3Apull&service=s", "GET "+up+" Bearer anybody")
	now = now.Add(passMemory)
	n.ask(t, http.MethodGet, path, "Authorization", "Bearer secret")
	if n := len(swarm.requests()); n != 4 {
		t.Errorf("the swarm was asked %d times in all, want twice more after %s", n, passMemory)
	}
	for i, r := range swarm.requests() {
		if got := r.Credentials.Get("Authorization"); (got == "Bearer secret") != (i%2 == 1) {
			t.Errorf("request %d to the swarm had credentials %q", i, got)
		}
	}
}

// A registry that wants a token of anybody is read without one.
func TestMirrorAnonymousToken(t *testing.T) {
	f := newFakeRegistry(t)
	f.private = true
	n := startNode(t, Config{})
	path := "/v2/a/b/tags/list?ns=" + f.ns()
	for range 2 {
		res, body := n.ask(t, http.MethodGet, path)
		wantStatus(t, res, 200)
		if body != `{"tags":["v1"]}` {
			t.Errorf("got %q", body)
		}
	}
	list := "GET /v2/a/b/tags/list"
	f.wantAsked(t, list, "GET /token?scope=repository%3Aa%2Fb%3Apull&service=s", list+" Bearer anybody", list+" Bearer anybody")
	f.set(func() { f.strict = true })
	res, _ := n.ask(t, http.MethodGet, path)
	wantStatus(t, res, 401)
}

func TestMirrorTag(t *testing.T) {
	f := newFakeRegistry(t)
	swarm := newFakeSwarm(1000)
	n := startNode(t, Config{Opener: swarm})
	path := "/v2/a/b/manifests/v1?ns=" + f.ns()
	up := "HEAD /v2/a/b/manifests/v1"

	res, body := n.ask(t, http.MethodGet, path, "Accept", manifestType)
	wantStatus(t, res, 200)
	wantBody(t, []byte(body), swarm.data)
	f.wantAsked(t, up)
	if got := swarm.requests(); len(got) != 1 || got[0].URL != f.URL+"/v2/a/b/manifests/"+f.digest {
		t.Errorf("the swarm was asked %+v", got)
	}
	// The tag's own freshness, not that of the digest's content.
	wantHeader(t, res.Header, "Cache-Control", "max-age=7")
	wantHeader(t, res.Header, "Age", "")
	wantHeader(t, res.Header, "Docker-Content-Digest", f.digest)

	res, _ = n.ask(t, http.MethodHead, path, "Accept", manifestType)
	wantStatus(t, res, 200)
	wantHeader(t, res.Header, "Docker-Content-Digest", f.digest)
	wantHeader(t, res.Header, "Content-Type", manifestType)
	f.wantAsked(t, up)

	res, _ = n.ask(t, http.MethodGet, strings.Replace(path, "v1", "v2", 1))
	wantStatus(t, res, 404)
	f.wantAsked(t, "HEAD /v2/a/b/manifests/v2", "GET /v2/a/b/manifests/v2")
}

// With the registry out of reach anonymous clients get what the tag last was,
// those with credentials, whose rights nobody can check, an error.
func TestMirrorTagStale(t *testing.T) {
	for name, down := range map[string]func(*fakeRegistry){
		"dead":        func(f *fakeRegistry) { f.Close() },
		"failing":     func(f *fakeRegistry) { f.set(func() { f.status = 500 }) },
		"over limits": func(f *fakeRegistry) { f.set(func() { f.status = 429 }) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeRegistry(t)
			swarm := newFakeSwarm(1000)
			n := startNode(t, Config{Opener: swarm})
			path := "/v2/a/b/manifests/v1?ns=" + f.ns()
			n.ask(t, http.MethodHead, path, "Accept", manifestType)
			down(f)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				res, _ := n.ask(t, method, path, "Accept", manifestType)
				wantStatus(t, res, 200)
				wantHeader(t, res.Header, "Docker-Content-Digest", f.digest)
			}
			for what, pairs := range map[string][]string{
				"credentials":  {"Accept", manifestType, "Authorization", "Bearer secret"},
				"another type": {"Accept", "text/plain"},
			} {
				if res, _ := n.ask(t, http.MethodGet, path, pairs...); res.StatusCode < 400 {
					t.Errorf("with %s: %s", what, res.Status)
				}
			}
		})
	}
}

func TestMirrorReferencesStay(t *testing.T) {
	f := newFakeRegistry(t)
	n := startNode(t, Config{})
	res, _ := n.ask(t, http.MethodGet, "/v2/a/b/tags/list?n=1&ns="+f.ns())
	escaped := strings.Replace(f.ns(), ":", "%3A", 1)
	list := "</v2/a/b/tags/list?ns=" + escaped
	want := []string{list + `&last=v1&n=1>; rel="next", ` + list + `&n=1>; rel="first"`, list + `&n=1&last=z>; rel="last"`}
	if got := res.Header.Values("Link"); !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}
	f.wantAsked(t, "GET /v2/a/b/tags/list?n=1")
	res, _ = n.ask(t, http.MethodGet, "/v2/a/b/referrers/"+f.digest+"?ns="+f.ns())
	wantStatus(t, res, 302)
	wantHeader(t, res.Header, "Location", "/v2/a/b/tags/list?ns="+escaped)
}

// Every link of a field stays on the mirror, whatever is written between them.
func TestRewriteLinks(t *testing.T) {
	base, err := url.Parse("https://r.test/v2/a/tags/list?n=1")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		`</v2/b>; rel="next"`:                                 `</v2/b?ns=r.test>; rel="next"`,
		`</v2/b>;rel=next,</v2/c>;rel=last`:                   `</v2/b?ns=r.test>;rel=next,</v2/c?ns=r.test>;rel=last`,
		` , </v2/b>; title="x, <y>" ,, <c,d>`:                 ` , </v2/b?ns=r.test>; title="x, <y>" ,, </v2/a/tags/c,d?ns=r.test>`,
		`</v2/b>; title="\", </v2/x>", <https://o/>, </v2/c>`: `</v2/b?ns=r.test>; title="\", </v2/x>", <https://o/>, </v2/c?ns=r.test>`,
		`</v2/b>,</v2/c`:                                      `</v2/b?ns=r.test>,</v2/c`,
		`</v2/b>,x,</v2/c>`:                                   `</v2/b?ns=r.test>,x,</v2/c?ns=r.test>`,
		`</v2/b>; a="`:                                        `</v2/b?ns=r.test>; a="`,
		`x</v2/b>`:                                            `x</v2/b>`,
		`<>`:                                                  `</v2/a/tags/list?ns=r.test&n=1>`,
		`, `:                                                  `, `,
		``:                                                    ``,
	} {
		if got := rewriteLinks(field, func(ref string) string { return mirrorReference(base, ref, "r.test") }); got != want {
			t.Errorf("%s becomes %s, want %s", field, got, want)
		}
	}
}

func TestMirrorErrors(t *testing.T) {
	f := newFakeRegistry(t)
	swarm := newFakeSwarm(10)
	swarm.openErr = ErrUnavailable
	n := startNode(t, Config{Opener: swarm})
	digest := "sha256:" + strings.Repeat("ab", 32)
	ns := "?ns=" + f.ns()
	res, body := n.ask(t, http.MethodGet, "/v2/a/b/blobs/"+digest+ns)
	wantError(t, res, body, 502, "UNAVAILABLE")
	res, body = n.ask(t, http.MethodGet, "/v2/NO/manifests/x"+ns)
	wantError(t, res, body, 404, "NAME_UNKNOWN")
	res, body = n.ask(t, http.MethodPut, "/v2/a/b/manifests/x"+ns)
	wantError(t, res, body, 405, "UNSUPPORTED")
	res, body = n.ask(t, http.MethodGet, "/v2/a/b/manifests/x?ns=u:p@host")
	wantError(t, res, body, 400, "NAME_INVALID")
	res, body = n.ask(t, http.MethodGet, "/v2/a/b/manifests/x?ns="+n.addr)
	wantError(t, res, body, 508, "UNKNOWN")
	res, body = n.ask(t, http.MethodGet, "/v2/a/b/manifests/x"+ns, "Sec-Fetch-Site", "cross-site")
	wantError(t, res, body, 403, "DENIED")
	// A page that gave the node's address out as its own gets what strangers get.
	res, body = n.raw(t, http.MethodGet, "GET /v2/a/b/manifests/x"+ns+" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
	wantError(t, res, body, 403, "DENIED")
	f.wantAsked(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	res, body = n.ask(t, http.MethodGet, "/v2/a/b/manifests/x?ns="+l.Addr().String())
	wantError(t, res, body, 502, "UNAVAILABLE")
	res, body = n.ask(t, http.MethodGet, "/v2/")
	if res.StatusCode != 200 || body != "{}" {
		t.Errorf("the base: %s %q", res.Status, body)
	}
}

func TestMirrorParse(t *testing.T) {
	m := newMirror(Config{Registries: map[string]string{"alias": "http://10.0.0.1:5000", "quay.io": "https://quay.example"}})
	for uri, want := range map[string]string{
		"/v2/library/alpine/manifests/3?ns=docker.io":   "https://registry-1.docker.io/v2/library/alpine/manifests/3",
		"/v2/alpine/manifests/3":                        "https://registry-1.docker.io/v2/library/alpine/manifests/3",
		"/v2/a/b/manifests/3":                           "https://registry-1.docker.io/v2/a/b/manifests/3",
		"/v2/docker.io/alpine/manifests/3":              "https://registry-1.docker.io/v2/library/alpine/manifests/3",
		"/v2/ghcr.io/a/b/manifests/3":                   "https://ghcr.io/v2/a/b/manifests/3",
		"/v2/quay.io/a/b/manifests/3":                   "https://quay.example/v2/a/b/manifests/3",
		"/v2/alias/a/manifests/3":                       "http://10.0.0.1:5000/v2/a/manifests/3",
		"/v2/a/manifests/3?ns=alias":                    "http://10.0.0.1:5000/v2/a/manifests/3",
		"/v2/x.example/a/manifests/3?ns=y.example:5000": "https://y.example:5000/v2/x.example/a/manifests/3",
		"/v2/a/tags/list?n=5&ns=127.0.0.1:5000&last=b":  "http://127.0.0.1:5000/v2/a/tags/list?n=5&last=b",
		"/v2/a/tags/list?ns=localhost:443":              "https://localhost:443/v2/a/tags/list",
		"/v2/a/tags/list?ns=[::1]:5000":                 "http://[::1]:5000/v2/a/tags/list",
		"/v2/?ns=r.example":                             "https://r.example/v2/",
		"/v2/a/manifests/blake3%3A00?ns=r.example":      "https://r.example/v2/a/manifests/blake3:00",
	} {
		p, err := m.parse(httptest.NewRequest(http.MethodGet, uri, http.NoBody))
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		if got, err := p.target(p.Ref); err != nil || got.raw != want {
			t.Errorf("%s: %s, %v; want %s", uri, got.raw, err, want)
		}
	}
	for _, uri := range []string{"/v2/a/manifests/3?ns=a/b", "/v2/a/manifests/3?ns=:5000", "/v2/a/manifests/3?ns=a%3Fb", "/v2/x", "/v2/a/b/manifests/3?ns=%20"} {
		if p, err := m.parse(httptest.NewRequest(http.MethodGet, uri, http.NoBody)); err == nil {
			t.Errorf("%s is read as %+v", uri, p)
		}
	}
}

// The rules hold for the mirror as for the other faces.
func TestMirrorRules(t *testing.T) {
	f := newFakeRegistry(t)
	swarm := newFakeSwarm(1000)
	rules, err := NewRules([]Rule{
		{URL: "/a/b/blobs/", Action: ActionBlock}, {URL: "/a/b/manifests/", Action: ActionDirect},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, Config{Opener: swarm, Rules: rules})
	ns := "?ns=" + f.ns()
	res, body := n.ask(t, http.MethodGet, "/v2/a/b/blobs/sha256:"+strings.Repeat("ab", 32)+ns)
	wantError(t, res, body, 403, "DENIED")
	f.wantAsked(t)
	res, body = n.ask(t, http.MethodGet, "/v2/a/b/manifests/"+f.digest+ns)
	wantStatus(t, res, 200)
	if body != f.manifest || len(swarm.requests()) != 0 {
		t.Errorf("got %q, the swarm was asked %+v", body, swarm.requests())
	}
}

// A token is had where the client could go, on the host that he has named, and else
// where a remote client could.
func TestMirrorRealm(t *testing.T) {
	rules, err := NewRules([]Rule{{Hosts: []string{"blocked.test"}, Action: ActionBlock}})
	if err != nil {
		t.Fatal(err)
	}
	named, remote := answered{}, answered{&http.Response{}}
	h := New(Config{Rules: rules, DirectRemote: remote, Self: func(hostport string) bool { return hostport == "r.test:65001" }})
	defer h.closeIdle()
	a := anonymousTransport{h: h, base: named}
	for _, c := range []struct {
		from, realm string
		want        http.RoundTripper // nil: it is not asked for
	}{
		{"https://r.test/v2/a/tags/list", "https://r.test/token", named},
		{"https://r.test/v2/a/tags/list", "https://R.test:5001/token?x=y", named},
		{"https://r.test/v2/a/tags/list", "http://r.test/latest/meta-data/", remote},
		{"https://r.test/v2/a/tags/list", "https://auth.r.test/token", remote},
		{"https://r.test/v2/a/tags/list", "https://127.0.0.1/token", remote},
		{"https://r.test:65001/v2/a/tags/list", "https://r.test/token", named},
		{"https://r.test/v2/a/tags/list", "https://r.test:65001/token", nil},
		{"http://r.test:80/v2/a/tags/list", "http://r.test:65001/token", nil},
		{"https://r.test/v2/a/tags/list", "https://blocked.test/token", nil},
		{"https://r.test/v2/a/tags/list", "https://u:p@r.test/", nil},
		{"http://10.0.0.1:5000/v2/a/tags/list", "http://10.0.0.1:5001/token", named},
		{"http://10.0.0.1:5000/v2/a/tags/list", "https://10.0.0.1/token", named},
		{"http://10.0.0.1:5000/v2/a/tags/list", "http://10.0.0.11/token", remote},
		{"http://10.0.0.1:5000/v2/a/tags/list", "http://169.254.169.254/latest/", remote},
		{"http://localhost:5000/v2/a/tags/list", "http://127.0.0.1:5000/token", remote},
	} {
		from, err1 := url.Parse(c.from)
		realm, err2 := url.Parse(c.realm)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got, err := a.toRealm(from, realm); got != c.want || (err == nil) != (c.want != nil) {
			t.Errorf("%s, asked for by %s: by %+v, %v, want %+v", c.realm, c.from, got, err, c.want)
		}
	}
}

// What the swarm keeps of the registry's fields is not said twice.
func TestMirrorFieldsOnce(t *testing.T) {
	f := newFakeRegistry(t)
	swarm := newFakeSwarm(1000)
	fields := header("Docker-Content-Digest", f.digest, "Docker-Distribution-Api-Version", "registry/2.0", "X-Other", "y")
	var err error
	if swarm.meta.Fields, err = content.NewFields(func(yield func(string, string) bool) {
		for name, values := range fields {
			if !yield(name, values[0]) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, Config{Opener: swarm})
	res, _ := n.ask(t, http.MethodGet, "/v2/a/b/manifests/"+f.digest+"?ns="+f.ns())
	wantStatus(t, res, 200)
	for name, values := range fields {
		if !slices.Equal(res.Header.Values(name), values) {
			t.Errorf("%s: %q, want %q", name, res.Header.Values(name), values)
		}
	}
}
