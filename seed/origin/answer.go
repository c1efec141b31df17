package origin

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// accept judges an answer to a request for asked (empty: the whole file) and
// takes it over: it becomes the Response's, or it is closed.
func (c *Client) accept(a *answer, r Request, asked content.Range, t *ticket) (*Response, error) {
	resp, err := c.judge(a, r, asked)
	if err != nil {
		a.close(err)
		return nil, err
	}
	if resp.Meta.Sequential {
		t.isSequential()
	}
	resp.Body = c.newBody(a, resp.Range, resp.Meta.Size, t)
	return resp, nil
}

// judge decides from the header alone what an answer holds, and whether a
// cache may have it.
func (c *Client) judge(a *answer, r Request, asked content.Range) (*Response, error) {
	if a.StatusCode >= 300 {
		return nil, newStatusError(a.Response, c.cfg.Now())
	}
	if err := shareable(a.Header, r.Digest); err != nil {
		return nil, err
	}
	size, rng, err := held(a.Response, r, asked)
	if err != nil {
		return nil, err
	}
	fields, err := fieldsOf(a.Response, c.cfg.Now())
	if err != nil {
		return nil, err
	}
	meta := content.Meta{
		Size:         size,
		ETag:         a.Header.Get("Etag"),
		LastModified: a.Header.Get("Last-Modified"),
		ContentType:  a.Header.Get("Content-Type"),
		Fields:       fields,
		Sequential:   sequential(a.Response, asked, size) || a.ContentLength < 0 && a.StatusCode == http.StatusOK,
	}
	switch ok := false; {
	case r.Digest != "":
		meta.Generation = content.DigestGeneration(r.Digest)
	case size < 0:
		if meta.Generation, ok = content.OpenGeneration(meta.ETag); !ok {
			return nil, uncacheable("no Content-Length and no strong ETag")
		}
	default:
		if meta.Generation, ok = content.NewGeneration(meta.ETag, meta.LastModified, size); !ok {
			return nil, uncacheable("neither a strong ETag nor Last-Modified")
		}
	}
	control := strings.Join(a.Header.Values("Cache-Control"), ", ")
	if err := content.CheckValues(meta.ETag, meta.LastModified, meta.ContentType, control); err != nil {
		return nil, uncacheable("%v", err)
	}
	if !r.Expect.IsZero() && r.Expect != meta.Generation {
		return nil, &ChangedError{Expected: r.Expect, Meta: meta}
	}
	return &Response{
		Meta:         meta,
		CacheControl: control,
		Age:          ageOf(a.Header) + c.cfg.Now().Sub(a.sent),
		Range:        rng,
	}, nil
}

// fieldsOf returns the header fields that a cache keeps (RFC 9111 section 3.1)
// besides those that have a place of their own.
func fieldsOf(a *http.Response, now time.Time) (content.Fields, error) {
	named := tokens(a.Header, "Connection")
	if len(a.Header.Values("Date")) == 0 { // RFC 9110 section 6.6.1
		a.Header.Set("Date", now.UTC().Format(http.TimeFormat))
	}
	fields, err := content.NewFields(func(yield func(name, value string) bool) {
		for _, name := range slices.Sorted(maps.Keys(a.Header)) {
			if slices.Contains(named, strings.ToLower(name)) || a.StatusCode == http.StatusPartialContent && ofPart(name) {
				continue
			}
			for _, value := range a.Header[name] {
				if !yield(name, value) {
					return
				}
			}
		}
	})
	if err != nil {
		return "", uncacheable("%v", err)
	}
	return fields, nil
}

// ofPart reports whether a field of a 206 speaks of the part alone.
func ofPart(name string) bool { return name == "Content-Md5" || name == "Content-Digest" }

