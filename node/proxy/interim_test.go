package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// TestInterimExpect: a client that waits for a 100 with its body gets one, of the
// node, whether the origin sends its own or none in time, and nothing beside it.
func TestInterimExpect(t *testing.T) {
	for name, own := range map[string]string{"of the origin as well": "HTTP/1.1 100 Continue\r\n\r\n", "of the node alone": ""} {
		t.Run(name, func(t *testing.T) {
			addr := listen(t, func(conn *net.TCPConn) {
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					t.Error(err)
					return
				}
				body := make(chan error, 1)
				go func() {
					_, err := io.Copy(io.Discard, req.Body)
					body <- err
				}()
				if own != "" {
					_, _ = io.WriteString(conn, own)
				}
				for waiting := true; waiting; { // beyond the transport's patience with the 100
					_, _ = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
					select {
					case err := <-body:
						if err != nil {
							t.Error(err)
						}
						waiting = false
					case <-time.After(50 * time.Millisecond):
					}
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			})
			n := startNode(t, Config{})
			defer n.shutdown(t)
			conn, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, "POST http://"+addr+"/ HTTP/1.1\r\nHost: "+addr+"\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			var got []int
			for br := bufio.NewReader(conn); len(got) == 0 || got[len(got)-1] < 200; {
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatalf("after %d: %v", got, err)
				}
				if got = append(got, res.StatusCode); res.StatusCode == http.StatusContinue {
					_, _ = io.WriteString(conn, "body")
				}
				res.Body.Close()
			}
			if !slices.Equal(got, []int{100, 200}) {
				t.Errorf("answers %d, want a 100 and a 200", got)
			}
		})
	}
}

// TestInterimBounds: of interim answers without number, or of any size, a few are
// passed on, and the final one is as ever.
func TestInterimBounds(t *testing.T) {
	o := startRawOrigin(t)
	defer o.stop()
	final := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	o.answers["/many"] = strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", 1000) + final
	o.answers["/large"] = strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("a", maxHeaderBytes/2)+"\r\n\r\n", 3) + final
	n := startNode(t, Config{})
	defer n.shutdown(t)
	host := o.Addr().String()
	for path, want := range map[string]int{"/many": 8, "/large": 1} {
		heads, res, body := n.interimAnswers(t, "GET http://"+host+path+" HTTP/1.1\r\nHost: "+host)
		if len(heads) != want || res.StatusCode != 200 || body != "ok" {
			t.Errorf("%s: %d interim answers, want %d, then %s, %q", path, len(heads), want, res.Status, body)
		}
	}
}

// TestInterimCost: what it takes to send one does not grow with the fields of it times
// the fields that Connection names.
func TestInterimCost(t *testing.T) {
	quickest := time.Hour
	for range 3 {
		h := header("Connection", strings.Repeat("a,", 16<<10))
		for i := range 4096 {
			h["X"+strconv.Itoa(i)] = []string{"1"}
		}
		rec := httptest.NewRecorder()
		w := &response{ResponseWriter: rec, rc: http.NewResponseController(rec)}
		start := time.Now()
		w.interim(http.StatusEarlyHints, h)
		quickest = min(quickest, time.Since(start))
	}
	if quickest > time.Second/2 {
		t.Errorf("%v", quickest)
	}
}

// stalledClient is a client's end that takes no interim answer until told.
type stalledClient struct {
	*httptest.ResponseRecorder
	stalled, goOn chan struct{}
	once          sync.Once

	mu sync.Mutex
	// mu guards the following.
	interim   int
	deadlines []time.Time
}

func (w *stalledClient) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseRecorder.WriteHeader(status)
		return
	}
	w.once.Do(func() { close(w.stalled) })
	<-w.goOn
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interim++
}

// SetWriteDeadline serves http.ResponseController.
func (w *stalledClient) SetWriteDeadline(d time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadlines = append(w.deadlines, d)
	return nil
}

// TestInterimStall: a client that does not read its interim answers holds up no other
// whose requests share its connection to the origin (HTTP/2), and gets its own later.
func TestInterimStall(t *testing.T) {
	conns := make(chan string, 2)
	hinted := make(chan struct{})
	origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns <- r.RemoteAddr
		if r.URL.Path == "/hints" {
			for range 3 {
				w.WriteHeader(http.StatusEarlyHints)
			}
			<-hinted
		}
		_, _ = io.WriteString(w, "ok")
	}))
	origin.EnableHTTP2 = true
	origin.StartTLS()
	defer origin.Close()
	transport := NewTransport(new(net.Dialer).DialContext)
	transport.TLSClientConfig = origin.Client().Transport.(*http.Transport).TLSClientConfig
	defer transport.CloseIdleConnections()
	h := New(Config{Opener: &fakeSwarm{openErr: ErrPassThrough}, DirectLocal: transport})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	get := func(w http.ResponseWriter, path string) {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, origin.URL+path, http.NoBody)
		r.RemoteAddr = "127.0.0.1:9"
		h.ServeHTTP(w, r)
	}
	slow := &stalledClient{ResponseRecorder: httptest.NewRecorder(), stalled: make(chan struct{}), goOn: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() { get(slow, "/hints") })
	<-slow.stalled
	other := httptest.NewRecorder()
	get(other, "/other")
	close(hinted)
	close(slow.goOn)
	running.Wait()
	if other.Code != 200 || slow.Code != 200 || slow.interim != 3 {
		t.Errorf("the other client: %d %q; the slow one: %d after %d interim answers", other.Code, other.Body, slow.Code, slow.interim)
	}
	if a, b := <-conns, <-conns; a != b {
		t.Errorf("two connections to the origin, %s and %s", a, b)
	}
	for i, d := range slow.deadlines {
		if i < 2*slow.interim && d.IsZero() != (i%2 == 1) {
			t.Errorf("deadlines %v: one outlives its interim answer", slow.deadlines)
		}
	}
}
