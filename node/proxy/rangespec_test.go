package proxy

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

func TestParseOneRange(t *testing.T) {
	const size = 10
	whole := content.Range{}
	none := content.Range{Off: -1}
	for _, c := range []struct {
		in   string
		want content.Range // whole: ignored; none: 416
	}{
		{"bytes=0-0", content.Range{Off: 0, Len: 1}},
		{"bytes=9-9", content.Range{Off: 9, Len: 1}},
		{"bytes=2-5", content.Range{Off: 2, Len: 4}},
		{"bytes=4-", content.Range{Off: 4, Len: 6}},
		{"bytes=4-99", content.Range{Off: 4, Len: 6}},
		{"bytes=-3", content.Range{Off: 7, Len: 3}},
		{"bytes=-11", content.Range{Off: 0, Len: 10}},
		{"bytes=-99999999999999999999", content.Range{Off: 0, Len: 10}},
		{"bytes=0-99999999999999999999", content.Range{Off: 0, Len: 10}},
		{"bytes=0-9223372036854775807", content.Range{Off: 0, Len: 10}},
		{"BYTES=1-1", content.Range{Off: 1, Len: 1}},
		{"bytes= 0-1", content.Range{Off: 0, Len: 2}},
		{"bytes=0-1,", content.Range{Off: 0, Len: 2}},
		{"bytes=,\t0-1 ,", content.Range{Off: 0, Len: 2}},
		{"bytes=0000000000000000000000001-1", content.Range{Off: 1, Len: 1}},

		{"bytes=-0", none},
		{"bytes=10-", none},
		{"bytes=10-12", none},
		{"bytes=99999999999999999999-", none},
		{"bytes=9223372036854775807-", none},

		{"bytes=9-1", whole},
		{"bytes=99999999999999999999-88888888888888888888", whole},
		{"items=0-1", whole},
		{"bytes=0-,5-x", whole},
		{"bytes", whole},
		{"bytes=", whole},
		{"bytes=,", whole},
		{"bytes=-", whole},
		{"bytes=--1", whole},
		{"bytes=1", whole},
		{"bytes=+1-2", whole},
		{"bytes=1-+2", whole},
		{"bytes=0x1-2", whole},
		{"bytes=1-2-3", whole},
		{"bytes=1 -2", whole},
		{"bytes=a-b", whole},
		{"bytes =0-1", whole},
		{"", whole},
	} {
		t.Run(c.in, func(t *testing.T) {
			specs := parseRanges([]string{c.in})
			got := []content.Range{whole}
			if len(specs) > 0 {
				if got = resolveAll(specs, size); len(got) == 0 {
					got = []content.Range{none}
				}
			}
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	for _, fields := range [][]string{nil, {"bytes=0-1", "bytes=2-3"}} {
		if specs := parseRanges(fields); len(specs) > 0 {
			t.Errorf("%q is %v", fields, specs)
		}
	}
	if specs := parseRanges([]string{"bytes=0-"}); len(specs) != 1 {
		t.Error("bytes=0- not understood")
	} else if parts := resolveAll(specs, 0); len(parts) > 0 {
		t.Error("an empty file has a byte 0")
	}
}

// TestParseRanges has several ranges of a file of 10,000 bytes.
func TestParseRanges(t *testing.T) {
	for in, want := range map[string][]content.Range{
		"bytes=0-9,1000-1009":                 {{Off: 0, Len: 10}, {Off: 1000, Len: 10}},
		"bytes=1000-1009,0-9":                 {{Off: 1000, Len: 10}, {Off: 0, Len: 10}},
		"bytes=0-9 , -10,,":                   {{Off: 0, Len: 10}, {Off: 9990, Len: 10}},
		"bytes=0-9,10-19":                     {{Off: 0, Len: 20}},
		"bytes=0-9,110-119":                   {{Off: 0, Len: 120}},
		"bytes=0-9,111-119":                   {{Off: 0, Len: 10}, {Off: 111, Len: 9}},
		"bytes=5000-5009,0-9,4990-5004":       {{Off: 4990, Len: 20}, {Off: 0, Len: 10}},
		"bytes=0-0,2000-2000,0-":              {{Off: 0, Len: 10000}},
		"bytes=0-9,10000-":                    {{Off: 0, Len: 10}},
		"bytes=10000-,20000-20001":            {},
		"bytes=0-9,5":                         nil,
		"bytes=0-9,9-1":                       nil,
		"bytes=" + strings.Repeat("0-0,", 64): {{Off: 0, Len: 1}},
		"bytes=" + strings.Repeat("0-0,", 65): nil,
	} {
		specs := parseRanges([]string{in})
		if want == nil != (len(specs) == 0) {
			t.Errorf("%s: %v", in, specs)
		}
		if got := resolveAll(specs, 10_000); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}

func TestWant(t *testing.T) {
	for in, want := range map[string]Want{
		"bytes=3-5":                    {Off: 3, Len: 3},
		"bytes=3-":                     {Off: 3, Len: -1},
		"bytes=0-99999999999999999999": {Off: 0, Len: -1},
		"bytes=-7":                     {Suffix: 7},
	} {
		specs := parseRanges([]string{in})
		if len(specs) != 1 {
			t.Fatalf("%s: %v", in, specs)
		}
		if got := specs[0].want(); got != want {
			t.Errorf("%s: %+v, want %+v", in, got, want)
		}
	}
}

func FuzzParseRanges(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-0", "bytes=9-1", "bytes=0-,5-6", "bytes=9-9,-1,500-600", "bytes= 0-1", "items=0-1", "bytes=99999999999999999999-"} {
		f.Add(s, int64(10))
		f.Add(s, int64(10_000))
	}
	f.Fuzz(func(t *testing.T, field string, size int64) {
		if size < 0 {
			size = -(size + 1)
		}
		specs := parseRanges([]string{field})
		if len(specs) > strings.Count(field, ",")+1 {
			t.Fatalf("%q: %d ranges", field, len(specs))
		}
		asked := int64(0)
		for _, spec := range specs {
			if w := spec.want(); w.Off < 0 || w.Len < -1 || w.Suffix < 0 || w.Len == 0 && w.Suffix == 0 && spec.suffix != 0 {
				t.Fatalf("%q: want %+v", field, w)
			}
			if _, ok := spec.resolve(size); ok {
				asked++
			}
		}
		parts := resolveAll(specs, size)
		if int64(len(parts)) > asked || (len(parts) == 0) != (asked == 0) {
			t.Fatalf("%q of %d bytes: %d parts of %d ranges", field, size, len(parts), asked)
		}
		for i, r := range parts {
			if r.Off < 0 || r.Len <= 0 || r.Off > math.MaxInt64-r.Len || r.End() > size {
				t.Fatalf("%q of %d bytes: %v", field, size, r)
			}
			for _, other := range parts[:i] {
				if !r.Intersect(other).Empty() {
					t.Fatalf("%q of %d bytes: %v and %v", field, size, r, other)
				}
			}
		}
	})
}
