package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzParsePath: what is taken for a path of a registry names its repository
// and reference as they stand in it, and leads nowhere else.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/library/alpine/manifests/latest", "/v2/a/blobs/sha256:" + strings.Repeat("a", 64), "/v2/a/b/tags/list", "/v2/../x/manifests/y", "/v2/a/blobs/uploads/x", "/v2/a/manifests/manifests/x", "/v2/a/referrers/" + strings.Repeat("f", 9), "/v2/a/manifests/sha256:" + strings.Repeat("A", 64), "/v2/a/tags/..", "/v2/a/manifests/x y", "/v2/a/blobs/x\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p, ok := ParsePath(path)
		if !ok || p.Kind == Base {
			return
		}
		if strings.Contains(p.Name, "..") || strings.ContainsAny(p.Name, "\x00?#% \\") || !strings.HasPrefix(path, "/v2/"+p.Name+"/") {
			t.Errorf("%q is %+v", path, p)
		}
		if (p.Kind == Blob || p.Kind == Manifest) && strings.ContainsFunc(p.Ref, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/?#%\`, r) }) {
			t.Errorf("%q has the reference %q", path, p.Ref)
		}
		between := map[Kind]string{Manifest: "/manifests/", Blob: "/blobs/", Other: "/"}[p.Kind]
		if path != "/v2/"+p.Name+between+p.Ref || p.Ref == "" {
			t.Errorf("%q is %+v, which is not all of it", path, p)
		}
		if tag, _, digest := strings.Cut(p.Ref, ":"); p.Kind == Blob && !digest || p.Kind == Manifest && !digest && len(tag) > 128 {
			t.Errorf("%q has the reference %q", path, p.Ref)
		}
	})
}

// FuzzTokenAnswer: whatever an authorization server answers, what is made of it
// is one field of a header.
func FuzzTokenAnswer(f *testing.F) {
	f.Add([]byte(`{"token":"abc","expires_in":300}`))
	f.Add([]byte(`{"access_token":"a\r\nX-Evil: 1"}`))
	f.Add([]byte(`{"token":"x","expires_in":-9223372036854775808}`))
	u := &url.URL{Scheme: "https", Host: "registry.example", Path: "/v2/a/b/manifests/latest"}
	f.Fuzz(func(t *testing.T, text []byte) {
		answer := func(context.Context, *url.URL) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(text)))}, nil
		}
		tokens := NewTokens(nil)
		got, err := tokens.Fetch(t.Context(), u, Challenge{Realm: "https://auth.example/t"}, answer)
		if err != nil {
			return
		}
		if rest, ok := strings.CutPrefix(got, "Bearer "); !ok || rest == "" || strings.ContainsAny(rest, " \r\n\x00") {
			t.Errorf("%q makes the field %q", text, got)
		}
		if kept, ok := tokens.Authorization(u); !ok || kept != got {
			t.Errorf("%q is not kept: %q, %t", text, kept, ok)
		}
	})
}
