package origin

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/p2pnode/p2pnode/internal/content"
)

// FuzzJudge: whatever an origin answers, what is taken of it lies in the file and
// in what was asked, is for everybody, and can be said to peers; what is not taken
// is so for a reason that callers know.
func FuzzJudge(f *testing.F) {
	const ok, part = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 206 Partial Content\r\n"
	for _, s := range []string{
		ok + "Content-Length: 1000\r\nETag: \"v1\"\r\nAge: 17\r\nCache-Control: max-age=60\r\nAccept-Ranges: none\r\n\r\n",
		ok + "Content-Length: 5\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nConnection: X-One, close\r\nX-One: 1\r\nX-Two: 2\r\nExpires: 0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nETag: \"v1\"\r\n\r\n0\r\n\r\n",
		ok + "ETag: W/\"v1\"\r\nContent-Length: 0\r\nVary: Accept-Encoding, Cookie\r\nSet-Cookie: a=b\r\n\r\n",
		ok + "ETag: \"\xe9\"\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n",
		part + "Content-Range: bytes 0-99/1000\r\nContent-Length: 100\r\nETag: \"v1\"\r\nContent-MD5: x\r\n\r\n",
		part + "Content-Range: bytes 9223372036854775806-9223372036854775807/9223372036854775807\r\nETag: \"v1\"\r\n\r\n",
		part + "Content-Range: bytes 5-4/*\r\nCache-Control: private=\"x\", no-store\r\nContent-Type: multipart/byteranges\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: https://other/?sig=1\r\nRetry-After: Wed, 21 Oct 2099 07:28:00 GMT\r\n\r\n",
		"HTTP/1.0 503 x\r\nRetry-After: 99999999999\r\nWww-Authenticate: Basic\r\n\r\n",
	} {
		f.Add([]byte(s), int64(0), int64(100), uint8(0))
		f.Add([]byte(s), int64(0), int64(0), uint8(1))
		f.Add([]byte(s), int64(7), int64(1)<<62, uint8(6))
	}
	now := time.Unix(1_800_000_000, 0)
	c := &Client{cfg: Config{Now: func() time.Time { return now }}}
	known, digest := mustGen(1000), "sha256:"+strings.Repeat("0", 64)
	f.Fuzz(func(t *testing.T, raw []byte, off, n int64, how uint8) {
		if off < 0 || n < 0 || off > 1<<62 || n > 1<<62 {
			return
		}
		r := Request{Range: content.Range{Off: off, Len: n}}
		req := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "http", Host: "origin", Path: "/f", RawQuery: "token=hunter2"}}
		if how&1 != 0 {
			req.Method = http.MethodHead
		}
		if how&2 != 0 {
			r.Expect, r.Size = known, 1000
		}
		if how&4 != 0 {
			r.Digest, r.Known, r.Size = digest, content.DigestGeneration(digest), 1000
		}
		a, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), req)
		if err != nil {
			return
		}
		resp, err := c.judge(&answer{Response: a, sent: now}, r, r.Range)
		var status *StatusError
		switch {
		case errors.As(err, &status):
			if status.RetryAfter < 0 || status.RetryAfter > 24*time.Hour || status.Status < 300 || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("%+v", status)
			}
			return
		case err != nil:
			if !errors.Is(err, ErrUncacheable) && (!errors.Is(err, ErrChanged) || r.Expect.IsZero()) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		checkJudged(t, resp, a, r)
	})
}

