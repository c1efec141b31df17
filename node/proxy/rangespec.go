package proxy

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/p2pnode/p2pnode/internal/content"
)

// rangeSpec is a single range of a Range field, before the file's size is known.
type rangeSpec struct {
	// first and last are the inclusive positions; last is -1 for "to the end".
	first, last int64
	// suffix, where not negative, is a number of bytes from the end instead.
	suffix int64
}

// maxRanges bounds the ranges of one request, as asked. More of them are no
// Range that is honoured (RFC 9110 section 14.2 allows it).
const maxRanges = 64

// parseRanges reads the Range field of a request (RFC 9110 section 14.2). It
// returns none where there is nothing to honour: no field, or two, another unit
// than bytes, malformed, or more than maxRanges; the answer is then the whole
// file. Positions beyond the largest int64 are cut down to it.
func parseRanges(fields []string) []rangeSpec {
	if len(fields) != 1 {
		return nil
	}
	unit, set, ok := strings.Cut(fields[0], "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return nil
	}
	var specs []rangeSpec
	for element := range strings.SplitSeq(set, ",") {
		element = strings.Trim(element, " \t")
		if element == "" {
			continue // a recipient must accept empty list elements (section 5.6.1.2)
		}
		spec, ok := parseSpec(element)
		if !ok || len(specs) == maxRanges {
			return nil
		}
		specs = append(specs, spec)
	}
	return specs
}

// resolveAll returns the parts of a file of the given size that are asked for,
// none of them empty, in the order asked; none where no range can be satisfied
// (416). Ranges that overlap, or lie so close that the gap costs less than a
// part's header, become one part in the place of the first (RFC 9110 section
// 15.3.7.2): no byte is sent twice, whatever a client asks.
func resolveAll(specs []rangeSpec, size int64) []content.Range {
	var asked []content.Range
	for _, spec := range specs {
		if r, ok := spec.resolve(size); ok {
			asked = append(asked, r)
		}
	}
	if len(asked) < 2 {
		return asked
	}
	merged := slices.SortedFunc(slices.Values(asked), func(a, b content.Range) int { return cmp.Compare(a.Off, b.Off) })
	n := 1
	for _, r := range merged[1:] {
		if last := &merged[n-1]; r.Off <= last.End()+maxGap {
			*last = content.Span(last.Off, max(last.End(), r.End()))
		} else {
			merged[n] = r
			n++
		}
	}
	var parts []content.Range
	for _, r := range asked {
		i := slices.IndexFunc(merged[:n], func(m content.Range) bool { return m.Contains(r) })
		if !slices.Contains(parts, merged[i]) {
			parts = append(parts, merged[i])
		}
	}
	return parts
}

// maxGap is about what the header of a part takes.
const maxGap = 100

// parseSpec reads first-last, first- or -suffix.
func parseSpec(s string) (rangeSpec, bool) {
	first, last, ok := strings.Cut(s, "-")
	switch {
	case !ok || first == "" && last == "":
		return rangeSpec{}, false
	case first == "":
		n, ok := parsePos(last)
		return rangeSpec{suffix: n}, ok
	case last == "":
		n, ok := parsePos(first)
		return rangeSpec{first: n, last: -1, suffix: -1}, ok
	}
	from, ok1 := parsePos(first)
	to, ok2 := parsePos(last)
	if !ok1 || !ok2 || compareDigits(last, first) < 0 {
		return rangeSpec{}, false
	}
	return rangeSpec{first: from, last: to, suffix: -1}, true
}

// parsePos reads a position of digits alone.
func parsePos(s string) (int64, bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true // digits can only be out of range
	}
	return n, true
}

// compareDigits compares two numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// resolve returns the bytes of a file of the given size, never empty. It
// reports false where the range cannot be satisfied (416).
func (s rangeSpec) resolve(size int64) (content.Range, bool) {
	var r content.Range
	switch {
	case s.suffix >= 0:
		r = content.Span(size-min(s.suffix, size), size)
	case s.last < 0 || s.last >= size:
		r = content.Span(s.first, size)
	default:
		r = content.Span(s.first, s.last+1)
	}
	return r, !r.Empty()
}

// want returns the range for an Opener.
func (s rangeSpec) want() Want {
	switch {
	case s.suffix >= 0:
		return Want{Suffix: s.suffix}
	case s.last < 0 || s.last == math.MaxInt64:
		return Want{Off: s.first, Len: -1}
	default:
		return Want{Off: s.first, Len: s.last - s.first + 1}
	}
}

// contentRange returns the Content-Range field of a part.
func contentRange(r content.Range, size int64) string {
	return "bytes " + strconv.FormatInt(r.Off, 10) + "-" + strconv.FormatInt(r.End()-1, 10) + "/" + strconv.FormatInt(size, 10)
}
