package node_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node"
	"github.com/p2pnode/p2pnode/protocols/rangeread"
)

// TestPrivateRestart: what is held as private is private after a restart too, at
// seeds and holders; who has credentials is served what is held.
func TestPrivateRestart(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(21, 2<<20+9)
	address := v.put("/file", data)
	v.allow(true, "good")
	good := http.Header{"Authorization": {"good"}}
	for n := range v.nodes {
		v.wantFile(n, address, good, data)
	}
	for _, again := range v.again {
		again()
	}
	v.waitPool()
	thief := newOutsider(t, v)
	task, err := content.NewTask(address, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for n, from := range v.nodes {
		if got, h, err := thief.read(t, from, rangeread.Request{Task: task.ID, Range: content.Range{Len: 1}, NoFill: true}); rangeread.StatusOf(err) != rangeread.StatusGrant {
			t.Errorf("node %d, without a grant: %d bytes, %+v, %v", n, len(got), h, err)
		}
		v.wantRefused(n, address, nil, http.StatusUnauthorized)
		v.wantRefused(n, address, http.Header{"Authorization": {"wrong"}}, http.StatusUnauthorized)
	}
	for n := range v.nodes {
		v.wantFile(n, address, good, data)
	}
	v.wantOnce("/file", data)
}

// TestPrivateBecomesPublic: what a node holds as private it serves to everybody
// once it has gone stale and its origin gives it to everybody, without the origin.
func TestPrivateBecomesPublic(t *testing.T) {
	v := newVault(t, nil)
	data := p2ptest.Bytes(22, 1<<20+5)
	address := v.shortLived("/file", "1", data)
	v.allow(true, "good")
	for n := range v.nodes {
		v.wantFile(n, address, http.Header{"Authorization": {"good"}}, data)
	}
	v.allow(true, "")
	outlive(t)
	for n := range v.nodes {
		v.wantFile(n, address, nil, data)
	}
	v.wantOnce("/file", data)
}

// slowly starts a download through the last node of a file which takes some lives
// of a grant to come from its origin, and returns what came.
func (v *vault) slowly(path string, data []byte, midway func()) (*bytes.Buffer, error) {
	t := v.t
	t.Helper()
	address := v.put(path, data)
	v.allow(true, "good")
	v.origin.SetRate(len(data) / 10)
	defer v.origin.SetRate(0)
	proxy, err := url.Parse(v.nodes[len(v.nodes)-1].Info().Proxy)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "good")
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("P2pnode-Source") == "" {
		t.Fatalf("%s from %q", res.Status, res.Header.Get("P2pnode-Source"))
	}
	var got bytes.Buffer
	if _, err := io.CopyN(&got, res.Body, int64(len(data))/3); err != nil {
		t.Fatal(err)
	}
	midway()
	_, err = io.Copy(&got, res.Body)
	return &got, err
}

// TestGrantRenewed: a download that takes longer than a grant lives comes to its
// end where the credentials are good all the time. Where they are revoked it
// breaks off soon.
func TestGrantRenewed(t *testing.T) {
	const life = 4 * time.Second
	v := newVault(t, func(c *node.Config) { c.GrantLife = life })
	data := p2ptest.Bytes(23, 12<<20)
	start := time.Now()
	got, err := v.slowly("/slow", data, func() {})
	if took := time.Since(start); err != nil || !bytes.Equal(got.Bytes(), data) || took < 2*life {
		t.Errorf("good credentials: %d bytes of %d in %s, %v", got.Len(), len(data), took, err)
	}
	v.wantOnce("/slow", data)
	asked := 0
	for _, h := range v.origin.Hits("/slow") {
		if h.Method == http.MethodHead && h.Header.Get("Authorization") != "" {
			asked++
		}
	}
	if asked < 2 {
		t.Errorf("the origin was asked %d times whether the credentials are good", asked)
	}

	other := p2ptest.Bytes(24, 40<<20) // more than is asked for ahead
	got, err = v.slowly("/revoked", other, func() { v.allow(false, "good") })
	if err == nil || got.Len() >= len(other) || !bytes.Equal(got.Bytes(), other[:got.Len()]) {
		t.Errorf("revoked midway: %d bytes of %d, %v", got.Len(), len(other), err)
	}
}

