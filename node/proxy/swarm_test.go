package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

func TestSwarmRanges(t *testing.T) {
	const size = 300_000
	swarm := newFakeSwarm(size)
	n := startNode(t, Config{Opener: swarm})
	for _, c := range []struct {
		name         string
		header       http.Header
		status       int
		from, to     int // of the body
		contentRange string
	}{
		{"whole", nil, 200, 0, size, ""},
		{"one byte", header("Range", "bytes=0-0"), 206, 0, 1, "bytes 0-0/300000"},
		{"middle", header("Range", "bytes=70000-169999"), 206, 70000, 170000, "bytes 70000-169999/300000"},
		{"open end", header("Range", "bytes=299990-"), 206, 299990, size, "bytes 299990-299999/300000"},
		{"suffix", header("Range", "bytes=-5"), 206, size - 5, size, "bytes 299995-299999/300000"},
		{"suffix over all", header("Range", "bytes=-999999"), 206, 0, size, "bytes 0-299999/300000"},
		{"several that overlap", header("Range", "bytes=0-,5-6"), 206, 0, size, "bytes 0-299999/300000"},
		{"backwards", header("Range", "bytes=9-1"), 200, 0, size, ""},
		{"unit", header("Range", "items=0-1"), 200, 0, size, ""},
		{"If-Range holds", header("Range", "bytes=1-2", "If-Range", testETag), 206, 1, 3, "bytes 1-2/300000"},
		{"If-Range fails", header("Range", "bytes=1-2", "If-Range", `"v0"`), 200, 0, size, ""},
		{"If-Range fails beyond the end", header("Range", "bytes=999999-", "If-Range", `"v0"`), 200, 0, size, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body, err := n.get(t, c.header)
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, res, c.status)
			wantBody(t, body, swarm.data[c.from:c.to])
			if res.ContentLength != int64(c.to-c.from) {
				t.Errorf("Content-Length %d, want %d", res.ContentLength, c.to-c.from)
			}
			for name, want := range map[string]string{
				"Content-Range": c.contentRange, "Accept-Ranges": "bytes", "ETag": testETag,
				"Last-Modified": testModified, "Content-Type": "application/x-test",
				"Cache-Control": "max-age=60", "Age": "7", "P2pnode-Source": "peer",
			} {
				wantHeader(t, res.Header, name, want)
			}
			if res.Header.Get("Date") == "" {
				t.Error("no Date")
			}
		})
	}
	for _, field := range []string{"bytes=-0", "bytes=300000-", "bytes=99999999999999999999-"} {
		t.Run(field, func(t *testing.T) {
			res, body, err := n.get(t, header("Range", field))
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, res, 416)
			wantHeader(t, res.Header, "Content-Range", "bytes */300000")
			if !strings.HasPrefix(string(body), "p2pnode: ") {
				t.Errorf("body %q", body)
			}
		})
	}
	if opens, closes := len(swarm.requests()), swarm.closes(); opens != closes {
		t.Errorf("%d files opened, %d closed", opens, closes)
	}
}

func TestSwarmRequest(t *testing.T) {
	swarm := newFakeSwarm(100)
	n := startNode(t, Config{Opener: swarm})
	if _, _, err := n.do(t, "GET", "http://ORIGIN.test:80/a%2fb?v=X", header("Range", "bytes=3-9"), nil); err != nil {
		t.Fatal(err)
	}
	req := swarm.requests()[0]
	if req.Task.URL != "http://origin.test/a%2Fb?v=X" || req.URL != "http://ORIGIN.test:80/a%2fb?v=X" {
		t.Errorf("task %q, url %q", req.Task.URL, req.URL)
	}
	if want := (Want{Off: 3, Len: 7}); req.Want != want || req.MetaOnly || !req.Local {
		t.Errorf("%+v", req)
	}
	if _, _, err := n.get(t, nil); err != nil {
		t.Fatal(err)
	}
	if want := (Want{Whole: true, Len: -1}); swarm.requests()[1].Want != want {
		t.Errorf("%+v", swarm.requests()[1])
	}
}

