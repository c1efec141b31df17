package origin

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

const (
	etag = `"v1"`
	ten  = "0123456789"
)

var gen100, _ = content.NewGeneration(etag, "", 100)

// ok206 is a good answer to bytes=10-19 of a file of 100.
const ok206 = "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 10-19/100\nContent-Length: 10\n"

const ok200 = "200 OK\nETag: \"v1\"\nContent-Length: 10\n"

func TestGetGoodAnswers(t *testing.T) {
	weak, _ := content.NewGeneration("", "Mon, 02 Jan 2006 15:04:05 GMT", 100)
	small, _ := content.NewGeneration(etag, "", 10)
	empty, _ := content.NewGeneration(etag, "", 0)
	for name, tc := range map[string]struct {
		asked      content.Range
		answer     string
		rng        content.Range
		size       int64
		gen        content.Generation
		sequential bool
	}{
		"the asked range":                         {content.Range{Off: 10, Len: 10}, ok206 + "\n" + ten, content.Range{Off: 10, Len: 10}, 100, gen100, false},
		"range cut at the end":                    {content.Range{Off: 90, Len: 1000}, "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 90-99/100\nContent-Length: 10\n\n" + ten, content.Range{Off: 90, Len: 10}, 100, gen100, false},
		"an open end":                             {content.Range{Off: 90, Len: math.MaxInt64}, "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 90-99/100\nContent-Length: 10\n\n" + ten, content.Range{Off: 90, Len: 10}, 100, gen100, false},
		"unit in capitals":                        {content.Range{Off: 10, Len: 10}, "206 Partial Content\nETag: \"v1\"\nContent-Range: Bytes 10-19/100\nContent-Length: 10\n\n" + ten, content.Range{Off: 10, Len: 10}, 100, gen100, false},
		"chunked 206":                             {content.Range{Off: 10, Len: 10}, "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 10-19/100\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", content.Range{Off: 10, Len: 10}, 100, gen100, false},
		"chunked 206 that goes on":                {content.Range{Off: 10, Len: 10}, "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 10-19/100\nTransfer-Encoding: chunked\n\nc\r\n0123456789xx\r\n0\r\n\r\n", content.Range{Off: 10, Len: 10}, 100, gen100, false},
		"bytes behind Content-Length":             {content.Range{Off: 10, Len: 10}, ok206 + "\n" + ten + strings.Repeat("junk", 1000), content.Range{Off: 10, Len: 10}, 100, gen100, false},
		"Last-Modified only":                      {content.Range{Off: 10, Len: 10}, "206 Partial Content\nLast-Modified: Mon, 02 Jan 2006 15:04:05 GMT\nContent-Range: bytes 10-19/100\n\n" + ten, content.Range{Off: 10, Len: 10}, 100, weak, false},
		"weak ETag and Last-Modified":             {content.Range{Off: 10, Len: 10}, "206 Partial Content\nETag: W/\"v1\"\nLast-Modified: Mon, 02 Jan 2006 15:04:05 GMT\nContent-Range: bytes 10-19/100\n\n" + ten, content.Range{Off: 10, Len: 10}, 100, weak, false},
		"whole file":                              {content.Range{}, ok200 + "\n" + ten, content.Range{Len: 10}, 10, small, false},
		"whole file, Accept-Ranges none":          {content.Range{}, ok200 + "Accept-Ranges: None\n\n" + ten, content.Range{Len: 10}, 10, small, true},
		"200 for a range inside":                  {content.Range{Off: 3, Len: 4}, ok200 + "\n" + ten, content.Range{Len: 10}, 10, small, true},
		"200 for a range behind the end":          {content.Range{Off: 30, Len: 4}, ok200 + "\n" + ten, content.Range{Len: 10}, 10, small, true},
		"200 for a range that covers the file":    {content.Range{Off: 0, Len: 10}, ok200 + "\n" + ten, content.Range{Len: 10}, 10, small, false},
		"empty file, 200":                         {content.Range{Off: 0, Len: 10}, "200 OK\nETag: \"v1\"\nContent-Length: 0\n\n", content.Range{}, 0, empty, false},
		"Vary: Accept-Encoding, identity, public": {content.Range{Off: 10, Len: 10}, ok206 + "Vary: Accept-Encoding\nContent-Encoding: identity\nCache-Control: public, max-age=5\n\n" + ten, content.Range{Off: 10, Len: 10}, 100, gen100, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := says(t, tc.answer)
			resp, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: tc.asked, Expect: tc.gen})
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Range != tc.rng || resp.Meta.Size != tc.size || resp.Meta.Generation != tc.gen || resp.Meta.Sequential != tc.sequential {
				t.Errorf("got %v of %+v, want %v of %d, %s, sequential %t", resp.Range, resp.Meta, tc.rng, tc.size, tc.gen, tc.sequential)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != ten[:tc.rng.Len] {
				t.Errorf("body %q, %v; want %q", got, err, ten[:tc.rng.Len])
			}
		})
	}
}