// ageOf returns the Age field's value, of several the first; 0 where there is none
// that can be read (RFC 9111 section 5.1).
func ageOf(h http.Header) time.Duration {
	first, _, _ := strings.Cut(h.Get("Age"), ",")
	seconds, err := parseNumber(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return time.Duration(min(seconds, 1<<31)) * time.Second
}

// shareable refuses what no cache may give to others, by RFC 9111 section 3
// read strictly: qualified forms such as no-cache="field" count as the bare ones.
// What a digest names is the same for everybody, so that cookies, which are not
// kept, and Vary do not matter: registries such as Harbor send both with blobs.
func shareable(h http.Header, digest string) error {
	for _, d := range tokens(h, "Cache-Control") {
		name, _, _ := strings.Cut(d, "=")
		switch strings.TrimSpace(name) {
		case "no-store", "no-cache", "private":
			return uncacheable("Cache-Control: %s", d)
		}
	}
	if digest == "" && len(h.Values("Set-Cookie")) > 0 {
		return uncacheable("it sets a cookie")
	}
	for _, field := range tokens(h, "Vary") {
		if digest == "" && field != "accept-encoding" {
			return uncacheable("it varies by %s", field)
		}
	}
	for _, coding := range tokens(h, "Content-Encoding") {
		if coding != "identity" {
			return uncacheable("content coding %s, though none was accepted", coding)
		}
	}
	return nil
}

// tokens returns the comma-separated members of a field, in lower case.
func tokens(h http.Header, name string) []string {
	var out []string
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}

// held returns the file's size and the range that the answer's body holds.
func held(a *http.Response, r Request, asked content.Range) (size int64, rng content.Range, err error) {
	switch {
	case a.StatusCode == http.StatusOK && a.ContentLength < 0:
		return untold(a, r)
	case a.StatusCode == http.StatusOK:
		return a.ContentLength, content.Range{Len: a.ContentLength}, nil
	case a.StatusCode == http.StatusPartialContent && !asked.Empty():
		return partial(a, asked)
	default:
		return 0, rng, uncacheable("unexpected status %d", a.StatusCode)
	}
}

// untold is held for an answer that does not tell its length. Where it is of a
// generation whose size is known, that is it.
func untold(a *http.Response, r Request) (size int64, rng content.Range, err error) {
	whole := content.Range{Len: r.Size}
	for _, want := range []content.Generation{r.Expect, r.Known} {
		switch gen, ok := content.NewGeneration(a.Header.Get("Etag"), "", r.Size); {
		case want.IsZero() || r.Size <= 0:
		case ok && gen == want, r.Digest != "" && want == content.DigestGeneration(r.Digest):
			return r.Size, whole, nil
		}
	}
	if a.Request.Method != http.MethodHead && a.ProtoMajor == 1 && !slices.Contains(a.TransferEncoding, "chunked") {
		return 0, rng, uncacheable("no Content-Length, and a body that ends with its connection, however that ends")
	}
	return -1, content.Range{Len: content.OpenSize}, nil
}

func partial(a *http.Response, asked content.Range) (size int64, rng content.Range, err error) {
	if t := strings.ToLower(a.Header.Get("Content-Type")); strings.HasPrefix(t, "multipart/byteranges") {
		return 0, rng, uncacheable("several parts, though one range was asked")
	}
	fields := a.Header.Values("Content-Range")
	if len(fields) != 1 {
		return 0, rng, uncacheable("206 with %d Content-Range fields", len(fields))
	}
	size, rng, ok := parseContentRange(fields[0])
	if !ok {
		return 0, rng, uncacheable("Content-Range %q does not tell range and length", fields[0])
	}
	if want := asked.Intersect(content.Range{Len: size}); rng != want {
		return 0, rng, uncacheable("sent %v of %d bytes, asked for %v", rng, size, asked)
	}
	if a.ContentLength >= 0 && a.ContentLength != rng.Len {
		return 0, rng, uncacheable("Content-Length %d for a range of %d bytes", a.ContentLength, rng.Len)
	}
	return size, rng, nil
}

// parseContentRange reads "bytes first-last/size" (RFC 9110 section 14.4).
// Forms without a range or without a size are not ok.
func parseContentRange(s string) (size int64, rng content.Range, ok bool) {
	unit, rest, _ := strings.Cut(s, " ")
	span, total, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	from, err1 := parseNumber(first)
	to, err2 := parseNumber(last)
	size, err3 := parseNumber(total)
	if err1 != nil || err2 != nil || err3 != nil || !strings.EqualFold(unit, "bytes") || from > to || to >= size {
		return 0, content.Range{}, false
	}
	return size, content.Span(from, to+1), true
}

// parseNumber reads an unsigned decimal that fits in an int64.
func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// sequential reports whether the answer shows that the origin has no ranges: it
// says so, or it sent the whole file though only a part was asked.
func sequential(a *http.Response, asked content.Range, size int64) bool {
	for _, t := range tokens(a.Header, "Accept-Ranges") {
		if t == "none" {
			return true
		}
	}
	return a.StatusCode == http.StatusOK && !asked.Empty() && !asked.Contains(content.Range{Len: size})
}
