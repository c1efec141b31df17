package content

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// digestAlgorithms are those that the OCI image specification registers (section
// "Digests" of its descriptors) and Go's library has, by the names that it gives
// them.
var digestAlgorithms = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}

// IsDigest reports whether s is a digest that names its content for ever, in the
// one form that it has: sha256:<64 lower-case hexadecimal digits>, or sha512:<128>.
func IsDigest(s string) bool {
	d, err := ParseDigest(s)
	return err == nil && d == s
}

// ParseDigest reads a digest that somebody typed and returns it in its one form:
// upper-case digits are taken as well.
func ParseDigest(s string) (string, error) {
	s = strings.ToLower(s)
	algorithm, digits, _ := strings.Cut(s, ":")
	sum, err := hex.DecodeString(digits)
	if algo := digestAlgorithms[algorithm]; algo == nil || err != nil || len(sum) != algo().Size() {
		return "", fmt.Errorf("digest %q: write sha256: and 64 hexadecimal digits, or sha512: and 128", s)
	}
	return s, nil
}

// Digester computes a digest of what is written to it.
type Digester struct {
	hash.Hash
	algorithm string
}

// NewDigester returns a Digester by the algorithm of a digest, which IsDigest must
// hold of.
func NewDigester(digest string) *Digester {
	algorithm, _, _ := strings.Cut(digest, ":")
	return &Digester{digestAlgorithms[algorithm](), algorithm}
}

// Digest returns the digest of what was written so far.
func (d *Digester) Digest() string { return d.algorithm + ":" + hex.EncodeToString(d.Sum(nil)) }