func TestGetKeepsMetadata(t *testing.T) {
	o := says(t, ok206+"Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT\nContent-Type: application/x-tar\nCache-Control: max-age=60\nCache-Control: immutable\nAge: 7\nDate: Mon, 23 Nov 2026 10:00:00 GMT\nX-Two: b\nX-Two: a\nExpires: 0\nServer: x\n"+
		"Connection: X-Hop\nX-Hop: 1\nKeep-Alive: 5\nContent-MD5: part\nAccept-Ranges: bytes\n\n"+ten)
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: content.Range{Off: 10, Len: 10}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := content.Meta{Size: 100, Generation: gen100, ETag: etag, LastModified: "Mon, 02 Jan 2006 15:04:05 GMT", ContentType: "application/x-tar",
		Fields: "Date: Mon, 23 Nov 2026 10:00:00 GMT\nExpires: 0\nServer: x\nX-Two: b\nX-Two: a\n"}
	if resp.Meta != want || resp.CacheControl != "max-age=60, immutable" {
		t.Errorf("got %+v, %q", resp.Meta, resp.CacheControl)
	}
	if resp.Age < 7*time.Second || resp.Age > 8*time.Second {
		t.Errorf("age %s", resp.Age)
	}
}

func TestGetUncacheable(t *testing.T) {
	asked := content.Range{Off: 10, Len: 10}
	part := func(fields string) string { return "206 Partial Content\nETag: \"v1\"\n" + fields + "\n\n" + ten }
	for name, tc := range map[string]struct{ answer, reason string }{
		"206 for another range":         {part("Content-Range: bytes 20-29/100"), "[20,30)"},
		"206 for less":                  {part("Content-Range: bytes 10-14/100"), "[10,15)"},
		"206 for more":                  {part("Content-Range: bytes 10-29/100"), "[10,30)"},
		"206 without Content-Range":     {part("X: y"), "0 Content-Range"},
		"206 with two Content-Ranges":   {part("Content-Range: bytes 10-19/100\nContent-Range: bytes 10-19/100"), "2 Content-Range"},
		"206 of unknown size":           {part("Content-Range: bytes 10-19/*"), "Content-Range"},
		"206 of a size in the range":    {part("Content-Range: bytes 10-19/15"), "Content-Range"},
		"206 of a negative size":        {part("Content-Range: bytes 10-19/-100"), "Content-Range"},
		"206 of no number":              {part("Content-Range: bytes 10-19/99999999999999999999"), "Content-Range"},
		"206 backwards":                 {part("Content-Range: bytes 19-10/100"), "Content-Range"},
		"206 in lines":                  {part("Content-Range: lines 10-19/100"), "Content-Range"},
		"206 of other Content-Length":   {part("Content-Range: bytes 10-19/100\nContent-Length: 9"), "Content-Length"},
		"multipart":                     {part("Content-Type: multipart/byteranges; boundary=x\nContent-Range: bytes 10-19/100"), "several parts"},
		"no validator":                  {"206 Partial Content\nContent-Range: bytes 10-19/100\n\n" + ten, "neither"},
		"weak ETag only":                {"206 Partial Content\nETag: W/\"v1\"\nContent-Range: bytes 10-19/100\n\n" + ten, "neither"},
		"chunked 200 without an ETag":   {"200 OK\nLast-Modified: Mon, 02 Jan 2006 15:04:05 GMT\nTransfer-Encoding: chunked\n\n0\r\n\r\n", "no Content-Length"},
		"200 until the connection ends": {"200 OK\nETag: \"v1\"\n\n" + ten, "no Content-Length"},
		"204":                           {"204 No Content\nETag: \"v1\"\n\n", "204"},
		"no-store":                      {ok206 + "Cache-Control: max-age=3, No-Store\n\n" + ten, "no-store"},
		"no-cache":                      {ok206 + "Cache-Control: public\nCache-Control: no-cache\n\n" + ten, "no-cache"},
		"private":                       {ok206 + "Cache-Control: private\n\n" + ten, "private"},
		"private with fields":           {ok206 + "Cache-Control: private=\"x-user\"\n\n" + ten, "private"},
		"Set-Cookie":                    {ok206 + "Set-Cookie: a=b\n\n" + ten, "cookie"},
		"Vary on more":                  {ok206 + "Vary: Accept-Encoding, User-Agent\n\n" + ten, "user-agent"},
		"Vary on everything":            {ok206 + "Vary: *\n\n" + ten, "*"},
		"an ETag that is no UTF-8":      {"206 Partial Content\nETag: \"\xe9\"\nContent-Range: bytes 10-19/100\n\n" + ten, "UTF-8"},
		"a type that is no UTF-8":       {ok206 + "Content-Type: text/plain; x=\xe9\n\n" + ten, "UTF-8"},
		"too long Cache-Control":        {ok206 + "Cache-Control: " + strings.Repeat("x", content.MaxFields) + "\n\n" + ten, "at most"},
		"gzip though not accepted":      {ok206 + "Content-Encoding: gzip\n\n" + ten, "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			o := says(t, tc.answer)
			_, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: asked})
			if !errors.Is(err, ErrUncacheable) || !strings.Contains(err.Error(), tc.reason) {
				t.Errorf("got %v, want ErrUncacheable because of %q", err, tc.reason)
			}
		})
	}
	t.Run("206 for the whole file", func(t *testing.T) {
		o := says(t, "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 0-9/10\n\n"+ten)
		if _, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url}); !errors.Is(err, ErrUncacheable) {
			t.Errorf("got %v, want ErrUncacheable", err)
		}
	})
}

