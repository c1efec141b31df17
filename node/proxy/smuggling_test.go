package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rawOrigin is an origin that reads requests as strictly as it can, and answers
// with the bytes that are written for their target.
type rawOrigin struct {
	net.Listener
	answers map[string]string // by path; "ok" otherwise

	mu sync.Mutex
	// mu guards the following.
	targets []string // of the requests it got, or what else it got
	headers []http.Header
	running sync.WaitGroup
}

func startRawOrigin(t *testing.T) *rawOrigin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &rawOrigin{Listener: ln, answers: map[string]string{}}
	o.running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			o.running.Go(func() { o.serve(conn) })
		}
	})
	return o
}

// stop must come after the clients are gone.
func (o *rawOrigin) stop() {
	_ = o.Close()
	o.running.Wait()
}

func (o *rawOrigin) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(conn)
	for {
		if _, err := br.Peek(1); err != nil {
			return // between requests
		}
		req, err := http.ReadRequest(br)
		if err == nil {
			_, err = io.Copy(io.Discard, req.Body)
		}
		o.mu.Lock()
		if err != nil {
			o.targets = append(o.targets, "malformed: "+err.Error())
		} else {
			o.targets = append(o.targets, req.RequestURI)
			o.headers = append(o.headers, req.Header)
		}
		o.mu.Unlock()
		if err != nil {
			return
		}
		answer, ok := o.answers[req.URL.Path]
		if !ok {
			answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		}
		if _, err := io.WriteString(conn, answer); err != nil || strings.Contains(answer, "Connection: close") {
			return
		}
	}
}

func (o *rawOrigin) seen() (targets []string, headers []http.Header) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.targets), slices.Clone(o.headers)
}

// say sends bytes and reads all that comes back until the connection ends, as it
// must; half says to end the own direction first.
func (n *node) say(t *testing.T, request string, half bool) string {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return "" // refused before it was read
	}
	if half {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	answer, _ := io.ReadAll(conn) // a reset ends it too
	return string(answer)
}

