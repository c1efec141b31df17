package p2ptest

import (
	"cmp"
	"slices"
	"strings"
)

// Span is a run of bytes of a file and how many times an origin sent them.
type Span struct {
	Off, Len int64
	Copies   int
}

// Hits returns the requests for path so far, in the order of their arrival.
func (o *Origin) Hits(path string) []Hit {
	o.mu.Lock()
	defer o.mu.Unlock()
	hits := make([]Hit, len(o.hits[path]))
	for i, h := range o.hits[path] {
		hits[i] = *h
	}
	return hits
}

// Requests returns how many requests path got, of any method and outcome.
func (o *Origin) Requests(path string) int { return len(o.Hits(path)) }

// Running returns how many requests for path are being answered now.
func (o *Origin) Running(path string) int {
	n := 0
	for _, h := range o.Hits(path) {
		if !h.Done {
			n++
		}
	}
	return n
}

// Bytes returns how many bytes of the file at path were sent in all. Bodies of
// errors do not count.
func (o *Origin) Bytes(path string) int64 {
	var n int64
	for _, h := range o.Hits(path) {
		n += h.Sent
	}
	return n
}

// BytesBelow returns the sum of Bytes over all paths that begin with prefix.
func (o *Origin) BytesBelow(prefix string) int64 {
	o.mu.Lock()
	var paths []string
	for path := range o.hits {
		if strings.HasPrefix(path, prefix) {
			paths = append(paths, path)
		}
	}
	o.mu.Unlock()
	var n int64
	for _, path := range paths {
		n += o.Bytes(path)
	}
	return n
}

// Spans returns what was sent of the file at path, in order, cut wherever the
// number of copies changes. Bytes that were never sent are in no span.
func (o *Origin) Spans(path string) []Span {
	type edge struct {
		at   int64
		step int
	}
	var edges []edge
	for _, h := range o.Hits(path) {
		if h.Sent > 0 {
			edges = append(edges, edge{h.Off, 1}, edge{h.Off + h.Sent, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var spans []Span
	copies := 0
	for i, e := range edges {
		if i > 0 && copies > 0 && e.at > edges[i-1].at {
			spans = appendSpan(spans, Span{edges[i-1].at, e.at - edges[i-1].at, copies})
		}
		copies += e.step
	}
	return spans
}

// appendSpan joins s to the last span where they touch and are alike.
func appendSpan(spans []Span, s Span) []Span {
	if n := len(spans); n > 0 {
		last := &spans[n-1]
		if last.Off+last.Len == s.Off && last.Copies == s.Copies {
			last.Len += s.Len
			return spans
		}
	}
	return append(spans, s)
}

// MaxCopies returns how often the byte of path that was sent most often was
// sent.
func (o *Origin) MaxCopies(path string) int {
	most := 0
	for _, s := range o.Spans(path) {
		most = max(most, s.Copies)
	}
	return most
}

// Covered returns how many different bytes of the file at path were sent.
func (o *Origin) Covered(path string) int64 {
	var n int64
	for _, s := range o.Spans(path) {
		n += s.Len
	}
	return n
}

// Reset forgets the requests that have ended, of all paths. Running ones stay
// counted, with all they sent.
func (o *Origin) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for path, hits := range o.hits {
		o.hits[path] = slices.DeleteFunc(hits, func(h *Hit) bool { return h.Done })
	}
}