// pull gets a blob of the mirror, with an Authorization or none.
func (v *vault) pull(url, credentials string) (int, []byte) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		v.t.Fatal(err)
	}
	if credentials != "" {
		req.Header.Set("Authorization", credentials)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, body
}

// TestMirrorUpstreams: what a registry gives to some is not given to others at the
// mirror on the word of another registry that has a blob of the same digest, or
// says that it has.
func TestMirrorUpstreams(t *testing.T) {
	data := p2ptest.Bytes(25, 1<<20+77)
	path := blobPath(data)
	demand := func(want string) func(*http.Request) p2ptest.Fault {
		return func(r *http.Request) p2ptest.Fault {
			if r.Header.Get("Authorization") == want {
				return p2ptest.Fault{}
			}
			return p2ptest.Fault{Status: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {`Basic realm="vault"`}}}
		}
	}
	closed, open, liar, thiefs := p2ptest.NewOrigin(t), p2ptest.NewOrigin(t), p2ptest.NewOrigin(t), p2ptest.NewOrigin(t)
	closed.SetFault(demand("good"))
	thiefs.SetFault(demand("mine"))
	for _, o := range []*p2ptest.Origin{closed, open, thiefs} {
		o.Put(path, p2ptest.Object{Data: data})
	}
	liar.Put(path, p2ptest.Object{Data: make([]byte, len(data))})
	v := newVault(t, func(c *node.Config) {
		c.Registries = []string{"closed.test=" + closed.URL, "open.test=" + open.URL, "liar.test=" + liar.URL, "thief.test=" + thiefs.URL}
	})
	pull := func(n int, registry, credentials string) (int, []byte) {
		return v.pull(v.nodes[n].Info().Proxy+path+"?ns="+registry, credentials)
	}
	want := func(what string, n int, registry, credentials string, status int) {
		t.Helper()
		got, body := pull(n, registry, credentials)
		if got != status || bytes.Equal(body, data) != (status == http.StatusOK) {
			t.Errorf("%s: node %d: %d, %d bytes", what, n, got, len(body))
		}
	}
	for n := range v.nodes {
		want("good credentials", n, "closed.test", "good", http.StatusOK)
	}
	if got := closed.Bytes(path); got != int64(len(data)) {
		t.Errorf("%d bytes of %d left the registry", got, len(data))
	}
	thief := newOutsider(t, v)
	task, err := content.NewTask(thiefs.URL+path, content.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	_, h, err := thief.read(t, v.nodes[0], rangeread.Request{Task: task.ID, Authorize: true, Origin: &rangeread.Origin{
		URL: thiefs.URL + path, Header: []rangeread.Field{{Name: "Authorization", Value: "mine"}}, Size: -1,
	}})
	if err != nil || len(h.Grant) == 0 {
		t.Fatalf("no grant for the thief's own registry: %+v, %v", h, err)
	}
	for n, from := range v.nodes {
		want("no credentials", n, "closed.test", "", http.StatusUnauthorized)
		want("another's credentials", n, "closed.test", "mine", http.StatusUnauthorized)
		want("an open registry", n, "open.test", "", http.StatusOK)
		want("the thief's registry", n, "thief.test", "mine", http.StatusOK)
		if _, body := pull(n, "liar.test", ""); bytes.Equal(body, data) {
			t.Errorf("node %d: the blob is served on a liar's word", n)
		}
		for _, o := range []*rangeread.Origin{nil, {URL: open.URL + path, Size: -1}, {URL: closed.URL + path, Size: -1}} {
			req := rangeread.Request{Task: task.ID, Range: content.Range{Len: 1 << 20}, Grant: h.Grant, NoFill: o == nil, Origin: o}
			if got, _, err := thief.read(t, from, req); err == nil && (o == nil || !strings.HasPrefix(o.URL, open.URL)) {
				t.Errorf("node %d: a grant from another registry brings %d bytes", n, len(got))
			}
		}
	}
	for n := range v.nodes {
		want("no credentials, later", n, "closed.test", "", http.StatusUnauthorized)
	}
}
