package content

import (
	"fmt"
	"strings"
	"testing"
)

// TestNewFilter: the version is that of SPEC.md, whatever the order of the names.
func TestNewFilter(t *testing.T) {
	if f := NewFilter(nil); f.Version != 0 || !f.Valid() {
		t.Errorf("no names: %+v", f)
	}
	const want = uint32(0xa70eb3db) // printf 'UTM&utm_source' | sha256sum, its lowest bit set
	one, two := NewFilter([]string{"utm_source", "UTM", "UTM"}), NewFilter([]string{"UTM", "utm_source"})
	if one.Version != two.Version || one.Version != want || len(one.Query) != 2 {
		t.Errorf("%+v, %+v, want version %#x", one, two, want)
	}
	var many []string
	for i := range MaxFilterNames + 1 {
		many = append(many, fmt.Sprint(i))
	}
	for name, c := range map[string]struct {
		names []string
		want  bool
	}{
		"most":      {many[1:], true},
		"too many":  {many, false},
		"longest":   {[]string{strings.Repeat("a", MaxFilterBytes-1)}, true},
		"too long":  {[]string{strings.Repeat("a", MaxFilterBytes)}, false},
		"empty":     {[]string{""}, false},
		"ampersand": {[]string{"a&b"}, false},
		"any bytes": {[]string{"\xff%20"}, true},
	} {
		if got := NewFilter(c.names).Valid(); got != c.want {
			t.Errorf("%s: valid is %t", name, got)
		}
	}
}
