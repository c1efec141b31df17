package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// nothing takes every transfer that is in order, and does nothing.
type nothing struct{}

func (nothing) Prefetch(_ context.Context, r PrefetchRequest, _ func(int64, int64)) (Transfer, error) {
	if r.Pin && r.Seeds {
		panic("a pin on others")
	}
	checkAsked(r)
	return Transfer{}, nil
}

func (nothing) Import(_ context.Context, r ImportRequest, _ func(int64, int64)) (Transfer, error) {
	if r.URL == "" || r.Size < 0 {
		panic(fmt.Sprintf("imported %q of %d bytes", r.URL, r.Size))
	}
	return Transfer{}, nil
}

func (nothing) Unpin(r PrefetchRequest) (int64, error) {
	checkAsked(r)
	return 0, nil
}

// checkAsked panics where a request is not as PrefetchRequest has it.
func checkAsked(r PrefetchRequest) {
	if r.Len == 0 || r.Len > 0 && (r.Off < 0 || r.Off+r.Len < r.Off) {
		panic(fmt.Sprintf("asked for %d+%d", r.Off, r.Len))
	}
}

// checkJSON wants values of JSON, one or more.
func checkJSON(t *testing.T, path string, body []byte) {
	t.Helper()
	values := json.NewDecoder(bytes.NewReader(body))
	for {
		var value any
		if err := values.Decode(&value); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: answered %q, %v", path, body, err)
			return
		}
	}
}

// FuzzPosts: bodies and queries that are taken are in order, answers are JSON, and
// none from a foreign host is taken.
func FuzzPosts(f *testing.F) {
	paths := []string{"/v1/prefetch", "/v1/import", "/v1/unpin", "/v1/orders", "/v1/revocations", "/v1/limits"}
	f.Add(uint8(0), "", `{"urls":["https://example.org/x"],"range":"0-99"}`, "127.0.0.1")
	f.Add(uint8(1), "url=https%3A%2F%2Fexample.org%2Fx&digest=sha256%3Aab&pin=true", "bytes", "localhost:1")
	f.Add(uint8(0), "", `{"urls":["x","y"],"range":"-7","where":"seeds","pin":true}`, "127.0.0.1")
	f.Add(uint8(2), "", `{"urls":["https://example.org/x"],"range":"4611686018427387903-4611686018427387903"}`, "127.0.0.1")
	f.Add(uint8(1), "url=&pin=false&etag=%22", "", "127.0.0.1")
	f.Add(uint8(5), "", `{"up":1}`, "127.0.0.1")
	f.Add(uint8(3), "", `{"peer":"x","order":"drain"}`, "[::1]:80")
	f.Add(uint8(4), "", `{"revocation":"p2pnode-revoke-"}`, "evil.example")
	order := func(string, string) error { return nil }
	h := New(Config{
		Transfers: nothing{}, Orders: order, Revoke: func(string) error { return nil }, Limits: func([]byte) (any, error) { return 1, nil }, Logger: slog.New(slog.DiscardHandler),
	})
	f.Fuzz(func(t *testing.T, which uint8, query, body, host string) {
		path := paths[int(which)%len(paths)]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1"+path, strings.NewReader(body))
		r.URL.RawQuery, r.Host = query, host
		r.Header.Set("Content-Type", "application/json")
		if path == "/v1/import" {
			r.Header.Set("Content-Type", "application/octet-stream")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 {
			t.Errorf("%s: status %d", path, w.Code)
		}
		if w.Code == http.StatusOK {
			checkJSON(t, path, w.Body.Bytes())
		}
		if strings.Contains(host, "example") && w.Code != http.StatusForbidden {
			t.Errorf("%s with Host %q: status %d", path, host, w.Code)
		}
	})
}

// FuzzQueries: no part of a file and no time of a profile is taken that is none.
func FuzzQueries(f *testing.F) {
	for _, s := range []string{"0-99", "7-", "-7", "-0", "9-8", "--1", "0-4611686018427387904", "30", "1e9", "NaN", "0x1p-1074", "-1", "+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		off, n, err := parsePart(s)
		switch {
		case err != nil && (off != 0 || n != 0):
			t.Errorf("%q: %d+%d with the error %v", s, off, n, err)
		case err == nil && (n == 0 || n < -1 || n > 0 && (off < 0 || off+n < off) || off < 0 && s[0] != '-'):
			t.Errorf("%q is %d+%d", s, off, n)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/debug/pprof/profile", http.NoBody)
		r.URL.RawQuery = url.Values{"seconds": {s}}.Encode()
		if d, ok := profileLength(r); ok && (d < 0 || d > maxProfile) {
			t.Errorf("a profile of %q seconds takes %v", s, d)
		}
	})
}