// checkJudged checks what was taken of an answer.
func checkJudged(t *testing.T, resp *Response, a *http.Response, r Request) {
	meta, rng := resp.Meta, resp.Range
	if meta.Size < 0 && (meta.Size != -1 || !meta.Sequential || rng != content.Range{Len: content.OpenSize}) ||
		meta.Size >= 0 && !(content.Range{Len: meta.Size}).Contains(rng) || rng.Off < 0 || rng.Len < 0 ||
		a.StatusCode == http.StatusPartialContent && !r.Range.Contains(rng) || a.StatusCode == http.StatusOK && rng.Off != 0 {
		t.Errorf("took %v of %d bytes, asked for %v", rng, meta.Size, r.Range)
	}
	if meta.Generation.IsZero() || !r.Expect.IsZero() && meta.Generation != r.Expect {
		t.Errorf("generation %s, wanted %s", meta.Generation, r.Expect)
	}
	if err := meta.Fields.Check(); err != nil {
		t.Errorf("fields that peers refuse: %v", err)
	}
	for _, name := range strings.Split(a.Header.Get("Connection"), ",") {
		if v := meta.Fields.Get(strings.TrimSpace(name)); v != "" {
			t.Errorf("took a field of the connection: %s: %s", name, v)
		}
	}
	for _, v := range []string{meta.ETag, meta.LastModified, meta.ContentType, resp.CacheControl} {
		if !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			t.Errorf("took the field value %q", v)
		}
	}
	if resp.Age < 0 {
		t.Errorf("age %v", resp.Age)
	}
	for _, d := range strings.Split(strings.ToLower(resp.CacheControl), ",") {
		if d = strings.TrimSpace(d); d == "private" || d == "no-store" || d == "no-cache" {
			t.Errorf("took what says %q", resp.CacheControl)
		}
	}
	if r.Digest == "" && a.Header.Get("Set-Cookie") != "" || a.Header.Get("Content-Encoding") == "gzip" {
		t.Errorf("took what is for one client: %v", a.Header)
	}
}

// FuzzPolicy: no spelling of an address that is not public, or is a cloud's own, is
// let through.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1:80", "[::ffff:10.0.0.1]:443", "[64:ff9b::a9fe:a9fe]:80", "169.254.169.254:80", "8.8.8.8:443", "[fe80::1%eth0]:1", "x",
		"100.64.0.1:80", "100.100.100.200:80", "168.63.129.16:80", "192.0.0.192:80", "[fd00:ec2::254]:80", "[::ffff:100.64.0.1%1]:80", "[2002:a00:1::]:80",
		"[64:ff9b::100.64.0.1]:80", "[64:ff9b:1::a00:1]:80", "[2001::1]:80", "[2606:4700::1111]:443", "[::10.0.0.1]:80", "240.0.0.1:80", "255.255.255.255:80", "0.1.2.3:1", "192.88.99.1:1", "198.19.0.1:1",
	} {
		f.Add(s, []byte{})
		if ap, err := netip.ParseAddrPort(s); err == nil {
			f.Add("", ap.Addr().AsSlice())
		}
	}
	p, err := NewPolicy(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, address string, raw []byte) {
		if p.Control(t.Context(), "tcp", address, nil) == nil {
			if a := mustAddrPort(t, address).Addr(); !public(a) {
				t.Errorf("%s is let through", address)
			}
		}
		if a, ok := netip.AddrFromSlice(raw); ok && p.CheckAddr(a) == nil && !public(a) {
			t.Errorf("%s is let through", a)
		}
	})
}

// public says by the bytes of an address whether a node of the Internet may have
// it, and no cloud serves credentials there.
func public(a netip.Addr) bool {
	b := a.Unmap().AsSlice()
	is := func(prefix ...byte) bool { return bytes.HasPrefix(b, prefix) }
	if len(b) == 4 {
		switch {
		case b[0] == 0, b[0] == 10, b[0] == 127, b[0] >= 224, is(100) && b[1]&0xc0 == 64, is(169, 254), is(172) && b[1]&0xf0 == 16, is(192, 168),
			is(192, 0, 0), is(192, 0, 2), is(192, 88, 99), is(198) && b[1]&0xfe == 18, is(198, 51, 100), is(203, 0, 113), is(168, 63, 129, 16):
			return false
		}
		return true
	}
	if is(0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0) { // NAT64
		return public(netip.AddrFrom4([4]byte(b[12:])))
	}
	return b[0]&0xe0 == 0x20 && !is(0x20, 0x02) && !is(0x20, 0x01, 0x0d, 0xb8) && !(is(0x20, 0x01) && b[2] < 2) && !(is(0x3f, 0xff) && b[2]&0xf0 == 0)
}

func FuzzAllow(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "*.example.org", "example.org", "[::1]", "::ffff:10.0.0.0/104", "http://x", "*."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		p, err := NewPolicy([]string{entry})
		if err == nil && len(p.hosts)+len(p.suffixes)+len(p.prefixes) != 1 {
			t.Errorf("%q allows nothing, or more than one thing", entry)
		}
	})
}

func mustAddrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatalf("%q was let through, and is no address: %v", s, err)
	}
	return ap
}