func TestSwarmHead(t *testing.T) {
	swarm := newFakeSwarm(12345)
	n := startNode(t, Config{Opener: swarm})
	for _, h := range []http.Header{nil, header("Range", "bytes=0-9")} {
		res, body, err := n.do(t, "HEAD", "http://origin.test/file", h, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, res, 200)
		wantHeader(t, res.Header, "Content-Length", "12345")
		wantHeader(t, res.Header, "Accept-Ranges", "bytes")
		wantHeader(t, res.Header, "ETag", testETag)
		wantHeader(t, res.Header, "Content-Type", "application/x-test")
		if len(body) != 0 || !swarm.requests()[0].MetaOnly {
			t.Errorf("body of %d bytes, request %+v", len(body), swarm.requests()[0])
		}
	}
}

func TestSwarmConditions(t *testing.T) {
	n := startNode(t, Config{Opener: newFakeSwarm(100)})
	for _, method := range []string{"GET", "HEAD"} {
		res, body, err := n.do(t, method, "http://origin.test/file", header("If-None-Match", testETag), nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, res, 304)
		wantHeader(t, res.Header, "ETag", testETag)
		wantHeader(t, res.Header, "Cache-Control", "max-age=60")
		if len(body) != 0 {
			t.Errorf("304 with a body of %d bytes", len(body))
		}
		res, _, err = n.do(t, method, "http://origin.test/file", header("If-Match", `"v0"`, "Range", "bytes=0-1"), nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, res, 412)
	}
}

func TestSwarmEmptyFile(t *testing.T) {
	n := startNode(t, Config{Opener: newFakeSwarm(0)})
	res, body, err := n.get(t, nil)
	if err != nil || len(body) != 0 {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	wantStatus(t, res, 200)
	wantHeader(t, res.Header, "Content-Length", "0")
	res, _, _ = n.get(t, header("Range", "bytes=0-"))
	wantStatus(t, res, 416)
	wantHeader(t, res.Header, "Content-Range", "bytes */0")
}

func TestSwarmNoContentType(t *testing.T) {
	swarm := newFakeSwarm(10)
	swarm.meta.ContentType = ""
	res, _, err := startNode(t, Config{Opener: swarm}).get(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := res.Header["Content-Type"]; ok {
		t.Errorf("a Content-Type was guessed: %q", v)
	}
}

func TestSwarmTrailer(t *testing.T) {
	reg := prometheus.NewRegistry()
	swarm := newFakeSwarm(100_000)
	n := startNode(t, Config{Opener: swarm, Registerer: reg})
	res, body, err := n.get(t, header("Te", "trailers", "Range", "bytes=0-99"))
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, res, 206)
	wantBody(t, body, swarm.data[:100])
	wantHeader(t, res.Trailer, headerSourceBytes, "local=0,peer=100,origin=0")
	wantHeader(t, res.Header, "Content-Range", "bytes 0-99/100000")
	if res.ContentLength != -1 {
		t.Errorf("Content-Length %d beside a trailer", res.ContentLength)
	}
	res, _, err = n.get(t, nil)
	if err != nil || len(res.Trailer) != 0 || res.ContentLength != 100_000 {
		t.Errorf("without TE: trailer %v, length %d, %v", res.Trailer, res.ContentLength, err)
	}
	n.shutdown(t) // the counts are in when the handlers have returned
	if got := counter(t, reg, "p2pnode_proxy_sent_bytes_total", "peer"); got != 100_100 {
		t.Errorf("%v bytes from peers, want 100100", got)
	}
	if got := counter(t, reg, "p2pnode_proxy_requests_total", "forward", "swarm"); got != 2 {
		t.Errorf("%v requests, want 2", got)
	}
}

// TestSwarmTrailerHTTP2 checks the protocol where length and trailer go together.
func TestSwarmTrailerHTTP2(t *testing.T) {
	swarm := newFakeSwarm(100_000)
	h := New(Config{Opener: swarm})
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL + "/url/http://origin.test/file")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.ProtoMajor != 2 {
		t.Fatalf("%s, %v", res.Proto, err)
	}
	wantBody(t, body, swarm.data)
	if res.ContentLength != 100_000 {
		t.Errorf("Content-Length %d", res.ContentLength)
	}
	wantHeader(t, res.Trailer, headerSourceBytes, "local=0,peer=100000,origin=0")
}

