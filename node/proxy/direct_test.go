package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func startOrigin(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestDirectUntouched(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("content"))
	_ = z.Close()
	var seen *http.Request
	origin := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		switch r.URL.Path {
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped.Bytes())
		case "/redirect":
			w.Header().Set("Location", "/elsewhere?a=b|c")
			w.WriteHeader(http.StatusFound)
		case "/304":
			w.Header().Set("ETag", testETag)
			w.WriteHeader(http.StatusNotModified)
		case "/cookies":
			w.Header()["Content-Type"] = nil
			w.Header()["Set-Cookie"] = []string{"a=1", "b=2; Path=/"}
			w.Header().Set("Connection", "X-Hop")
			w.Header().Set("X-Hop", "1")
			_, _ = io.WriteString(w, "<html>")
		case "/206":
			w.Header().Set("Content-Range", "bytes 1-2/4")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "bc")
		}
	})
	n := startNode(t, Config{Name: "me"})
	do := func(path string, h http.Header) (*http.Response, []byte) {
		t.Helper()
		res, body, err := n.do(t, "GET", origin.URL+path, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantHeader(t, res.Header, "Via", "1.1 me")
		wantHeader(t, seen.Header, "Via", "1.1 me")
		return res, body
	}

	res, body := do("/gzip", nil)
	wantHeader(t, res.Header, "Content-Encoding", "gzip")
	wantBody(t, body, zipped.Bytes())
	wantHeader(t, seen.Header, "Accept-Encoding", "")

	res, _ = do("/redirect", nil)
	wantStatus(t, res, 302)
	wantHeader(t, res.Header, "Location", "/elsewhere?a=b|c")

	res, body = do("/304", header("If-None-Match", testETag))
	wantStatus(t, res, 304)
	wantHeader(t, res.Header, "ETag", testETag)
	wantHeader(t, seen.Header, "If-None-Match", testETag)
	wantBody(t, body, nil)

	// Whether net/http guesses depends on how fast the body follows the header;
	// a key without values keeps it from doing so.
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("GET", origin.URL+"/cookies", nil)
	req.RemoteAddr = "127.0.0.1:9"
	n.handler.ServeHTTP(rec, req)
	if v, ok := rec.Header()["Content-Type"]; !ok || len(v) != 0 {
		t.Errorf("Content-Type %q, %v: it may be guessed", v, ok)
	}
	res, _ = do("/cookies", header("Cookie", "c=3", "Proxy-Authorization", "Basic eA==", "X-Forwarded-For", "10.0.0.1", "User-Agent", "test/1"))
	if got := res.Header.Values("Set-Cookie"); !slices.Equal(got, []string{"a=1", "b=2; Path=/"}) {
		t.Errorf("Set-Cookie %q", got)
	}
	wantHeader(t, res.Header, "X-Hop", "")
	wantHeader(t, seen.Header, "Cookie", "c=3")
	wantHeader(t, seen.Header, "Proxy-Authorization", "")
	wantHeader(t, seen.Header, "X-Forwarded-For", "10.0.0.1")
	wantHeader(t, seen.Header, "User-Agent", "test/1")

	res, body = do("/206", header("Range", "bytes=1-2"))
	wantStatus(t, res, 206)
	wantHeader(t, res.Header, "Content-Range", "bytes 1-2/4")
	wantHeader(t, seen.Header, "Range", "bytes=1-2")
	wantBody(t, body, []byte("bc"))
}

// TestDirectBytes checks that the origin sees the target as the client wrote it.
func TestDirectBytes(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RequestURI)
	})
	n := startNode(t, Config{})
	for _, path := range []string{
		"/", "/a//b///c", "//a/b", "/a%2fb%2Fc", "/%41", "/a|b", `/a"b`, "/a/../b/./c", "/?", "/?a;b&c=%zz", "/a?b?c", "/a+b%20c", "/@:!$&'()*,;=",
	} {
		for _, prefix := range []string{origin.URL, "/url/" + origin.URL} {
			_, body := n.raw(t, "GET", "GET "+prefix+path+" HTTP/1.1\r\nHost: "+origin.Listener.Addr().String()+"\r\nConnection: close\r\n\r\n")
			if body != path {
				t.Errorf("%s: origin saw %q", prefix+path, body)
			}
		}
	}
	_, body := n.raw(t, "GET", "GET "+origin.URL+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if body != "/" {
		t.Errorf("empty path: origin saw %q", body)
	}
}