// TestSmugglingClient: whatever a client sends, the origin sees whole requests
// that the node understood as it does, and none that hides in another's body.
func TestSmugglingClient(t *testing.T) {
	// last is asked behind each of them, and ends the connection.
	const last = "GET http://ORIGIN/last HTTP/1.1\r\nHost: ORIGIN\r\nConnection: close\r\n\r\n"
	const hidden = "GET http://ORIGIN/hidden HTTP/1.1\r\nHost: ORIGIN\r\n\r\n"
	post := func(fields, body string) string {
		return "POST http://ORIGIN/post HTTP/1.1\r\nHost: ORIGIN\r\n" + fields + "\r\n" + body
	}
	for _, c := range []struct {
		name, request string
		status        string // of the first answer; "" for none
		targets       string // that the origin sees
	}{
		{"length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "200", "/post /last"},
		{"chunks and length that hide", post("Transfer-Encoding: chunked\r\nContent-Length: 100\r\n", "5\r\nGET /\r\n0\r\n\r\n"), "200", "/post /last"},
		{"two lengths", post("Content-Length: 2\r\nContent-Length: 60\r\n", "ab"+hidden), "400", ""},
		{"a list of lengths", post("Content-Length: 2, 60\r\n", "ab"+hidden), "400", ""},
		{"a signed length", post("Content-Length: +2\r\n", "ab"), "400", ""},
		{"a negative length", post("Content-Length: -2\r\n", "ab"), "400", ""},
		{"an unknown coding", post("Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", hidden), "501", ""},
		{"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), "501", ""},
		{"a list of codings", post("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"), "501", ""},
		{"a coding behind a control", post("Transfer-Encoding: \x0bchunked\r\nContent-Length: 0\r\n", hidden), "400", ""},
		{"a blank before the colon", post("Transfer-Encoding : chunked\r\nContent-Length: 0\r\n", hidden), "400", ""},
		{"a folded coding", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), "200", "/post /last"},
		{"a folded field", "GET http://ORIGIN/fold HTTP/1.1\r\nHost: ORIGIN\r\nX-Fold: a\r\n b\r\n\r\n", "200", "/fold /last"},
		{"a field that begins folded", "GET http://ORIGIN/fold HTTP/1.1\r\n Host: ORIGIN\r\n\r\n", "400", ""},
		{"bare line feeds", "GET http://ORIGIN/lf HTTP/1.1\nHost: ORIGIN\n\n", "200", "/lf /last"},
		{"a bare carriage return", "GET http://ORIGIN/cr HTTP/1.1\r\nHost: ORIGIN\r\nX: a\rY: b\r\n\r\n", "400", ""},
		{"a null", "GET http://ORIGIN/nul HTTP/1.1\r\nHost: ORIGIN\r\nX: \x00\r\n\r\n", "400", ""},
		{"no name", "GET http://ORIGIN/n HTTP/1.1\r\nHost: ORIGIN\r\n: x\r\n\r\n", "400", ""},
		{"two hosts", "GET http://ORIGIN/h HTTP/1.1\r\nHost: ORIGIN\r\nHost: other\r\n\r\n", "400", ""},
		{"another host", "GET http://ORIGIN/other HTTP/1.1\r\nHost: other\r\n\r\n", "200", "/other /last"},
		{"blanks in the target", "GET http://ORIGIN/a b HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", "400", ""},
		{"a version", "GET http://ORIGIN/v HTTP/9.1\r\nHost: ORIGIN\r\n\r\n", "505", ""},
		{"too large a header", "GET http://ORIGIN/large HTTP/1.1\r\nHost: ORIGIN\r\nX: " + strings.Repeat("a", maxHeaderBytes+8192) + "\r\n\r\n", "431", ""},
		{"a chunk too large for a number", post("Transfer-Encoding: chunked\r\n", "FFFFFFFFFFFFFFFFF\r\nab"), "502", "malformed"},
		{"a negative chunk", post("Transfer-Encoding: chunked\r\n", "-1\r\nab\r\n0\r\n\r\n"), "502", "malformed"},
		{"a chunk with a prefix", post("Transfer-Encoding: chunked\r\n", "0x2\r\nab\r\n0\r\n\r\n"), "502", "malformed"},
		{"a chunk longer than its length", post("Transfer-Encoding: chunked\r\n", "2\r\nabcd\r\n0\r\n\r\n"), "502", "malformed"},
		{"an endless extension", post("Transfer-Encoding: chunked\r\n", "2;"+strings.Repeat("a", 1<<20)+"\r\nab\r\n0\r\n\r\n"), "502", "malformed"},
		{"a body that ends early", post("Content-Length: 100\r\n", "ab"), "", "malformed"},
		{"a connection field that names framing", post("Content-Length: 2\r\nConnection: Content-Length, Transfer-Encoding, Host\r\n", "ab"), "200", "/post /last"},
		{"two requests at once", "GET http://ORIGIN/one HTTP/1.1\r\nHost: ORIGIN\r\n\r\nGET http://ORIGIN/two HTTP/1.1\r\nHost: ORIGIN\r\n\r\n", "200", "/one /two /last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startRawOrigin(t)
			defer o.stop()
			n := startNode(t, Config{})
			half := strings.Contains(c.name, "ends early")
			request := c.request
			if !half {
				request += last
			}
			answer := n.say(t, strings.ReplaceAll(request, "ORIGIN", o.Addr().String()), half)
			n.shutdown(t)
			status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
			if status != c.status {
				t.Errorf("answer %.200q, want status %s", answer, c.status)
			}
			targets, headers := o.seen()
			if got := strings.Join(targets, " "); c.targets == "malformed" {
				// The body broke off, and with it the connection to the origin.
				if len(targets) > 1 || len(targets) == 1 && !strings.HasPrefix(got, "malformed: unexpected EOF") && !strings.HasPrefix(got, "malformed: EOF") {
					t.Errorf("the origin got %q", got)
				}
			} else if got != c.targets {
				t.Errorf("the origin got %q, want %q", got, c.targets)
			}
			for _, h := range headers {
				if len(h.Values("X-Fold")) > 0 {
					wantHeader(t, h, "X-Fold", "a b")
				}
			}
		})
	}
}

