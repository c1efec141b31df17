package proxy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

// FuzzTarget: whatever a client writes as its target, what is asked for is the
// host that was judged.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"/url/https://example.org/x?y=z", "/url/https:/example.org//x", "http://example.org:8080/a%2fb", "http://a@b/", "/v2/x/manifests/y?ns=docker.io",
		"*", "/", "http://[::1]:80/", "http://[::0]:81/", "/url/file:///etc/passwd", "example.org:443",
	} {
		f.Add(s)
	}
	m := newMirror(Config{})
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		r := &http.Request{Method: http.MethodGet, RequestURI: uri, URL: u}
		if _, err := m.parse(r); err != nil && !errors.Is(err, content.ErrURL) && !errors.Is(err, errNoRegistryPath) {
			t.Errorf("mirror: %v", err)
		}
		if addr, err := tunnelAddr(uri); err == nil && (strings.ContainsAny(addr, "/@?# ") || !strings.Contains(addr, ":")) {
			t.Errorf("CONNECT to %q goes to %q", uri, addr)
		}
		got, err := parseTarget(r)
		if err != nil || got.url == nil {
			return
		}
		task, err := content.NewTask(got.raw, content.Filter{})
		if err != nil {
			return
		}
		if want, err := url.Parse(task.URL); err != nil || !sameHost(want.Hostname(), got.url.Hostname()) && isASCII(got.url.Hostname()) && !strings.Contains(got.raw, "%") {
			t.Errorf("%q is judged as %s and asked of %s: %v", uri, task.URL, got.url.Host, err)
		}
	})
}

// FuzzConnect: whatever a CONNECT request looks like, it reaches no host that a
// rule blocks, nor this node itself, however these are spelt, and what is dialled is
// a host and a port.
func FuzzConnect(f *testing.F) {
	for _, s := range []string{
		"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", "CONNECT BLOCKED.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\nearly",
		"CONNECT blocked.test.:443 HTTP/1.0\r\n\r\n", "CONNECT NODE.test:65001 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT [::1]:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT http://blocked.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT /blocked.test:443 HTTP/1.1\r\nHost: blocked.test:443\r\n\r\n",
		"CONNECT a:443@blocked.test:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "CONNECT 127.1:80 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT a.test:0/x HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT a.test/x:443 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT a.test#x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT bl\u24DEcked.test:0443 HTTP/1.1\r\nHost: x\r\nVia: 1.1 me\r\n\r\n",
	} {
		f.Add(s)
	}
	rules, err := NewRules([]Rule{{Hosts: []string{"blocked.test"}, Action: ActionBlock}})
	if err != nil {
		f.Fatal(err)
	}
	var dialled []string
	dial := func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled = append(dialled, addr)
		return nil, ErrForbidden
	}
	h := New(Config{
		Opener: &fakeSwarm{openErr: ErrPassThrough}, Rules: rules, Name: "me", DialLocal: dial, DialRemote: dial,
		Self: func(hostport string) bool { return hostport == "node.test:65001" },
	})
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil || r.Method != http.MethodConnect {
			return
		}
		dialled = nil
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 400 {
			t.Errorf("answered %d without a connection", w.Code)
		}
		for _, addr := range dialled {
			if strings.ContainsAny(r.RequestURI, "/?#@") {
				t.Errorf("dials %q for %q, which is no authority", addr, raw)
			}
			host, port, err := net.SplitHostPort(addr)
			n, err2 := strconv.ParseUint(port, 10, 16)
			if err != nil || err2 != nil || n == 0 || host == "" || strings.ContainsAny(host, "/@?#% ") || !isASCII(host) ||
				strings.TrimSuffix(strings.ToLower(host), ".") == "blocked.test" || strings.EqualFold(addr, "node.test:65001") {
				t.Errorf("dials %q for %q", addr, raw)
			}
		}
	})
}

