package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// interimAnswers sends a request as it is, and returns the heads of the interim
// answers, and the final one with its body.
func (n *node) interimAnswers(t *testing.T, request string) (heads []http.Header, final *http.Response, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for br := bufio.NewReader(conn); ; {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode < 200 {
			heads = append(heads, res.Header)
			continue
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return heads, res, string(text)
	}
}

// TestInterim: what an origin sends before its answer comes from the node on no face
// of the node's own, and takes nothing off the answer there; a client of the proxy
// gets it as a final one (RFC 9110 sections 7.6.1 and 15.2), unless it knows none.
func TestInterim(t *testing.T) {
	o := startRawOrigin(t)
	defer o.stop()
	const answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: a=b\r\nAlt-Svc: h3\r\nClear-Site-Data: \"*\"\r\n" +
		"Connection: connection, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Authenticate: Basic\r\n\r\n" +
		"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok"
	o.answers["/hostile"], o.answers["/v2/a/b/tags/list"] = answer, answer
	n := startNode(t, Config{})
	defer n.shutdown(t)
	host := o.Addr().String()
	for _, c := range []struct {
		name, request string
		interim       int
		policy        string
	}{
		{"gateway", "GET /url/http://" + host + "/hostile HTTP/1.1\r\nHost: localhost", 0, "sandbox"},
		{"mirror", "GET /v2/a/b/tags/list?ns=" + host + " HTTP/1.1\r\nHost: localhost", 0, "sandbox"},
		{"proxy", "GET http://" + host + "/hostile HTTP/1.1\r\nHost: " + host, 2, ""},
		{"proxy of HTTP/1.0", "GET http://" + host + "/hostile HTTP/1.0\r\nHost: " + host, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			heads, res, body := n.interimAnswers(t, c.request)
			if len(heads) != c.interim {
				t.Errorf("%d interim answers, want %d: %q", len(heads), c.interim, heads)
			}
			wantStatus(t, res, 200)
			wantHeader(t, res.Header, "Content-Security-Policy", c.policy)
			if body != "ok" || len(res.Header.Values("Set-Cookie")) > 0 {
				t.Errorf("%q with %q", body, res.Header)
			}
			for i, h := range heads {
				want := []string{"</a.css>; rel=preload a=b h3", ""}[i]
				if got := strings.TrimSpace(fmt.Sprint(h.Get("Link"), " ", h.Get("Set-Cookie"), " ", h.Get("Alt-Svc"))); got != want {
					t.Errorf("%d: %q, want %q", i, h, want)
				}
				for _, name := range append(hopByHop, "X-Hop") {
					if h.Get(name) != "" {
						t.Errorf("%d: %s is passed on", i, name)
					}
				}
			}
		})
	}
}
