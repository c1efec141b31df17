package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

func testCurl(t *testing.T, c *clients) {
	need(t, "curl")
	curl := newTool(t)
	data := p2ptest.Bytes(20, 20<<20+321)
	url := c.origin.Add("/curl", data)
	c.each(t, "/curl", func(d *process) {
		curl.run(t, "curl", "-sSf", "-x", d.Proxy, "-o", "proxied", "-D", "head", url)
		curl.wantFile(t, "proxied", data)
		curl.run(t, "curl", "-sSf", "-o", "gated", d.Proxy+"/url/"+url)
		curl.wantFile(t, "gated", data)
		head := string(curl.run(t, "curl", "-sSfI", "-x", d.Proxy, url))
		for _, field := range []string{fmt.Sprintf("Content-Length: %d\r\n", len(data)), "Accept-Ranges: bytes\r\n", "ETag: ", "HTTP/1.1 200"} {
			if !strings.Contains(strings.ToLower(head), strings.ToLower(field)) {
				t.Errorf("HEAD at %s has no %q:\n%s", d.Proxy, field, head)
			}
		}
	})
	c.wantOnce(t, "/curl", data)
}

func testCurlRanges(t *testing.T, c *clients) {
	need(t, "curl")
	curl := newTool(t)
	data := p2ptest.Bytes(21, 5<<20+77)
	url := c.origin.Add("/ranges", data)
	etag := fmt.Sprintf(`"%x"`, sha256.Sum256(data))
	size := len(data)
	c.each(t, "/ranges", func(d *process) {
		get := func(args ...string) []byte {
			return curl.run(t, "curl", append([]string{"-sSf", "-x", d.Proxy, url}, args...)...)
		}
		wantSame(t, "first bytes", get("-r", "0-99"), data[:100])
		wantSame(t, "over a block's edge", get("-r", "1048570-1048580"), data[1048570:1048581])
		wantSame(t, "last bytes", get("-r", "-500"), data[size-500:])
		wantSame(t, "to the end", get("-r", fmt.Sprint(size-7, "-")), data[size-7:])
		wantSame(t, "If-Range that holds", get("-r", "5-9", "-H", "If-Range: "+etag), data[5:10])
		wantSame(t, "If-Range that does not hold", get("-r", "5-9", "-H", `If-Range: "other"`), data)
		wantSame(t, "If-None-Match", get("-H", "If-None-Match: "+etag), nil)
		if out := curl.run(t, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", d.Proxy, "-r", fmt.Sprint(size, "-"), url); string(out) != "416" {
			t.Errorf("a range behind the end: %s", out)
		}
		curl.write(t, "part", data[:1234567])
		get("-C", "-", "-o", "part")
		curl.wantFile(t, "part", data)
		curl.run(t, "curl", "-sSf", "-x", d.Proxy, "-r", "0-9,3000000-3000009,-5", "-D", "head", "-o", "several", url)
		wantSeveral(t, curl, data, [][]byte{data[:10], data[3000000:3000010], data[size-5:]})
	})
	c.wantOnce(t, "/ranges", data)
}

// wantSeveral checks the answer to a request for several ranges, which may be the
// whole file (RFC 9110 section 14.2).
func wantSeveral(t *testing.T, curl tool, data []byte, want [][]byte) {
	t.Helper()
	body := curl.run(t, "cat", "several")
	head, _, _ := strings.Cut(string(curl.run(t, "cat", "head")), "\r\n\r\n")
	if strings.HasPrefix(head, "HTTP/1.1 200") {
		wantSame(t, "several ranges, answered whole", body, data)
		return
	}
	var kind string
	for line := range strings.SplitSeq(head, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Type") {
			kind = strings.TrimSpace(value)
		}
	}
	_, params, err := mime.ParseMediaType(kind)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 206") {
		t.Fatalf("several ranges: type %q, %v\n%s", kind, err, head)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for i, w := range want {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
		got, err := io.ReadAll(part)
		if err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
		wantSame(t, fmt.Sprint("part ", i), got, w)
	}
	if _, err := parts.NextPart(); err == nil {
		t.Error("more parts than ranges")
	}
}

// testCurlUpload sends what no cache answers: large bodies, with and without a
// length, and with the server's leave.
func testCurlUpload(t *testing.T, c *clients) {
	need(t, "curl")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s %d %d %x", r.Method, r.ContentLength, n, h.Sum(nil))
	}))
	defer srv.Close()
	curl := newTool(t)
	data := p2ptest.Bytes(22, 48<<20)
	curl.write(t, "up", data)
	for how, args := range map[string][]string{
		fmt.Sprintf("PUT %d", len(data)):  {"-T", "up", "-H", "Expect: 100-continue"},
		"PUT -1":                          {"-T", "up", "-H", "Transfer-Encoding: chunked"},
		fmt.Sprintf("POST %d", len(data)): {"--data-binary", "@up", "-H", "Expect:"},
	} {
		want := fmt.Sprintf("%s %d %x", how, len(data), sha256.Sum256(data))
		if got := curl.run(t, "curl", append([]string{"-sSf", "-x", c.daemons[0].Proxy, srv.URL + "/up"}, args...)...); string(got) != want {
			t.Errorf("%s: the server got %s, want %s", how, got, want)
		}
	}
}

func testWget(t *testing.T, c *clients) {
	need(t, "wget")
	data := p2ptest.Bytes(23, 6<<20+5)
	url := c.origin.Add("/wget", data)
	c.each(t, "/wget", func(d *process) {
		wget := newTool(t, "http_proxy="+d.Proxy)
		wget.write(t, "wget", data[:2<<20+3])
		wget.run(t, "wget", "-nv", "-c", url)
		wget.wantFile(t, "wget", data)
	})
	if n := c.origin.Bytes("/wget"); n >= int64(len(data)) {
		t.Errorf("the origin sent %d bytes of %d for clients that had 2 MiB", n, len(data))
	}
}

func testAria2(t *testing.T, c *clients) {
	need(t, "aria2c")
	data := p2ptest.Bytes(24, 40<<20+11)
	url := c.origin.Add("/aria2", data)
	c.each(t, "/aria2", func(d *process) {
		aria := newTool(t)
		aria.run(t, "aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "--all-proxy="+d.Proxy, url)
		aria.wantFile(t, "aria2", data)
	})
	c.wantOnce(t, "/aria2", data)
}
