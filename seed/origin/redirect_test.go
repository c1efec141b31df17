package origin

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func httpServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestDigestTaskFollowsRedirect(t *testing.T) {
	var there, here []string
	seen := func(r *http.Request) string {
		return r.Method + " " + r.URL.String() + " " + r.Header.Get("Range") + " auth=" + r.Header.Get("Authorization") + r.Header.Get("Cookie")
	}
	far := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		there = append(there, seen(r))
		rangeServer(strings.Repeat(ten, 10))(w, r)
	})
	near := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		here = append(here, seen(r))
		if r.URL.Path == "/first" {
			http.Redirect(w, r, "/second?x=1", http.StatusTemporaryRedirect)
			return
		}
		http.Redirect(w, r, strings.Replace(far.URL, "://", "://user:password@", 1)+"/blob?sig=1", http.StatusFound)
	})
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{
		URL: near.URL + "/first", Range: asked10, Digest: digest,
		Header: http.Header{"Authorization": {"Bearer t"}, "Cookie": {"c=d"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != ten || err != nil || resp.Range != asked10 {
		t.Errorf("got %q, %v for %v", got, err, resp.Range)
	}
	wantHere := "GET /first bytes=10-19 auth=Bearer tc=d, GET /second?x=1 bytes=10-19 auth=Bearer tc=d"
	wantThere := "GET /blob?sig=1 bytes=10-19 auth="
	if g := strings.Join(here, ", "); g != wantHere {
		t.Errorf("the first origin saw %q, want %q", g, wantHere)
	}
	if g := strings.Join(there, ", "); g != wantThere {
		t.Errorf("the second origin saw %q, want %q: credentials must not cross", g, wantThere)
	}
}

func TestDigestTaskRedirectToForbiddenTarget(t *testing.T) {
	for name, target := range map[string]string{
		"private address":  "http://10.1.2.3/x",
		"metadata address": "http://169.254.169.254/latest/meta-data/",
		"name of loopback": "http://localhost:1/x",
		"other scheme":     "file:///etc/passwd",
		"mapped address":   "http://[::ffff:10.1.2.3]/x",
	} {
		t.Run(name, func(t *testing.T) {
			srv := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", target)
				w.WriteHeader(http.StatusFound)
			})
			u, _ := url.Parse(srv.URL)
			policy, err := NewPolicy([]string{u.Hostname() + "/32"})
			if err != nil {
				t.Fatal(err)
			}
			if name == "name of loopback" { // reach the server itself by a name, so that no loopback address is allowed
				policy, _ = NewPolicy([]string{"LOCALHOST."})
				u.Host = "localhost:" + u.Port()
				target = srv.URL
			}
			_, err = loopback(t, Config{Policy: policy}).Get(deadline(t), Request{URL: u.String(), Digest: digest})
			if !errors.Is(err, ErrForbiddenTarget) || errors.Is(err, ErrUnreachable) {
				t.Errorf("got %v, want ErrForbiddenTarget", err)
			}
		})
	}
}

func TestDigestTaskRedirectLoop(t *testing.T) {
	n := 0
	srv := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, r.URL.Path+"x", http.StatusMovedPermanently)
	})
	_, err := loopback(t, Config{}).Get(deadline(t), Request{URL: srv.URL, Digest: digest})
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 301 || n != maxRedirects+1 {
		t.Errorf("got %v after %d requests", err, n)
	}
}

func TestDigestTaskRedirectNowhere(t *testing.T) {
	for name, header := range map[string]http.Header{
		"no Location":       {},
		"unusable Location": {"Location": {"http://[::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
				for k, v := range header {
					w.Header()[k] = v
				}
				w.WriteHeader(http.StatusFound)
			})
			_, err := loopback(t, Config{}).Get(deadline(t), Request{URL: srv.URL, Digest: digest})
			var status *StatusError
			if !errors.As(err, &status) || status.Status != 302 {
				t.Errorf("got %v, want a StatusError 302", err)
			}
		})
	}
}

func TestUpstreamProxy(t *testing.T) {
	var handedOn []string
	proxy := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		handedOn = append(handedOn, r.URL.String())
		rangeServer(strings.Repeat(ten, 10))(w, r)
	})
	proxyURL, _ := url.Parse(proxy.URL)
	policy, err := NewPolicy([]string{"files.example"})
	if err != nil {
		t.Fatal(err)
	}
	// The proxy stands on a loopback address, which the policy refuses to targets.
	c := loopback(t, Config{Policy: policy, Proxy: http.ProxyURL(proxyURL)})
	for target, ok := range map[string]bool{
		"http://files.example/a?b=c": true, // allowed by name: need not resolve here
		"http://8.8.8.8/public":      true,
		"http://10.0.0.1/x":          false,
		"http://localhost/x":         false,
		proxy.URL + "/x":             false,
		"http://no..such.name/x":     false, // does not resolve, so cannot be checked
	} {
		handedOn = nil
		resp, err := c.Get(deadline(t), Request{URL: target, Range: content.Range{Off: 10, Len: 10}})
		switch {
		case ok && err != nil:
			t.Errorf("%s: %v", target, err)
		case ok:
			resp.Body.Close()
			if len(handedOn) != 1 || handedOn[0] != target {
				t.Errorf("%s: the proxy was asked for %q", target, handedOn)
			}
		case !errors.Is(err, ErrForbiddenTarget) || len(handedOn) != 0:
			t.Errorf("%s: got %v, the proxy was asked for %q", target, err, handedOn)
		}
	}
	bad := loopback(t, Config{Proxy: func(*http.Request) (*url.URL, error) { return nil, errors.New("bad proxy variable") }})
	if _, err := bad.Get(deadline(t), Request{URL: "http://8.8.8.8/"}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("bad proxy: got %v", err)
	}
}
