package content

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Generation names one version of a task's content: what the origin's
// validators say it is. The zero Generation means "not known" and, in a
// request, "whichever you have". It is 16 bytes on the wire.
type Generation [16]byte

// String returns the generation as 32 hexadecimal digits.
func (g Generation) String() string { return hex.EncodeToString(g[:]) }

// IsZero reports whether the generation is not known.
func (g Generation) IsZero() bool { return g == Generation{} }

// GenerationFromBytes reads a generation off the wire; no bytes are the zero
// Generation.
func GenerationFromBytes(b []byte) (Generation, error) {
	var g Generation
	if len(b) == 0 {
		return g, nil
	}
	if len(b) != len(g) {
		return g, fmt.Errorf("generation of %d bytes: want %d", len(b), len(g))
	}
	return Generation(b), nil
}

// NewGeneration derives the generation from an origin's answer: from a strong
// ETag (RFC 9110 section 8.8.3), else from Last-Modified and the size together.
// It reports false where there is neither, or no known size (size < 0): such
// content cannot be cached, since a change would go unnoticed.
func NewGeneration(etag, lastModified string, size int64) (Generation, bool) {
	if size < 0 {
		return Generation{}, false
	}
	if StrongETag(etag) {
		return hashGeneration("etag", etag, size), true
	}
	if lastModified != "" {
		return hashGeneration("last-modified", lastModified, size), true
	}
	return Generation{}, false
}

// OpenSize stands for the size of a file in the names of its blocks while nobody
// knows it: its origin does not tell it before the last byte.
const OpenSize = 1 << 62

// OpenGeneration is the generation of a file for as long as its size is not known.
// It reports false without a strong ETag: Last-Modified says too little without a
// size.
func OpenGeneration(etag string) (Generation, bool) {
	if !StrongETag(etag) {
		return Generation{}, false
	}
	return hashGeneration("open", etag, -1), true
}

// DigestGeneration is the generation of a digest-addressed task: the digest,
// whatever the validators say.
func DigestGeneration(digest string) Generation {
	return hashGeneration("digest", digest, -1)
}

// StrongETag reports whether etag is a strong entity tag: quoted, not W/.
func StrongETag(etag string) bool {
	return len(etag) >= 2 && strings.HasPrefix(etag, `"`) && strings.HasSuffix(etag, `"`) &&
		!strings.Contains(etag[1:len(etag)-1], `"`)
}

func hashGeneration(kind, validator string, size int64) Generation {
	sum := sha256.Sum256([]byte("p2pnode/generation/1\x00" + kind + "\x00" + validator + "\x00" + strconv.FormatInt(size, 10)))
	return Generation(sum[:16])
}

// Meta is what a head knows of a file and every reader needs before the first
// byte: the origin's metadata of one generation.
type Meta struct {
	// Size of the whole file in bytes; -1 while it is not known (OpenSize).
	Size int64
	// Generation follows from the validators below, or from the digest.
	Generation Generation
	// ETag, LastModified and ContentType are the origin's header fields,
	// verbatim; empty where the origin sent none.
	ETag, LastModified, ContentType string
	// Fields are the origin's other header fields.
	Fields Fields
	// Sequential says that the origin serves no ranges: the head alone reads
	// the file, once, from its start, and owns every stripe.
	Sequential bool
}

// Layout returns how the file is cut.
func (m Meta) Layout() Layout { return Layout{Size: m.Size} }