// TestSmugglingOrigin: whatever an origin sends, a client gets one answer to
// each of its requests and nothing else, or an end of the connection.
func TestSmugglingOrigin(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, c := range []struct {
		name, answer string
		status       int    // of the first answer
		body         string // of a 200
		broken       bool   // the body must not look whole
	}{
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, 200, "", false},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 70\r\n\r\nok" + evil, 502, "", false},
		{"more than its length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil, 200, "ok", false},
		{"less than its length", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok", 200, "ok", true},
		{"a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 502, "", false},
		{"an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n" + evil, 502, "", false},
		{"a blank before the colon", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false}, // and not passed on
		{"a folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "ok", false},
		{"a bare carriage return", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", 502, "", false},
		{"no colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok", 502, "", false},
		{"no status", "200 OK\r\n\r\nok", 502, "", false},
		{"a status that is none", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false},
		{"a status that cannot be written", "HTTP/1.1 042 Odd\r\nContent-Length: 0\r\n\r\n", 502, "", false},
		{"a chunk too large for a number", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nFFFFFFFFFFFFFFFFF\r\n" + evil, 200, "ok", true},
		{"a negative chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n-1\r\n" + evil, 200, "ok", true},
		{"a chunk longer than its length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", 200, "ok", true},
		{"chunks without end", "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 200, "ok", true},
		{"a 304 with content", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil" + evil, 304, "", false},
		{"a 204 with content", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil" + evil, 204, "", false},
		{"too large a header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 2*maxHeaderBytes) + "\r\nContent-Length: 2\r\n\r\nok", 502, "", false},
		{"many interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("a", 1000)+"\r\n\r\n", 100) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
		{"two answers at once", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil + evil, 200, "ok", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startRawOrigin(t)
			o.answers["/hostile"] = c.answer
			defer o.stop()
			n := startNode(t, Config{})
			defer n.shutdown(t)
			conn, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			br := bufio.NewReader(conn)
			res, body, err := roundTrip(conn, br, o, "/hostile")
			if res == nil {
				t.Fatal(err)
			}
			wantStatus(t, res, c.status)
			if c.status == 200 && body != c.body || strings.Contains(body, "evil") {
				t.Errorf("body %q, want %q", body, c.body)
			}
			if c.broken != (err != nil) {
				t.Errorf("the body ended with %v", err)
			}
			if c.broken || res.Close {
				return
			}
			// net/http gives a connection back before it has looked for bytes behind the
			// answer: who takes it quicker than that gets them, of the origin that he asks.
			stray := strings.Contains(c.answer, "evil")
			res, body, err = roundTrip(conn, br, o, "/next")
			own := err == nil && res.StatusCode == 200 && body == "ok"
			if !own && (!stray || err != nil || body != "evil" && res.StatusCode != 502) {
				t.Errorf("the next answer: %q, %v", body, err)
			}
			// None is passed on that nobody asked for.
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("behind the answers: %q, %v", rest, err)
			}
		})
	}
}

// roundTrip asks for a path on a connection and skips what is interim.
func roundTrip(conn net.Conn, br *bufio.Reader, o *rawOrigin, path string) (*http.Response, string, error) {
	host := o.Addr().String()
	if _, err := fmt.Fprintf(conn, "POST http://%s%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", host, path, host); err != nil {
		return nil, "", err
	}
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: "POST"})
		if err != nil {
			return nil, "", err
		}
		if res.StatusCode < 200 {
			continue
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res, string(body), err
	}
}
