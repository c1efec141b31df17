package registry

import (
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for path, want := range map[string]Path{
		"/v2":                                    {Kind: Base},
		"/v2/":                                   {Kind: Base},
		"/v2/alpine/manifests/3.20":              {Manifest, "alpine", "3.20"},
		"/v2/library/alpine/manifests/" + digest: {Manifest, "library/alpine", digest},
		"/v2/a/b/c/d_e/blobs/" + digest:          {Blob, "a/b/c/d_e", digest},
		"/v2/a/blobs/blake3+x:00ff":              {Blob, "a", "blake3+x:00ff"},
		"/v2/a/tags/list":                        {Other, "a", "tags/list"},
		"/v2/a/referrers/" + digest:              {Other, "a", "referrers/" + digest},
		"/v2/a/blobs/uploads/":                   {Other, "a", "blobs/uploads/"},
		"/v2/quay.io/a/manifests/x":              {Manifest, "quay.io/a", "x"},
		"/v2/manifests/manifests/manifests":      {Manifest, "manifests", "manifests"},
		"/v2/a--b/c__d/manifests/_":              {Manifest, "a--b/c__d", "_"},
		"/v2/x/manifests/y/blobs/" + digest:      {Blob, "x/manifests/y", digest},
	} {
		p, ok := ParsePath(path)
		if !ok || p != want {
			t.Errorf("%s: %+v %t, want %+v", path, p, ok, want)
		}
	}
	for _, path := range []string{
		"", "/", "/v1/", "/v2x/", "/v2/a", "/v2/a/manifests/", "/v2/a/blobs/", "/v2/a/blobs/latest", "/v2/A/manifests/x",
		"/v2/../manifests/x", "/v2/a//b/manifests/x", "/v2//manifests/x", "/v2/a/manifests/x/y", "/v2/a/manifests/.x",
		"/v2/a/manifests/sha256:baddigeststring", "/v2/a/blobs/sha512:" + strings.Repeat("a", 64), "/v2/a/blobs/" + digest[1:] + ":",
		"/v2/a/manifests/" + strings.Repeat("x", 129), "/v2/a___b/manifests/x", "/v2/blobs/blobs/sha256:00/manifests/tag1", "/v2/a?/blobs/sha256:00",
	} {
		if p, ok := ParsePath(path); ok {
			t.Errorf("%q is read as %+v", path, p)
		}
	}
}