func TestDirectUpload(t *testing.T) {
	const size = 20 << 20
	origin := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s %d %d %v %v %q", r.Method, r.ContentLength, n, r.TransferEncoding, err, r.Trailer.Get("X-End"))
		w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
	})
	n := startNode(t, Config{})
	data := newFakeSwarm(size).data
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	for _, c := range []struct {
		name string
		body io.Reader
		want string
	}{
		{"length", bytes.NewReader(data), `POST 20971520 20971520 [] <nil> ""`},
		{"chunked", io.MultiReader(bytes.NewReader(data)), `POST -1 20971520 [chunked] <nil> "done"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", origin.URL, c.body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Expect", "100-continue")
			if req.ContentLength <= 0 {
				req.Trailer = header("X-End", "done")
			}
			res, err := n.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != c.want {
				t.Errorf("%q, %v, want %q", body, err, c.want)
			}
			wantHeader(t, res.Trailer, "X-Sum", sum)
		})
	}
}

// TestDirectContinue checks that a body is not asked of the client before the
// origin asks for it.
func TestDirectContinue(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) })
	n := startNode(t, Config{})
	res, _ := n.raw(t, "POST", "POST "+origin.URL+"/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	wantStatus(t, res, 413) // a 100 would have come first
}

// TestDirectStreams checks that bytes pass before the response has ended.
func TestDirectStreams(t *testing.T) {
	release := make(chan struct{})
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2") // one of unknown length is streamed in any case
		_, _ = io.WriteString(w, "a")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "b")
	})
	n := startNode(t, Config{})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", origin.URL, nil)
	res, err := n.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(res.Body, first); err != nil || first[0] != 'a' {
		t.Fatalf("%q, %v", first, err)
	}
	close(release)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != "b" {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestDirectBroken(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 100_000))
		panic(http.ErrAbortHandler)
	})
	n := startNode(t, Config{})
	res, _, err := n.do(t, "GET", origin.URL, nil, nil)
	wantStatus(t, res, 200)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("body ended with %v", err)
	}
}

func TestDirectErrors(t *testing.T) {
	n := startNode(t, Config{})
	closed := closedAddr(t)
	res, body, _ := n.do(t, "POST", "http://"+closed+"/", nil, strings.NewReader("x"))
	wantStatus(t, res, 502)
	if !strings.Contains(string(body), "connection refused") {
		t.Errorf("no reason in %q", body)
	}
	slow := startNode(t, Config{DialLocal: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	res, _, _ = slow.do(t, "GET", "http://"+closed+"/", nil, nil)
	wantStatus(t, res, 504)
	strict := startNode(t, Config{DialLocal: func(context.Context, string, string) (net.Conn, error) {
		return nil, fmt.Errorf("%w: 10.0.0.1", ErrForbidden)
	}})
	res, _, _ = strict.do(t, "GET", "http://"+closed+"/", nil, nil)
	wantStatus(t, res, 403)
}

// TestRemoteClient checks that only loopback clients use the open transport.
func TestRemoteClient(t *testing.T) {
	origin := startOrigin(t, func(http.ResponseWriter, *http.Request) {})
	h := New(Config{Opener: &fakeSwarm{openErr: ErrPassThrough}})
	defer h.closeIdle()
	for _, c := range []struct {
		remote, host, target string
		status               int
	}{
		{"127.0.0.1:9", "", origin.URL, 200},
		{"[::1]:9", "", origin.URL, 200},
		{"[::ffff:127.0.0.1]:9", "", origin.URL, 200},
		{"192.0.2.1:9", "", origin.URL, 403},
		{"", "", origin.URL, 403},
		{"127.0.0.1:9", "localhost:65001", "/url/" + origin.URL, 200},
		{"127.0.0.1:9", "[::1]:65001", "/url/" + origin.URL, 200},
		{"127.0.0.1:9", "rebound.test:65001", "/url/" + origin.URL, 403},
	} {
		r := httptest.NewRequest("POST", c.target, nil)
		r.RemoteAddr = c.remote
		if c.host != "" {
			r.Host = c.host
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%+v: status %d", c, w.Code)
		}
	}
}

// echoUpgraded answers with an upgrade, and then with what comes.
func echoUpgraded(t *testing.T, w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, buf)
}

func TestUpgrade(t *testing.T) {
	origin := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		echoUpgraded(t, w)
	})
	n := startNode(t, Config{MaxTunnels: 1})
	ask := "GET " + origin.URL + "/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
	conn, br, res := n.open(t, "GET", ask)
	wantStatus(t, res, 101)
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "ping" {
		t.Fatalf("%q, %v", got, err)
	}
	_, _, res = n.open(t, "GET", ask)
	wantStatus(t, res, 503)
	n.shutdown(t) // must not wait for the connection to end by itself
	if _, err := br.ReadByte(); err == nil {
		t.Error("upgraded connection survived the shutdown")
	}
}

// TestUpgradeGivesBackItsPlace: a request whose connection was upgraded keeps no
// other from being served, and its connection ends when nothing moves in it.
func TestUpgradeGivesBackItsPlace(t *testing.T) {
	ended := make(chan struct{})
	origin := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "plain")
			return
		}
		echoUpgraded(t, w)
		close(ended)
	})
	const idle = 2 * time.Second
	n := startNode(t, Config{TunnelIdle: idle, Access: Access{MaxRequests: 1, MaxWaiting: 1}, Opener: &fakeSwarm{openErr: ErrPassThrough}})
	conn, br, res := n.open(t, "GET", "GET "+origin.URL+"/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	wantStatus(t, res, 101)
	if res, body, err := n.do(t, "GET", origin.URL+"/other", nil, nil); err != nil || res.StatusCode != 200 || string(body) != "plain" {
		t.Fatalf("another request: %v, %q", err, body)
	}
	start := time.Now()
	for i := 0; time.Since(start) < 2*idle; i++ { // in use it does not end
		if _, err := conn.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if b, err := br.ReadByte(); err != nil || b != byte(i) {
			t.Fatalf("echo %d: %d, %v", i, b, err)
		}
		<-time.After(idle / 20)
	}
	if _, err := br.ReadByte(); err == nil {
		t.Error("something came by itself")
	}
	<-ended
	if d := time.Since(start); d < 2*idle+idle/2 {
		t.Errorf("it ended after %v, in use until %v", d, 2*idle)
	}
	n.handler.gate.share.mu.Lock()
	defer n.handler.gate.share.mu.Unlock()
	if n.handler.gate.share.free != 1 {
		t.Errorf("%d places are free, want 1", n.handler.gate.share.free)
	}
}

func closedAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