func TestSwarmErrors(t *testing.T) {
	peer := errors.New("peer text")
	timeout := fmt.Errorf("%w: %w", ErrUnavailable, os.ErrDeadlineExceeded)
	for _, c := range []struct {
		name   string
		swarm  *fakeSwarm
		status int
	}{
		{"unavailable", &fakeSwarm{openErr: fmt.Errorf("%w: tried 3", ErrUnavailable)}, 502},
		{"timeout", &fakeSwarm{openErr: timeout}, 504},
		{"origin silent", &fakeSwarm{openErr: &OriginError{Detail: "connection refused"}}, 502},
		{"origin timeout", &fakeSwarm{openErr: fmt.Errorf("%w: %w", &OriginError{}, context.DeadlineExceeded)}, 504},
		{"origin busy", &fakeSwarm{openErr: &OriginError{Status: 503, RetryAfter: 1500 * time.Millisecond}}, 503},
		{"origin fails", &fakeSwarm{openErr: &OriginError{Status: 500, RetryAfter: time.Second}}, 500},
		{"forbidden", &fakeSwarm{openErr: ErrForbidden}, 403},
		{"peer at open", &fakeSwarm{openErr: peer}, 502},
		{"peer at prime", &fakeSwarm{primeErr: peer}, 502},
		{"peer before first byte", &fakeSwarm{copyErr: peer}, 502},
		{"timeout before first byte", &fakeSwarm{copyErr: timeout}, 504},
	} {
		t.Run(c.name, func(t *testing.T) {
			good := newFakeSwarm(1000)
			c.swarm.data, c.swarm.meta = good.data, good.meta
			n := startNode(t, Config{Opener: c.swarm})
			res, body, err := n.get(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, res, c.status)
			wantHeader(t, res.Header, "Content-Type", "text/plain; charset=utf-8")
			wantHeader(t, res.Header, "ETag", "")
			wantHeader(t, res.Header, "Content-Length", strconv.Itoa(len(body)))
			if !strings.HasPrefix(string(body), "p2pnode: GET http://origin.test/file: ") || strings.Count(string(body), "\n") != 2 {
				t.Errorf("body %q", body)
			}
			if c.status == 503 {
				wantHeader(t, res.Header, "Retry-After", "2")
			}
		})
	}
}

// TestSwarmCutShort fails the read behind byte k: the client must see exactly k
// right bytes of an answer that promised more.
func TestSwarmCutShort(t *testing.T) {
	const size = 200_000
	for _, k := range []int64{1, 100, 4096, 65536, size - 1} {
		for _, te := range []string{"", "trailers"} {
			t.Run(fmt.Sprintf("%d,te=%s", k, te), func(t *testing.T) {
				swarm := newFakeSwarm(size)
				swarm.copyErr, swarm.failAt = errors.New("peer text"), k
				n := startNode(t, Config{Opener: swarm})
				res, body, err := n.get(t, header("Te", te))
				wantStatus(t, res, 200)
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("body ended with %v", err)
				}
				wantBody(t, body, swarm.data[:k])
				if te == "" && res.ContentLength != size {
					t.Errorf("Content-Length %d", res.ContentLength)
				}
				if res.Trailer.Get(headerSourceBytes) != "" {
					t.Error("trailer on a broken response")
				}
			})
		}
	}
}

// TestSwarmShortCopy has a Copy that breaks its contract: the client must not
// take the rest of the connection for content.
func TestSwarmShortCopy(t *testing.T) {
	swarm := newFakeSwarm(1000)
	swarm.meta.Size = 1000
	n := startNode(t, Config{Opener: openerFunc(func(ctx context.Context, req Request) (File, error) {
		f, err := swarm.Open(ctx, req)
		return shortFile{f.(*fakeFile)}, err
	})})
	for _, te := range []string{"", "trailers"} {
		res, body, err := n.get(t, header("Te", te))
		wantStatus(t, res, 200)
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != 10 {
			t.Errorf("te %q: %d bytes, %v", te, len(body), err)
		}
	}
}

