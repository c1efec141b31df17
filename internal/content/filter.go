package content

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// Filter lists the query parameters that do not change what a URL names, such
// as those that count visitors. It is the same in a whole swarm: its Version is
// part of every task ID. The zero Filter removes nothing.
type Filter struct {
	Version uint32
	// Query holds parameter names, compared byte for byte as written in the
	// URL, case-sensitively.
	Query []string
}

// Bounds of a filter, which supernodes publish with the pool.
const (
	// MaxFilterNames bounds the names.
	MaxFilterNames = 256
	// MaxFilterBytes bounds them together, with one byte more for each.
	MaxFilterBytes = 4 << 10
)

// NewFilter returns the filter of a list of names, in any order. Its Version is
// the first four bytes, big-endian, of the SHA-256 over the names, sorted, each
// once, joined by "&", with the lowest bit set: nodes with different lists do
// not take one file for another. No names are the zero Filter.
func NewFilter(names []string) Filter {
	if len(names) == 0 {
		return Filter{}
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	sum := sha256.Sum256([]byte(strings.Join(names, "&")))
	return Filter{Version: binary.BigEndian.Uint32(sum[:4]) | 1, Query: names}
}

// IsFilterName reports whether s can be the name of a parameter as it stands in
// a URL's query.
func IsFilterName(s string) bool { return s != "" && !strings.ContainsAny(s, "&=# ") }

// Valid reports whether all are names, within the bounds.
func (f Filter) Valid() bool {
	size := 0
	for _, name := range f.Query {
		if !IsFilterName(name) {
			return false
		}
		size += len(name) + 1
	}
	return len(f.Query) <= MaxFilterNames && size <= MaxFilterBytes
}