// TestDigestWithCookies: what a digest names is the same for everybody, whatever
// cookies come with it and whatever it is said to vary by; the cookies are not
// kept. What its origin wants nobody to store is not stored all the same.
func TestDigestWithCookies(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	ask := func(fields string) (*Response, error) {
		o := says(t, "206 Partial Content\nContent-Range: bytes 10-19/100\n"+fields+"\n\n"+ten)
		return loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: content.Range{Off: 10, Len: 10}, Digest: digest})
	}
	resp, err := ask("Set-Cookie: sid=hunter2; Path=/\nVary: Cookie, Authorization\nX-Kept: yes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != ten {
		t.Errorf("body %q, %v", got, err)
	}
	if fields := string(resp.Meta.Fields); strings.Contains(fields, "hunter2") || !strings.Contains(fields, "X-Kept") {
		t.Errorf("kept fields %q", fields)
	}
	if _, err := ask("Set-Cookie: a=b\nCache-Control: no-store"); !errors.Is(err, ErrUncacheable) {
		t.Errorf("no-store: %v", err)
	}
}

func TestDigestNeedsNoValidator(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	o := says(t, "206 Partial Content\nContent-Range: bytes 10-19/100\n\n"+ten)
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{
		URL: o.url, Range: content.Range{Off: 10, Len: 10}, Digest: digest, Expect: content.DigestGeneration(digest),
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Meta.Generation != content.DigestGeneration(digest) {
		t.Errorf("generation %s is not the digest's", resp.Meta.Generation)
	}
}

func TestGetChanged(t *testing.T) {
	o := says(t, ok206+"\n"+ten, strings.Replace(ok206, "v1", "v2", 1)+"\n"+ten)
	c := loopback(t, Config{})
	r := Request{URL: o.url, Range: content.Range{Off: 10, Len: 10}, Expect: gen100}
	resp, err := c.Get(deadline(t), r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	_, err = c.Get(deadline(t), r)
	var changed *ChangedError
	if !errors.Is(err, ErrChanged) || !errors.As(err, &changed) || changed.Meta.ETag != `"v2"` || changed.Expected != gen100 {
		t.Errorf("got %v, want ErrChanged to \"v2\"", err)
	}
}

func TestGetStatus(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		answer string
		status int
		wait   time.Duration
		header http.Header
	}{
		"404":                      {"404 Not Found\nX-Secret: 1\nContent-Length: 0\n\n", 404, 0, http.Header{}},
		"500":                      {"500 Internal Server Error\n\noops", 500, 0, http.Header{}},
		"304":                      {"304 Not Modified\nETag: \"v1\"\n\n", 304, 0, http.Header{"Etag": {etag}}},
		"401":                      {"401 Unauthorized\nWWW-Authenticate: Bearer realm=x\nContent-Length: 0\n\n", 401, 0, http.Header{"Www-Authenticate": {"Bearer realm=x"}}},
		"429, seconds":             {"429 Too Many Requests\nRetry-After: 7\nContent-Length: 0\n\n", 429, 7 * time.Second, http.Header{"Retry-After": {"7"}}},
		"503, date":                {"503 Service Unavailable\nRetry-After: Mon, 23 Nov 2026 12:00:30 GMT\nContent-Length: 0\n\n", 503, 30 * time.Second, http.Header{"Retry-After": {"Mon, 23 Nov 2026 12:00:30 GMT"}}},
		"503, date long ago":       {"503 Service Unavailable\nRetry-After: Mon, 23 Nov 2020 12:00:30 GMT\n\n", 503, 0, http.Header{"Retry-After": {"Mon, 23 Nov 2020 12:00:30 GMT"}}},
		"503, for ever":            {"503 Service Unavailable\nRetry-After: 4000000000\n\n", 503, 24 * time.Hour, http.Header{"Retry-After": {"4000000000"}}},
		"503, nonsense":            {"503 Service Unavailable\nRetry-After: -5\n\n", 503, 0, http.Header{"Retry-After": {"-5"}}},
		"redirect is not followed": {"302 Found\nLocation: http://127.0.0.1:1/x\n\n", 302, 0, http.Header{"Location": {"http://127.0.0.1:1/x"}}},
		"416 behind the end":       {"416 Range Not Satisfiable\nContent-Range: bytes */100\n\n", 416, 0, http.Header{"Content-Range": {"bytes */100"}}},
	} {
		t.Run(name, func(t *testing.T) {
			o := says(t, tc.answer)
			c := loopback(t, Config{Now: func() time.Time { return now }})
			_, err := c.Get(deadline(t), Request{URL: o.url + "?signature=secret", Range: content.Range{Off: 200, Len: 10}})
			var status *StatusError
			if !errors.As(err, &status) {
				t.Fatalf("got %v, want a StatusError", err)
			}
			if status.Status != tc.status || status.RetryAfter != tc.wait || status.URL != o.url {
				t.Errorf("got %+v", status)
			}
			if len(status.Header) != len(tc.header) {
				t.Errorf("header %v, want %v", status.Header, tc.header)
			}
			for k, v := range tc.header {
				if !slices.Equal(status.Header[k], v) {
					t.Errorf("header %v, want %v", status.Header, tc.header)
				}
			}
			if got := o.asked(); len(got) != 1 {
				t.Errorf("asked %q, want one request", got)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows the query: %v", err)
			}
		})
	}
}

func TestGetEmptyFileAnswered416(t *testing.T) {
	o := says(t, "416 Range Not Satisfiable\nContent-Range: bytes */0\nContent-Length: 0\n\n", "200 OK\nETag: \"v1\"\nContent-Length: 0\n\n")
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: content.Range{Len: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); len(got) != 0 || err != nil || resp.Meta.Size != 0 || resp.Meta.Sequential {
		t.Errorf("got %+v with body %q, %v", resp.Meta, got, err)
	}
	if got, want := o.asked(), []string{"GET bytes=0-1048575", "GET"}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestHead(t *testing.T) {
	const byHead = "200 OK\nETag: \"v1\"\nContent-Length: 100\n\n"
	const byGet = "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 0-0/100\nContent-Length: 1\n\n0"
	const withRanges = "200 OK\nETag: \"v1\"\nAccept-Ranges: bytes\nContent-Length: 100\n\n"
	both := []string{"HEAD", "GET bytes=0-0"}
	for name, tc := range map[string]struct {
		answers    []string
		asked      []string
		sequential bool
	}{
		"answered":                      {[]string{withRanges}, []string{"HEAD"}, false},
		"ranges not announced":          {[]string{byHead, byGet}, both, false},
		"no ranges":                     {[]string{byHead, byHead + strings.Repeat("x", 50)}, both, true},
		"403":                           {[]string{"403 Forbidden\nContent-Length: 0\n\n", byGet}, both, false},
		"405":                           {[]string{"405 Method Not Allowed\n\n", byGet}, both, false},
		"501":                           {[]string{"501 Not Implemented\n\n", byGet}, both, false},
		"no length":                     {[]string{"200 OK\nETag: \"v1\"\nTransfer-Encoding: chunked\n\n", byGet}, both, false},
		"403, then 200 for the range":   {[]string{"403 Forbidden\n\n", byHead + strings.Repeat("x", 50)}, both, true},
		"405, then a range that is 416": {[]string{"405 Method Not Allowed\n\n", "416 Range Not Satisfiable\n\n", byHead}, append(slices.Clone(both), "GET"), true},
	} {
		t.Run(name, func(t *testing.T) {
			o := says(t, tc.answers...)
			resp, err := loopback(t, Config{}).Head(deadline(t), Request{URL: o.url, Range: content.Range{Off: 50, Len: 10}})
			if err != nil {
				t.Fatal(err)
			}
			if resp.Meta.Size != 100 || resp.Meta.Generation != gen100 || resp.Meta.Sequential != tc.sequential || !resp.Range.Empty() {
				t.Errorf("got %+v", resp)
			}
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("body gave %d bytes, %v", n, err)
			}
			if got := o.asked(); !slices.Equal(got, tc.asked) {
				t.Errorf("asked %q, want %q", got, tc.asked)
			}
		})
	}
	t.Run("404", func(t *testing.T) {
		o := says(t, "404 Not Found\n\n")
		_, err := loopback(t, Config{}).Head(deadline(t), Request{URL: o.url})
		if status := new(StatusError); !errors.As(err, &status) || status.Status != 404 {
			t.Errorf("got %v, want a StatusError 404", err)
		}
	})
}

func TestRequestIsCanonical(t *testing.T) {
	o := says(t, ok206+"\n"+ten)
	c := loopback(t, Config{UserAgent: "p2pnode/1.2"})
	resp, err := c.Get(deadline(t), Request{
		URL:    o.url + "?a=%7e&b#frag",
		Range:  content.Range{Off: 10, Len: 10},
		Header: http.Header{"Authorization": {"Basic eA=="}, "Cookie": {"a=b"}, "X-Other": {"1"}, "User-Agent": {"curl"}, "Accept-Encoding": {"gzip"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	got := o.requests[0]
	var b bytes.Buffer
	got.Header.Write(&b)
	want := "Accept: */*\r\nAccept-Encoding: identity\r\nAuthorization: Basic eA==\r\nCookie: a=b\r\nRange: bytes=10-19\r\nUser-Agent: p2pnode/1.2\r\n"
	if b.String() != want || got.RequestURI != "/file?a=%7e&b" {
		t.Errorf("asked %s with\n%swant\n%s", got.RequestURI, b.String(), want)
	}
}

func TestGetRefusesNonsense(t *testing.T) {
	c := loopback(t, Config{})
	if _, err := c.Get(deadline(t), Request{URL: "http://127.0.0.1:1/", Range: content.Range{Off: -1, Len: 10}}); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("negative offset: got %v", err)
	}
	for _, u := range []string{"ftp://127.0.0.1/x", "file:///etc/passwd", "http:///x", "%", "gopher://127.0.0.1:1/"} {
		if _, err := c.Get(deadline(t), Request{URL: u}); !errors.Is(err, ErrForbiddenTarget) {
			t.Errorf("URL %q: got %v", u, err)
		}
	}
}
