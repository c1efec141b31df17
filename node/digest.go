package node

import "github.com/p2pnode/p2pnode/internal/content"

// ParseDigest reads what a whole file must hash to, as somebody typed it:
// sha256:HEX or sha512:HEX. It returns it with lower-case digits.
func ParseDigest(s string) (string, error) { return content.ParseDigest(s) }

// NewDigester returns a hash by the algorithm of a digest that ParseDigest has
// returned.
func NewDigester(digest string) *content.Digester { return content.NewDigester(digest) }
