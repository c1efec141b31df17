package origin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// tokenRegistry serves a blob to those with the token that /token gives to
// anybody, and counts.
type tokenRegistry struct {
	url                    string
	realm                  string // in place of /token
	asked, refused, tokens atomic.Int64
	// revoked is the last of the tokens that are good no more.
	revoked atomic.Int64
}

func newTokenRegistry(t *testing.T) *tokenRegistry {
	s := &tokenRegistry{}
	blob := rangeServer(strings.Repeat(ten, 10))
	srv := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			n := s.tokens.Add(1)
			if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || r.URL.Query().Get("scope") != "repository:a:pull" {
				t.Errorf("the token's server was asked %s with %q", r.URL, r.Header)
			}
			fmt.Fprintf(w, `{"token":"anonymous-%d","expires_in":300}`, n)
			return
		}
		s.asked.Add(1)
		var n int64
		if _, err := fmt.Sscanf(r.Header.Get("Authorization"), "Bearer anonymous-%d", &n); err != nil || n <= s.revoked.Load() {
			s.refused.Add(1)
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.realm+`",service="s",scope="repository:a:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		blob(w, r)
	})
	s.url, s.realm = srv.URL, srv.URL+"/token"
	return s
}

func (s *tokenRegistry) request() Request {
	return Request{URL: s.url + "/v2/a/blobs/" + digest, Range: asked10, Digest: digest}
}

func (s *tokenRegistry) wantCounts(t *testing.T, asked, refused, tokens int64) {
	t.Helper()
	if s.asked.Load() != asked || s.refused.Load() != refused || s.tokens.Load() != tokens {
		t.Errorf("%d requests, %d refused, %d tokens; want %d, %d, %d", s.asked.Load(), s.refused.Load(), s.tokens.Load(), asked, refused, tokens)
	}
}

func wantTen(t *testing.T, c *Client, r Request) {
	t.Helper()
	resp, err := c.Get(deadline(t), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != ten || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAnonymousToken(t *testing.T) {
	s := newTokenRegistry(t)
	c := loopback(t, Config{})
	r := s.request()
	r.Header = http.Header{"Cookie": {"mine=1"}} // for the registry alone
	for range 3 {
		wantTen(t, c, r)
	}
	s.wantCounts(t, 4, 1, 1)
	s.revoked.Store(1) // it has ended before its time
	wantTen(t, c, s.request())
	s.wantCounts(t, 6, 2, 2)
}

// The token's server may be the registry itself, all of whose places are taken
// by those who wait for a token.
func TestAnonymousTokenOfOneOrigin(t *testing.T) {
	s := newTokenRegistry(t)
	c := loopback(t, Config{MaxConcurrent: 1})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { wantTen(t, c, s.request()) })
	}
	wg.Wait()
}

func TestNoAnonymousToken(t *testing.T) {
	for name, change := range map[string]func(*tokenRegistry, *Request){
		"not for a URL":              func(_ *tokenRegistry, r *Request) { r.Digest = "" },
		"not in place of another":    func(_ *tokenRegistry, r *Request) { r.Header = http.Header{"Authorization": {"Bearer mine"}} },
		"not of a forbidden address": func(s *tokenRegistry, _ *Request) { s.realm = "http://10.1.2.3/token" },
		"not of any scheme":          func(s *tokenRegistry, _ *Request) { s.realm = "file:///token" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTokenRegistry(t)
			r := s.request()
			change(s, &r)
			_, err := loopback(t, Config{}).Get(deadline(t), r)
			var status *StatusError
			if !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
				t.Errorf("got %v, want 401", err)
			}
			s.wantCounts(t, 1, 1, 0)
		})
	}
}

// A registry that refuses the token it gave is asked no more.
func TestAnonymousTokenRefused(t *testing.T) {
	s := newTokenRegistry(t)
	private := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.realm+`",scope="repository:a:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	r := s.request()
	r.URL = private.URL + "/v2/a/blobs/" + digest
	_, err := loopback(t, Config{}).Get(deadline(t), r)
	var status *StatusError
	if !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
		t.Errorf("got %v, want 401", err)
	}
	s.wantCounts(t, 2, 0, 1)
}

func TestAcceptOfManifests(t *testing.T) {
	var accept []string
	srv := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		accept = append(accept, r.Header.Get("Accept"))
		rangeServer(strings.Repeat(ten, 10))(w, r)
	})
	c := loopback(t, Config{})
	for _, path := range []string{"/v2/a/manifests/", "/v2/a/blobs/"} {
		wantTen(t, c, Request{URL: srv.URL + path + digest, Range: asked10, Digest: digest})
	}
	if len(accept) != 2 || !strings.Contains(accept[0], "vnd.oci.image.index.v1+json") || accept[1] != "*/*" {
		t.Errorf("accepted %q", accept)
	}
}