// sameHost reports whether two spellings are of one name or address.
func sameHost(a, b string) bool {
	x, err := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return strings.EqualFold(a, b) || err == nil && err2 == nil && x == y
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// FuzzLink: whatever a registry's Link field holds, its links are all found and
// lead where mirrorReference says, and all else stays as it is.
func FuzzLink(f *testing.F) {
	for _, s := range []string{
		`</v2/b>; rel="next"`, `</v2/b>;rel=next,</v2/c>;rel=last`, ` , </v2/b>; title="x, <y>" ,, <c,d>`, `</v2/b>; title="\", </v2/x>", <https://o/>, </v2/c>`,
		`</v2/b>,</v2/c`, `</v2/b>,x,</v2/c>`, `<>`, `<<>>,<>>`, `, `, `</v2/b>; a="\`, "<//o.test/x>,\t<?ns=o.test>",
	} {
		f.Add(s)
	}
	base, err := url.Parse("https://r.test/v2/a/tags/list?n=1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, field string) {
		var references []string
		if got := rewriteLinks(field, func(ref string) string {
			references = append(references, ref)
			return ref
		}); got != field {
			t.Errorf("%q becomes %q, where nothing is replaced", field, got)
		}
		var again []string
		written := rewriteLinks(field, func(ref string) string { return mirrorReference(base, ref, "r.test") })
		rewriteLinks(written, func(ref string) string {
			again = append(again, ref)
			return ref
		})
		if len(again) != len(references) {
			t.Fatalf("%q has %d links, %q has %d", field, len(references), written, len(again))
		}
		for i, ref := range references {
			if want := mirrorReference(base, ref, "r.test"); again[i] != want || !strings.Contains(field, "<"+ref+">") {
				t.Errorf("link %q of %q becomes %q, want %q", ref, field, again[i], want)
			}
			to, err := url.Parse(again[i])
			if err == nil && !to.IsAbs() && to.Host == "" && to.User == nil && (!strings.HasPrefix(to.Path, "/v2/") || to.Query().Get("ns") != "r.test") {
				t.Errorf("link %q of %q leads to %q of another registry", ref, field, again[i])
			}
		}
	})
}

// FuzzReferences: whatever an origin refers to, by Location or Link, what a client
// is told of it is what the origin meant: by the gateway or at the origin itself,
// never another host, and never with credentials at one.
func FuzzReferences(f *testing.F) {
	for _, s := range []string{
		"/x", "x?y#z", "//other.test/x", "https://other.test/a%2fb", "https://u:p@other.test/", "javascript:alert(1)", "///other.test/x", `\\other.test`, "?q", "",
		"/v2/a/blobs/uploads/1?state=x", "../../url/https://other.test/", "http:/other.test", "/v2//other.test/", "%2f%2fother.test", "//u:p@/x", "//u:\x86://u:\x86@other.test/", "/v2/x?ns=other.test", "?%6es=other.test;",
	} {
		f.Add(s, "/v2/a/tags/list?n=1", true)
		f.Add(s, "/a|b", false)
	}
	f.Fuzz(func(t *testing.T, reference, path string, credentials bool) {
		base, err := newTarget(faceGateway, "https://origin.test/"+strings.TrimPrefix(path, "/"))
		if err != nil || base.url.Host != "origin.test" {
			return
		}
		ref, err := url.Parse(reference)
		if err != nil || ref.IsAbs() || ref.Host != "" || ref.User != nil {
			if got := mirrorReference(base.url, reference, "origin.test"); got != reference {
				t.Errorf("mirror: %q becomes %q", reference, got)
			}
		} else if got, err := url.Parse(mirrorReference(base.url, reference, "origin.test")); err != nil ||
			got.Host != "origin.test" && (got.Host != "" || got.IsAbs() || !strings.HasPrefix(got.Path, "/v2/") || got.Query().Get("ns") != "origin.test") {
			t.Errorf("mirror: %q leads to %v: %v", reference, got, err)
		}
		got := gatewayLocation(base.url, reference, credentials)
		raw, ok := strings.CutPrefix(got, gatewayPrefix)
		if got == reference || !ok {
			return
		}
		plain := *base.url
		plain.Opaque = ""
		want := plain.ResolveReference(ref)
		to, err := url.Parse(raw)
		if err != nil || !isASCII(want.Host) {
			return // it leads nowhere: the gateway takes no such target
		}
		if !strings.EqualFold(to.Host, want.Host) || !strings.EqualFold(to.Scheme, want.Scheme) || to.User != nil || credentials && !strings.EqualFold(to.Host, "origin.test") {
			t.Errorf("gateway: %q at %s becomes %q: %v", reference, base.raw, got, err)
		}
	})
}