type openerFunc func(context.Context, Request) (File, error)

func (f openerFunc) Open(ctx context.Context, req Request) (File, error) { return f(ctx, req) }

type shortFile struct{ *fakeFile }

func (f shortFile) Copy(_ context.Context, w io.Writer, _ content.Range) (int64, error) {
	n, err := w.Write(f.swarm.data[:10])
	return int64(n), err
}

func TestClientGoneCancelsRead(t *testing.T) {
	swarm := newFakeSwarm(1_000_000)
	swarm.stall = make(chan struct{})
	n := startNode(t, Config{Opener: swarm})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://origin.test/file", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err := n.client.Do(req)
		if err != nil {
			return
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
	}()
	<-swarm.stall
	cancel()
	<-done
	n.shutdown(t)
	if swarm.closes() != 1 {
		t.Errorf("%d files closed", swarm.closes())
	}
}

func TestCarried(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		header http.Header
		body   io.Reader
		want   bool
	}{
		{"GET", "GET", nil, nil, true},
		{"HEAD", "HEAD", nil, nil, true},
		{"range and conditions", "GET", header("Range", "bytes=0-1", "If-None-Match", "*"), nil, true},
		{"proxy credentials", "GET", header("Proxy-Authorization", "Basic eA=="), nil, true},
		{"gzip", "GET", header("Accept-Encoding", "gzip, br"), nil, true},
		{"max-age", "GET", header("Cache-Control", "max-age=60"), nil, true},
		{"POST", "POST", nil, nil, false},
		{"body", "GET", nil, strings.NewReader("x"), false},
		{"Authorization", "GET", header("Authorization", "Bearer x"), nil, true},
		{"Cookie", "GET", header("Cookie", "a=b"), nil, true},
		{"long credentials", "GET", header("Cookie", strings.Repeat("a", maxCredentials)), nil, false},
		{"Upgrade", "GET", header("Upgrade", "websocket", "Connection", "upgrade"), nil, false},
		{"no identity", "GET", header("Accept-Encoding", "gzip, identity; q=0"), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "http://origin.test/file", c.body)
			for name, values := range c.header {
				r.Header[name] = values
			}
			if got := carried(r); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestPassMemory counts how often the opener is asked for a task that it does
// not carry.
func TestPassMemory(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "direct") }))
	defer origin.Close()
	var clock atomic.Int64
	swarm := &fakeSwarm{openErr: fmt.Errorf("%w: private", ErrPassThrough)}
	n := startNode(t, Config{Opener: swarm, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	for _, step := range []struct {
		now, asked int
	}{{0, 1}, {59, 1}, {60, 2}, {61, 2}} {
		clock.Store(int64(step.now))
		res, body, err := n.do(t, "GET", origin.URL+"/file", nil, nil)
		if err != nil || string(body) != "direct" {
			t.Fatalf("%q, %v", body, err)
		}
		wantHeader(t, res.Header, "P2pnode-Source", "")
		if got := len(swarm.requests()); got != step.asked {
			t.Errorf("at %d s: asked %d times, want %d", step.now, got, step.asked)
		}
	}
}

// TestOriginStatus checks that the client gets the origin's own answer.
func TestOriginStatus(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Own", "yes")
		http.Error(w, "gone for good", http.StatusGone)
	}))
	defer origin.Close()
	for _, swarm := range []*fakeSwarm{
		{openErr: fmt.Errorf("head: %w", &OriginError{Status: 410})},
		{openErr: fmt.Errorf("head: %w", &OriginError{Status: 404, RetryAfter: time.Second})},
	} {
		n := startNode(t, Config{Opener: swarm})
		for range 2 {
			res, body, err := n.do(t, "GET", origin.URL+"/file", nil, nil)
			if err != nil || string(body) != "gone for good\n" {
				t.Fatalf("%q, %v", body, err)
			}
			wantStatus(t, res, 410)
			wantHeader(t, res.Header, "X-Own", "yes")
		}
		if got := len(swarm.requests()); got != 2 {
			t.Errorf("asked %d times: an error of the origin was remembered", got)
		}
	}
}
