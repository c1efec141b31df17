package proxy

import (
	"net/http"
	"strings"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// precondition evaluates the conditional fields of a GET or HEAD request in the
// order of RFC 9110 section 13.2.2. It returns 0 where the request goes on, 304
// or 412 otherwise. Fields that cannot be parsed are ignored.
func precondition(h http.Header, meta content.Meta) int {
	if match := h.Values("If-Match"); len(match) > 0 {
		if !matchETag(match, meta.ETag, strongEqual) {
			return http.StatusPreconditionFailed
		}
	} else if since, ok := httpDate(h.Get("If-Unmodified-Since")); ok {
		if modified, ok := httpDate(meta.LastModified); ok && modified.After(since) {
			return http.StatusPreconditionFailed
		}
	}
	if match := h.Values("If-None-Match"); len(match) > 0 {
		if matchETag(match, meta.ETag, weakEqual) {
			return http.StatusNotModified
		}
	} else if since, ok := httpDate(h.Get("If-Modified-Since")); ok {
		if modified, ok := httpDate(meta.LastModified); ok && !modified.After(since) {
			return http.StatusNotModified
		}
	}
	return 0
}

// rangeApplies evaluates If-Range (RFC 9110 section 13.1.5): a strong ETag, or
// a date that is exactly Last-Modified, where the origin's clock was a second
// further when it sent that (section 8.8.2.2): else the file may have changed
// again in that second. Without the field a range applies.
func rangeApplies(h http.Header, meta content.Meta) bool {
	fields := h.Values("If-Range")
	switch {
	case len(fields) == 0:
		return true
	case len(fields) > 1:
		return false
	}
	if field := strings.TrimSpace(fields[0]); strings.HasSuffix(field, `"`) {
		return strongEqual(field, meta.ETag)
	}
	date, ok1 := httpDate(fields[0])
	modified, ok2 := httpDate(meta.LastModified)
	sent, ok3 := httpDate(meta.Fields.Get("Date"))
	return ok1 && ok2 && date.Equal(modified) && (!ok3 || sent.After(modified))
}

// matchETag reports whether a list of entity tags, or "*", has one that equals
// etag; equal sees well-formed tags alone.
func matchETag(fields []string, etag string, equal func(a, b string) bool) bool {
	list := strings.TrimSpace(strings.Join(fields, ","))
	if list == "*" {
		return true
	}
	for {
		list = strings.TrimLeft(list, " \t,")
		tag, rest := cutETag(list)
		if tag == "" {
			return false
		}
		if equal(tag, etag) {
			return true
		}
		list = rest
	}
}

// cutETag takes the entity tag that s begins with; none is "". Tags may hold
// commas, so a list cannot just be split.
func cutETag(s string) (tag, rest string) {
	quote := 0
	if strings.HasPrefix(s, "W/") {
		quote = 2
	}
	if len(s) <= quote || s[quote] != '"' {
		return "", ""
	}
	end := strings.IndexByte(s[quote+1:], '"')
	if end < 0 {
		return "", ""
	}
	end += quote + 2
	return s[:end], s[end:]
}

// strongEqual and weakEqual compare as RFC 9110 section 8.8.3.2 says.
func strongEqual(a, b string) bool { return content.StrongETag(a) && a == b }

func weakEqual(a, b string) bool {
	return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

func httpDate(s string) (time.Time, bool) {
	if s == "" { // as usual, and an error takes a microsecond to make
		return time.Time{}, false
	}
	t, err := http.ParseTime(strings.TrimSpace(s))
	return t, err == nil
}
