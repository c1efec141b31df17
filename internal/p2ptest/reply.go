package p2ptest

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// reply is what an origin sends for one request.
type reply struct {
	status int
	header http.Header
	body   []byte
	file   bool  // body is a part of the object
	off    int64 // of body in the object
}

// reply decides the answer. It knows single ranges only and answers several
// with the whole file, as RFC 9110 section 14.2 allows. It is written out
// rather than left to http.ServeContent so that a test does not check one
// implementation of ranges against itself.
func (obj Object) reply(r *http.Request, f Fault, found bool) reply {
	switch {
	case f.Status != 0:
		h := http.Header{}
		maps.Copy(h, f.Header)
		return reply{status: f.Status, header: h, body: []byte(http.StatusText(f.Status))}
	case !found:
		return reply{status: http.StatusNotFound, header: http.Header{}, body: []byte("no such file")}
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return reply{status: http.StatusMethodNotAllowed, header: http.Header{"Allow": {"GET, HEAD"}}}
	case r.Method == http.MethodHead && obj.NoHead:
		return reply{status: http.StatusForbidden, header: http.Header{}}
	}
	h := obj.head()
	if obj.unchanged(r) {
		return reply{status: http.StatusNotModified, header: h}
	}
	size := int64(len(obj.Data))
	rng := r.Header.Get("Range")
	if rng == "" || obj.NoRanges || f.IgnoreRange || !obj.ifRange(r) {
		return reply{status: http.StatusOK, header: h, body: obj.Data, file: true}
	}
	off, end, ok := parseRange(rng, size)
	if !ok {
		return reply{status: http.StatusOK, header: h, body: obj.Data, file: true}
	}
	if off >= end {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return reply{status: http.StatusRequestedRangeNotSatisfiable, header: h}
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, end-1, size))
	if f.ContentRange != "" {
		h.Set("Content-Range", f.ContentRange)
	}
	return reply{status: http.StatusPartialContent, header: h, body: obj.Data[off:end], file: true, off: off}
}

func (obj Object) head() http.Header {
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	if obj.ContentType != "" {
		h.Set("Content-Type", obj.ContentType)
	}
	if obj.ETag != "" {
		h.Set("ETag", obj.ETag)
	}
	if !obj.LastModified.IsZero() {
		h.Set("Last-Modified", obj.lastModified())
	}
	if !obj.NoRanges {
		h.Set("Accept-Ranges", "bytes")
	}
	maps.Copy(h, obj.Header)
	return h
}

func (obj Object) lastModified() string {
	return obj.LastModified.UTC().Format(http.TimeFormat)
}

func (obj Object) unchanged(r *http.Request) bool {
	if v := r.Header.Get("If-None-Match"); v != "" {
		return obj.ETag != "" && (v == "*" || strings.Contains(v, obj.ETag))
	}
	v := r.Header.Get("If-Modified-Since")
	return v != "" && !obj.LastModified.IsZero() && v == obj.lastModified()
}

// ifRange reports whether the request's If-Range, if any, names this object.
func (obj Object) ifRange(r *http.Request) bool {
	v := r.Header.Get("If-Range")
	if v == "" {
		return true
	}
	if strings.HasPrefix(v, `"`) {
		return v == obj.ETag
	}
	return !obj.LastModified.IsZero() && v == obj.lastModified()
}

// parseRange reads a header of one byte range as the half-open [off, end).
// It reports false for what a server ignores; an empty range is one that
// cannot be satisfied.
func parseRange(s string, size int64) (off, end int64, ok bool) {
	spec, isBytes := strings.CutPrefix(s, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !isBytes || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false
		}
		return max(size-n, 0), size, true
	}
	off, err := strconv.ParseInt(first, 10, 64)
	if err != nil || off < 0 {
		return 0, 0, false
	}
	if last == "" {
		return off, size, true
	}
	end, err = strconv.ParseInt(last, 10, 64)
	if err != nil || end < off {
		return 0, 0, false
	}
	return off, min(end, size-1) + 1, true
}
