package origin

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// TestUntold: a file whose length the origin does not tell is yielded to its end,
// where that can be told from a break; its size is what is known of a generation
// that is.
func TestUntold(t *testing.T) {
	const chunked = "200 OK\nETag: \"v1\"\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n6\r\n456789\r\n"
	open, _ := content.OpenGeneration(etag)
	gen10, _ := content.NewGeneration(etag, "", 10)
	gen9, _ := content.NewGeneration(etag, "", 9)
	for name, tc := range map[string]struct {
		answer string
		r      Request
		size   int64
		gen    content.Generation
		wrong  bool // at the end
	}{
		"to the end":             {answer: chunked + "0\r\n\r\n", size: -1, gen: open},
		"expected":               {answer: chunked + "0\r\n\r\n", r: Request{Expect: gen10, Size: 10}, size: 10, gen: gen10},
		"expected longer":        {answer: chunked + "0\r\n\r\n", r: Request{Expect: mustGen(11), Size: 11}, size: 11, gen: mustGen(11), wrong: true},
		"expected shorter":       {answer: chunked + "0\r\n\r\n", r: Request{Expect: gen9, Size: 9}, size: 9, gen: gen9},
		"breaks off":             {answer: chunked, size: -1, gen: open, wrong: true},
		"breaks off in a chunk":  {answer: chunked + "5\r\n01", size: -1, gen: open, wrong: true},
		"expected, as it began":  {answer: chunked + "0\r\n\r\n", r: Request{Expect: open}, size: -1, gen: open},
		"a digest":               {answer: chunked + "0\r\n\r\n", r: Request{Digest: "sha256:0"}, size: -1, gen: content.DigestGeneration("sha256:0")},
		"a digest, size known":   {answer: chunked + "0\r\n\r\n", r: Request{Digest: "sha256:0", Expect: content.DigestGeneration("sha256:0"), Size: 10}, size: 10, gen: content.DigestGeneration("sha256:0")},
		"a digest, size unknown": {answer: chunked + "0\r\n\r\n", r: Request{Digest: "sha256:0", Expect: content.DigestGeneration("sha256:0")}, size: -1, gen: content.DigestGeneration("sha256:0")},
	} {
		t.Run(name, func(t *testing.T) {
			o := says(t, tc.answer)
			tc.r.URL, tc.r.Range = o.url, content.Range{Len: 5}
			resp, err := loopback(t, Config{Limits: Limits{BlockFailures: 2}}).Get(deadline(t), tc.r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Meta.Size != tc.size || resp.Meta.Generation != tc.gen || !resp.Meta.Sequential || resp.Range.Off != 0 {
				t.Errorf("got %+v, %v", resp.Meta, resp.Range)
			}
			got, err := io.ReadAll(resp.Body)
			want := ten
			if tc.size >= 0 && tc.size < 10 {
				want = ten[:tc.size]
			}
			if tc.wrong && err == nil || !tc.wrong && (err != nil || string(got) != want) {
				t.Errorf("body %q, %v", got, err)
			}
		})
	}
}

func mustGen(size int64) content.Generation {
	gen, _ := content.NewGeneration(etag, "", size)
	return gen
}

// TestUntoldGoesOn: a body that broke is read again from its start, of the same
// generation, and goes on behind what has come.
func TestUntoldGoesOn(t *testing.T) {
	o := serve(t, func(_ *scripted, n int, conn *net.TCPConn, _ *http.Request) bool {
		text := "200 OK\nETag: \"v1\"\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n"
		if n == 1 {
			text += "6\r\n456789\r\n0\r\n\r\n"
		}
		_, _ = io.WriteString(conn, wire(text))
		return false
	})
	c := loopback(t, Config{Limits: Limits{Attempts: 3, RetryDelay: time.Millisecond}})
	resp, err := c.Get(deadline(t), Request{URL: o.url})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != ten {
		t.Errorf("body %q, %v", got, err)
	}
	resp.Body.Close()
	o = says(t, "200 OK\nETag: \"v1\"\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n", "200 OK\nETag: \"v2\"\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n0\r\n\r\n")
	if resp, err = c.Get(deadline(t), Request{URL: o.url}); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, ErrChanged) {
		t.Errorf("changed meanwhile: %v", err)
	}
}

// TestUntoldHead: HEAD without a length is enough where the size is known, and
// else a GET shows that nobody tells it.
func TestUntoldHead(t *testing.T) {
	gen10, _ := content.NewGeneration(etag, "", 10)
	open, _ := content.OpenGeneration(etag)
	for name, tc := range map[string]struct {
		r     Request
		size  int64
		gen   content.Generation
		asked int
	}{
		"known":     {Request{Known: gen10, Size: 10}, 10, gen10, 1},
		"not known": {Request{}, -1, open, 2},
		"changed":   {Request{Known: mustGen(11), Size: 10}, -1, open, 2},
	} {
		t.Run(name, func(t *testing.T) {
			o := says(t, "200 OK\nETag: \"v1\"\n\n", "200 OK\nETag: \"v1\"\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n0\r\n\r\n")
			tc.r.URL = o.url
			resp, err := loopback(t, Config{}).Head(deadline(t), tc.r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Meta.Size != tc.size || resp.Meta.Generation != tc.gen || len(o.requests) != tc.asked {
				t.Errorf("got %+v after %d requests", resp.Meta, len(o.requests))
			}
		})
	}
}
