package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// maxTokens bounds the repositories whose token is kept; the least recently
	// used is forgotten.
	maxTokens = 1024
	// maxAnswer bounds what is read of an authorization server's answer.
	maxAnswer = 64 << 10
	// defaultLife is how long a token is good where its server does not say (the
	// distribution project's token specification).
	defaultLife = time.Minute
)

// Do sends a GET request under the caller's policy, without following
// redirects.
type Do func(ctx context.Context, u *url.URL) (*http.Response, error)

// Tokens gets and keeps anonymous tokens: what anybody can have, so that what
// they open is public. Safe for concurrent use.
type Tokens struct {
	now  func() time.Time
	kept *lru.Cache[string, token]
}

type token struct {
	text  string
	until time.Time
}

// NewTokens returns an empty store; nil is time.Now.
func NewTokens(now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	kept, err := lru.New[string, token](maxTokens)
	if err != nil {
		panic("registry: " + err.Error()) // the size is a positive constant
	}
	return &Tokens{now: now, kept: kept}
}

// key names a repository of a registry; "" where u is none.
func key(u *url.URL) string {
	p, ok := ParsePath(u.Path)
	if !ok || p.Name == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/" + p.Name
}

// Authorization returns the Authorization field for a URL of a repository whose
// token is known; false where none is, or it has expired.
func (t *Tokens) Authorization(u *url.URL) (string, bool) {
	kept, ok := t.kept.Get(key(u))
	if !ok || !t.now().Before(kept.until) {
		return "", false
	}
	return "Bearer " + kept.text, true
}

// Fetch gets the token that a 401 for u asks for, and returns the Authorization
// field. The error says why anonymous clients have none.
func (t *Tokens) Fetch(ctx context.Context, u *url.URL, c Challenge, do Do) (string, error) {
	name := key(u)
	realm := c.tokenURL()
	if name == "" || realm == nil {
		return "", errors.New("no repository, or no realm, to get a token for")
	}
	t.kept.Remove(name) // it was refused, if there is one
	res, err := do(ctx, realm)
	if err != nil {
		return "", fmt.Errorf("get a token of %s: %w", realm.Host, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get a token of %s: it answered %s", realm.Host, res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("get a token of %s: %w", realm.Host, err)
	}
	got, life, err := readToken(text)
	if err != nil {
		return "", fmt.Errorf("get a token of %s: %w", realm.Host, err)
	}
	// Not to its last moment: a request takes its time.
	t.kept.Add(name, token{text: got, until: t.now().Add(life * 9 / 10)})
	return "Bearer " + got, nil
}

// readToken reads an authorization server's answer: the token, and how long it is
// good. Names are compared as they are, where encoding/json would take "Token" for
// "token", which other services of a cloud call secrets.
func readToken(answer []byte) (text string, life time.Duration, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(answer, &fields); err != nil {
		return "", 0, err
	}
	var seconds int64
	var other string
	for name, to := range map[string]any{"token": &text, "access_token": &other, "expires_in": &seconds} {
		if value, ok := fields[name]; ok {
			if err := json.Unmarshal(value, to); err != nil {
				return "", 0, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	text = cmp.Or(text, other)
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", 0, errors.New("there is none in its answer")
	}
	if seconds <= 0 {
		return text, defaultLife, nil
	}
	return text, time.Duration(min(seconds, 24*60*60)) * time.Second, nil
}
