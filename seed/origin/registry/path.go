package registry

import (
	"regexp"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
)

// Kind is what a path below /v2/ names.
type Kind int

// The kinds of paths. Other is everything that is neither content nor the base:
// lists of tags, referrers, uploads.
const (
	Base Kind = iota
	Manifest
	Blob
	Other
)

// Path is what a path below /v2/ says.
type Path struct {
	Kind Kind
	// Name is the repository; empty for Base.
	Name string
	// Ref is a tag or a digest of a Manifest, a digest of a Blob, and of Other
	// what comes behind the name, such as tags/list.
	Ref string
}

// nameComponent is a part of a repository's name.
const nameComponent = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`

var (
	namePattern   = regexp.MustCompile(`^` + nameComponent + `(?:/` + nameComponent + `)*$`)
	tagPattern    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$`)
)

// ParsePath reads the path of a request for a registry. It reports false for
// what is no such path, or breaks the grammar of names, tags and digests.
func ParsePath(path string) (Path, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || ok && rest == "":
		return Path{Kind: Base}, true
	case !ok:
		return Path{}, false
	}
	for _, by := range []struct {
		part string
		kind Kind
	}{{"/manifests/", Manifest}, {"/blobs/uploads/", Other}, {"/blobs/", Blob}, {"/tags/", Other}, {"/referrers/", Other}} {
		i := strings.LastIndex(rest, by.part)
		if i < 0 {
			continue
		}
		p := Path{Kind: by.kind, Name: rest[:i], Ref: rest[i+len(by.part):]}
		if p.Kind == Other {
			p.Ref = rest[i+1:]
		}
		if p.wellFormed() {
			return p, true
		}
	}
	return Path{}, false
}

func (p Path) wellFormed() bool {
	switch {
	case !namePattern.MatchString(p.Name):
		return false
	case p.Kind == Manifest:
		return tagPattern.MatchString(p.Ref) || isDigest(p.Ref)
	case p.Kind == Blob:
		return isDigest(p.Ref)
	default:
		return true
	}
}

// isDigest checks a digest by the grammar of the OCI image specification, one of
// a registered algorithm by that algorithm's.
func isDigest(ref string) bool {
	switch algorithm, _, _ := strings.Cut(ref, ":"); algorithm {
	case "sha256", "sha512":
		return content.IsDigest(ref)
	default:
		return digestPattern.MatchString(ref)
	}
}

// Accept is the Accept field of a request for a manifest, whatever its type:
// some registries answer 404 for a type that is not named there.
const Accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, " +
	"application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1"
