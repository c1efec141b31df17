package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestParseChallenge(t *testing.T) {
	hub := Challenge{"https://auth.docker.io/token", "registry.docker.io", "repository:library/alpine:pull"}
	for field, want := range map[string]Challenge{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"`:                       hub,
		`bearer  REALM = "https://auth.docker.io/token" , service=registry.docker.io,scope="repository:library/alpine:pull",error="x"`:          hub,
		`Basic realm="x, y=z", Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"`: hub,
		`Negotiate, Bearer realm="http://a/\"t"`: {Realm: `http://a/"t`},
		`Basic realm="https://a/"`:               {},
		`Bearer realm="ftp://a/"`:                {},
		`Bearer realm="/token"`:                  {},
		`Bearer realm="https://u:p@a/"`:          {},
		`Bearer`:                                 {},
		`Bearer realm`:                           {},
		`=,=,"`:                                  {},
		``:                                       {},
	} {
		got, ok := ParseChallenge(http.Header{"Www-Authenticate": {field}})
		if got != want || ok != (want != Challenge{}) {
			t.Errorf("%s: %+v %t, want %+v", field, got, ok, want)
		}
	}
}

// FuzzParseChallenge: what is found can be asked, and reading ends.
func FuzzParseChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s",scope="a b", Basic realm=x`)
	f.Add(`Basic dGVzdA==, Bearer realm="http://a"`)
	f.Fuzz(func(t *testing.T, field string) {
		c, ok := ParseChallenge(http.Header{"Www-Authenticate": {field}})
		if !ok {
			return
		}
		u := c.tokenURL()
		if u == nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			t.Errorf("%q gives %+v, which leads to %v", field, c, u)
		}
	})
}

// server answers like an authorization server and keeps the last URL.
type server struct {
	status int
	body   string
	err    error
	asked  []string
}

func (s *server) do(_ context.Context, u *url.URL) (*http.Response, error) {
	s.asked = append(s.asked, u.String())
	if s.err != nil {
		return nil, s.err
	}
	return &http.Response{StatusCode: s.status, Status: http.StatusText(s.status), Body: io.NopCloser(strings.NewReader(s.body))}, nil
}

func parse(t *testing.T, raw string) *url.URL {
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTokens(t *testing.T) {
	now := time.Unix(1000, 0)
	tokens := NewTokens(func() time.Time { return now })
	blob := parse(t, "https://r.example/v2/a/b/blobs/sha256:"+strings.Repeat("0", 64))
	manifest := parse(t, "https://r.example/v2/a/b/manifests/latest")
	s := &server{status: 200, body: `{"token":"one","expires_in":100}`}
	c := Challenge{"https://auth.example/token?x=1", "r.example", "repository:a/b:pull repository:c:pull"}
	if _, ok := tokens.Authorization(blob); ok {
		t.Error("a token from nowhere")
	}
	if got, err := tokens.Fetch(t.Context(), blob, c, s.do); got != "Bearer one" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	want := "https://auth.example/token?scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull&service=r.example&x=1"
	if len(s.asked) != 1 || s.asked[0] != want {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
	for raw, want := range map[string]bool{
		manifest.String():                       true,
		"https://r.example/v2/a/manifests/x":    false,
		"https://q.example/v2/a/b/manifests/x":  false,
		"http://r.example/v2/a/b/manifests/x":   false,
		"https://r.example/v2/":                 false,
		"https://r.example/elsewhere":           false,
		"https://r.example:8443/v2/a/b/blobs/x": false,
	} {
		if _, ok := tokens.Authorization(parse(t, raw)); ok != want {
			t.Errorf("token for %s: %t, want %t", raw, ok, want)
		}
	}
	now = now.Add(89 * time.Second)
	if _, ok := tokens.Authorization(manifest); !ok {
		t.Error("the token is forgotten too early")
	}
	now = now.Add(2 * time.Second)
	if _, ok := tokens.Authorization(manifest); ok {
		t.Error("the token is kept to its last moment")
	}
	s.body = `{"access_token":"two"}`
	if got, err := tokens.Fetch(t.Context(), manifest, c, s.do); got != "Bearer two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	now = now.Add(defaultLife)
	if _, ok := tokens.Authorization(manifest); ok {
		t.Error("a token without a life is good for more than a minute")
	}
}

func TestTokensRefused(t *testing.T) {
	blob := parse(t, "https://r.example/v2/a/blobs/sha256:"+strings.Repeat("0", 64))
	c := Challenge{Realm: "https://auth.example/token"}
	down := errors.New("down")
	for name, s := range map[string]*server{
		"status":        {status: 401, body: `{"token":"x"}`},
		"redirect":      {status: 302, body: `{"token":"x"}`},
		"no JSON":       {status: 200, body: `hello`},
		"no token":      {status: 200, body: `{}`},
		"other letters": {status: 200, body: `{"Token":"secret","ACCESS_TOKEN":"secret"}`},
		"header inside": {status: 200, body: `{"token":"x\r\nHost: y"}`},
		"huge":          {status: 200, body: `{"token":"` + strings.Repeat("x", maxAnswer) + `"}`},
		"unreachable":   {err: down},
	} {
		tokens := NewTokens(nil)
		tokens.kept.Add(key(blob), token{"refused", time.Now().Add(time.Hour)})
		got, err := tokens.Fetch(t.Context(), blob, c, s.do)
		if got != "" || err == nil || s.err != nil && !errors.Is(err, s.err) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if _, ok := tokens.Authorization(blob); ok {
			t.Errorf("%s: the token that was refused is kept", name)
		}
	}
}
