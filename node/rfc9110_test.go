package node_test

import (
	"net/http"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

func rfc9110() []requirement {
	const fields = "Content-Disposition: attachment; filename=\"a b\"\nContent-Language: en\nContent-Location: /one\nExpires: Fri, 01 Jan 2027 00:00:00 GMT\n" +
		"Cache-Control: max-age=600\nVary: Accept-Encoding\nX-Two: a\nX-Two: b\nLink: </x>; rel=y\n"
	// warm brings the file in.
	warm := exchange{origin: -1, body: "all"}
	untagged := func(o *p2ptest.Object) { o.ETag = "" }
	weak := func(o *p2ptest.Object) { o.ETag = `W/"one"` }
	undated := func(o *p2ptest.Object) { o.LastModified = time.Time{} }
	return []requirement{
		{"9110-6.6.1", "a Date for an answer without one", "", nil, []exchange{warm}},
		{"9110-7.6.1", "fields of the connection are not passed on", "Connection: X-Hop\nX-Hop: 1\nProxy-Authenticate: Basic\nX-Kept: 1\n", nil, []exchange{
			{body: "all", origin: -1, want: "X-Hop:\nProxy-Authenticate:\nX-Kept: 1"},
			{body: "all", want: "X-Hop:\nX-Kept: 1"},
		}},
		{"9110-8.3", "no Content-Type of its own", "", func(o *p2ptest.Object) { o.Header = http.Header{"Content-Type": nil} }, []exchange{{origin: -1, want: "Content-Type:"}}},
		{"9110-8.6", "Content-Length is that of the content", "", nil, []exchange{
			warm, {want: "Content-Length: 100000"}, {method: "HEAD", want: "Content-Length: 100000"}, {ask: "Range: bytes=5-9", status: 206, want: "Content-Length: 5"},
		}},
		{"9110-9.3.2", "HEAD is GET without content", fields, nil, []exchange{
			warm, {method: "HEAD", body: "none", want: "ETag: " + rfcTag + "\nContent-Language: en\nX-Two: a, b"},
			{method: "HEAD", ask: "If-None-Match: " + rfcTag, status: 304, body: "none"},
		}},
		{"9110-13.1.1", "If-Match compares strongly", "", nil, []exchange{
			warm, {ask: "If-Match: " + rfcTag, body: "all"}, {ask: "If-Match: *", body: "all"}, {ask: "If-Match: \"two\", " + rfcTag, body: "all"},
			{ask: "If-Match: \"two\"", status: 412}, {ask: "If-Match: W/" + rfcTag, status: 412},
		}},
		{"9110-13.1.1", "If-Match of a weak tag is false", "", weak, []exchange{warm, {ask: "If-Match: W/" + rfcTag, status: 412}}},
		{"9110-13.1.2", "If-None-Match compares weakly", "", nil, []exchange{
			warm, {ask: "If-None-Match: W/" + rfcTag, status: 304, body: "none"}, {ask: "If-None-Match: *", status: 304},
			{ask: "If-None-Match: \"a,b\"\nIf-None-Match: " + rfcTag, status: 304}, {ask: "If-None-Match: \"two\"", body: "all"},
		}},
		{"9110-13.1.3", "If-Modified-Since is ignored beside If-None-Match", "", nil, []exchange{
			warm, {ask: "If-None-Match: \"two\"\nIf-Modified-Since: " + rfcAfter, body: "all"}, {ask: "If-Modified-Since: " + rfcModified, status: 304},
			{ask: "If-Modified-Since: " + rfcBefore, body: "all"},
		}},
		{"9110-13.1.3", "If-Modified-Since is ignored where it is no date or there is none", "", undated, []exchange{
			warm, {ask: "If-Modified-Since: yesterday", body: "all"}, {ask: "If-Modified-Since: " + rfcAfter, body: "all"},
		}},
		{"9110-13.1.4", "If-Unmodified-Since is ignored beside If-Match, and where it is no date", "", nil, []exchange{
			warm, {ask: "If-Match: " + rfcTag + "\nIf-Unmodified-Since: " + rfcBefore, body: "all"}, {ask: "If-Unmodified-Since: soon", body: "all"},
			{ask: "If-Unmodified-Since: " + rfcBefore, status: 412}, {ask: "If-Unmodified-Since: " + rfcModified, body: "all"},
		}},
		{"9110-13.1.4", "If-Unmodified-Since is ignored without Last-Modified", "", undated, []exchange{warm, {ask: "If-Unmodified-Since: " + rfcBefore, body: "all"}}},
		{"9110-13.1.5", "If-Range that is false makes Range void", "", nil, []exchange{
			warm, {ask: "Range: bytes=0-9\nIf-Range: " + rfcTag, status: 206, body: "0-9"}, {ask: "Range: bytes=0-9\nIf-Range: \"two\"", body: "all"},
			{ask: "Range: bytes=0-9\nIf-Range: W/" + rfcTag, body: "all"}, {ask: "Range: bytes=0-9\nIf-Range: " + rfcModified, status: 206, body: "0-9"},
			{ask: "Range: bytes=0-9\nIf-Range: " + rfcAfter, body: "all"}, {ask: "If-Range: \"two\"", body: "all"},
		}},
		{"9110-13.1.5", "If-Range of a weak tag is false", "", weak, []exchange{warm, {ask: "Range: bytes=0-9\nIf-Range: W/" + rfcTag, body: "all"}}},
		{"9110-13.1.5", "If-Range of a date that is no strong validator is false", "Date: " + rfcModified, untagged, []exchange{
			warm, {ask: "Range: bytes=0-9\nIf-Range: " + rfcModified, origin: -1, body: "all"},
		}},
		{"9110-13.2.2", "order of the conditions", "", nil, []exchange{
			warm, {ask: "If-Match: \"two\"\nIf-None-Match: " + rfcTag, status: 412}, {ask: "If-Match: *\nIf-None-Match: " + rfcTag + "\nRange: bytes=0-9", status: 304},
			{ask: "If-None-Match: \"two\"\nRange: bytes=0-9\nIf-Range: " + rfcTag, status: 206, body: "0-9"},
		}},
		{"9110-14.1.2", "a suffix longer than the file is all of it", "", nil, []exchange{
			warm, {ask: "Range: bytes=-200000", status: 206, body: "0-99999", want: "Content-Range: bytes 0-99999/100000"}, {ask: "Range: bytes=-5", status: 206, body: "99995-99999"},
			{ask: "Range: bytes=99990-200000", status: 206, body: "99990-99999"}, {ask: "Range: bytes=99990-", status: 206, body: "99990-99999"},
		}},
		{"9110-14.2", "Range is for GET alone, after the conditions, and only in units known", "", nil, []exchange{
			warm, {method: "HEAD", ask: "Range: bytes=0-9", want: "Content-Length: 100000\nContent-Range:"}, {ask: "Range: lines=0-9", body: "all"},
			{ask: "Range: bytes=9-0", body: "all"}, {ask: "Range: bytes=0-9\nRange: bytes=5-6", body: "all"}, {ask: "Range: bytes=0-9\nIf-None-Match: *", status: 304},
		}},
		{"9110-14.3", "ranges are told of", "", nil, []exchange{{want: "Accept-Ranges: bytes", origin: -1}}},
		{"9110-14.4", "Content-Range where a 206 has one part, not where it has several", "", nil, []exchange{
			warm, {ask: "Range: bytes=0-0", status: 206, body: "0-0", want: "Content-Range: bytes 0-0/100000\nContent-Type: text/x-test"},
			{ask: "Range: bytes=0-9,50000-50009", status: 206, want: "Content-Range:"},
			{ask: "Range: bytes=0-9,5-20", status: 206, body: "0-20", want: "Content-Range: bytes 0-20/100000"},
		}},
		{"9110-15.3.7", "a 206 has the fields of the 200", fields, nil, []exchange{
			{ask: "Range: bytes=0-9", origin: -1, status: 206, body: "0-9", want: "Cache-Control: max-age=600\nETag: " + rfcTag + "\nExpires: Fri, 01 Jan 2027 00:00:00 GMT\nContent-Location: /one\nVary: Accept-Encoding"},
		}},
		{"9110-15.4.5", "a 304 has the fields that update a cache, and no content", fields, nil, []exchange{
			warm, {ask: "If-None-Match: *", status: 304, body: "none", want: "Cache-Control: max-age=600\nETag: " + rfcTag + "\nExpires: Fri, 01 Jan 2027 00:00:00 GMT\nContent-Location: /one\nVary: Accept-Encoding\nContent-Language:\nContent-Type:"},
		}},
		{"9110-15.5.17", "a 416 tells the length (SHOULD)", "", nil, []exchange{
			warm, {ask: "Range: bytes=100000-", status: 416, want: "Content-Range: bytes */100000"}, {ask: "Range: bytes=-0", status: 416},
			{ask: "Range: bytes=100000-,200000-200001", status: 416},
		}},
	}
}
