package proxy

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/p2pnode/p2pnode/internal/content"
)

// TestMultipart reads several ranges, and takes the answer apart again with
// another implementation.
func TestMultipart(t *testing.T) {
	const size = 300_000
	swarm := newFakeSwarm(size)
	n := startNode(t, Config{Opener: swarm})
	for _, c := range []struct {
		field string
		want  []content.Range
	}{
		{"bytes=0-9,5000-5009", []content.Range{{Off: 0, Len: 10}, {Off: 5000, Len: 10}}},
		{"bytes=-7, 100000-199999, 0-0", []content.Range{{Off: size - 7, Len: 7}, {Off: 100_000, Len: 100_000}, {Off: 0, Len: 1}}},
		{"bytes=0-9,400000-,5000-5009", []content.Range{{Off: 0, Len: 10}, {Off: 5000, Len: 10}}},
	} {
		t.Run(c.field, func(t *testing.T) {
			res, body, err := n.get(t, header("Range", c.field, "If-Range", testETag))
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, res, 206)
			wantHeader(t, res.Header, "Content-Range", "")
			wantHeader(t, res.Header, "ETag", testETag)
			if res.ContentLength != int64(len(body)) {
				t.Errorf("Content-Length %d of %d bytes", res.ContentLength, len(body))
			}
			kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
			if err != nil || kind != "multipart/byteranges" {
				t.Fatalf("%s, %v", kind, err)
			}
			r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
			for _, want := range c.want {
				p, err := r.NextPart()
				if err != nil {
					t.Fatal(err)
				}
				wantHeader(t, http.Header(p.Header), "Content-Type", "application/x-test")
				wantHeader(t, http.Header(p.Header), "Content-Range", contentRange(want, size))
				got, err := io.ReadAll(p)
				if err != nil {
					t.Fatal(err)
				}
				wantBody(t, got, swarm.data[want.Off:want.End()])
			}
			if _, err := r.NextPart(); !errors.Is(err, io.EOF) {
				t.Errorf("after the last part: %v", err)
			}
		})
	}
	res, body, _ := n.get(t, header("Range", "bytes=300000-,400000-500000"))
	wantStatus(t, res, 416)
	wantHeader(t, res.Header, "Content-Range", "bytes */"+strconv.Itoa(size))
	if !strings.HasPrefix(string(body), "p2pnode: ") {
		t.Errorf("body %q", body)
	}
	res, body, _ = n.get(t, header("Range", "bytes=0-9,10-19,5-6"))
	wantStatus(t, res, 206)
	wantHeader(t, res.Header, "Content-Range", "bytes 0-19/300000") // a request that comes to one range gets no parts
	wantBody(t, body, swarm.data[:20])
}

// TestMultipartErrors: an error before the first byte is a status, one behind it
// cuts the response short.
func TestMultipartErrors(t *testing.T) {
	swarm := newFakeSwarm(300_000)
	swarm.primeErr = errors.New("peer text")
	res, _, _ := startNode(t, Config{Opener: swarm}).get(t, header("Range", "bytes=0-9,5000-5009"))
	wantStatus(t, res, 502)
	swarm = newFakeSwarm(300_000)
	swarm.copyErr, swarm.failAt = errors.New("peer text"), 7
	res, body, err := startNode(t, Config{Opener: swarm}).get(t, header("Range", "bytes=0-9,5000-5009"))
	wantStatus(t, res, 206)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasSuffix(body, swarm.data[:7]) {
		t.Errorf("body of %d bytes ended with %v", len(body), err)
	}
}
