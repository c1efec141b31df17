package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// serve runs the API on a loopback port until the test ends, and returns its
// URL without a slash at the end.
func serve(t *testing.T, cfg Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	s := NewServer(l, New(cfg), cfg.Logger)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t)
	})
	return "http://" + s.Addr().String()
}

// ask sends a request and returns the answer with its body read.
func ask(t *testing.T, method, url string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if host, ok := header["Host"]; ok {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func full() Config {
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "p2pnode_test_total", Help: "For this test."})
	reg.MustRegister(counter)
	counter.Add(7)
	return Config{
		Status:   func() any { return map[string]int{"peers": 3} },
		Tasks:    func() any { return []string{"one"} },
		Seeds:    func() any { return math.Inf(1) }, // cannot be shown
		Gatherer: reg,
		Extra: map[string]http.Handler{"/v1/extra": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "extra") //nolint:errcheck // a test's handler
		})},
	}
}

func TestEndpoints(t *testing.T) {
	url := serve(t, full())
	for _, c := range []struct {
		path        string
		status      int
		contentType string
		holds       string
	}{
		{"/healthz", 200, "text/plain; charset=utf-8", "ok\n"},
		{"/readyz", 200, "application/json", `"ready": true`},
		{"/metrics", 200, "text/plain", "p2pnode_test_total 7"},
		{"/v1/status", 200, "application/json", `"peers": 3`},
		{"/v1/tasks", 200, "application/json", `"one"`},
		{"/v1/seeds", 500, "application/json", `"error":`},
		{"/v1/extra", 200, "text/plain", "extra"},
		{"/v1/none", 404, "application/json", `"error": "no such page: /v1/none`},
		{"/", 200, "text/plain; charset=utf-8", "/v1/extra\n"},
		{"/debug/pprof/", 200, "text/html; charset=utf-8", "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "text/plain; charset=utf-8", "goroutine profile"},
		{"/debug/pprof/cmdline", 404, "text/plain; charset=utf-8", "Unknown profile"},
		{"/debug/pprof/symbol", 200, "text/plain; charset=utf-8", "num_symbols"},
		{"/debug/pprof/trace?seconds=0.01", 200, "application/octet-stream", ""},
		{"/debug/pprof/profile?seconds=100000", 400, "application/json", "seconds"},
		{"/debug/pprof/profile?seconds=-1", 400, "application/json", "seconds"},
		{"/debug/pprof/profile?seconds=NaN", 400, "application/json", "seconds"},
	} {
		t.Run(c.path, func(t *testing.T) {
			resp, body := ask(t, http.MethodGet, url+c.path, nil)
			if resp.StatusCode != c.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), c.contentType) || !strings.Contains(body, c.holds) {
				t.Errorf("%s %s: %q", resp.Status, resp.Header.Get("Content-Type"), body)
			}
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("no nosniff")
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("CORS header %s", name)
				}
			}
			head, empty := ask(t, http.MethodHead, url+c.path, nil)
			if head.StatusCode != c.status || empty != "" {
				t.Errorf("HEAD: %s with body %q", head.Status, empty)
			}
		})
	}
}

func TestNilFieldsAreLeftOut(t *testing.T) {
	url := serve(t, Config{})
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/": 200, "/metrics": 404, "/v1/status": 404, "/v1/tasks": 404, "/v1/seeds": 404, "/v1/peers": 404,
	} {
		if resp, _ := ask(t, http.MethodGet, url+path, nil); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
	if _, body := ask(t, http.MethodGet, url+"/", nil); strings.Contains(body, "/metrics") {
		t.Errorf("list names what there is not: %q", body)
	}
}

func TestReady(t *testing.T) {
	var reason atomic.Pointer[error]
	err := errors.New("no pool yet")
	reason.Store(&err)
	url := serve(t, Config{Ready: func() error { return *reason.Load() }})
	resp, body := ask(t, http.MethodGet, url+"/readyz", nil)
	var got readiness
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 || got.Ready || got.Reason != "no pool yet" {
		t.Errorf("%s: %+v", resp.Status, got)
	}
	if resp, _ := ask(t, http.MethodGet, url+"/healthz", nil); resp.StatusCode != 200 {
		t.Errorf("alive while not ready: %s", resp.Status)
	}
	reason.Store(new(error))
	if resp, _ := ask(t, http.MethodGet, url+"/readyz", nil); resp.StatusCode != 200 {
		t.Errorf("ready: %s", resp.Status)
	}
}

func TestOnlyReading(t *testing.T) {
	cfg := full()
	cfg.Status = func() any { t.Error("status was asked"); return nil }
	url := serve(t, cfg)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
		resp, body := ask(t, method, url+"/v1/status", nil)
		if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" || !strings.Contains(body, `"error"`) {
			t.Errorf("%s: %s, Allow %q", method, resp.Status, resp.Header.Get("Allow"))
		}
	}
}

func TestHost(t *testing.T) {
	cfg := full()
	cfg.Hosts = []string{"Node.Example"}
	url := serve(t, cfg)
	for _, c := range []struct {
		host string
		want int
	}{
		{"localhost", 200}, {"LOCALHOST:65002", 200}, {"127.0.0.1", 200}, {"127.9.9.9:1", 200}, {"[::1]:65002", 200}, {"[::1]", 200},
		{"node.example", 200}, {"node.example:65002", 200},
		{"evil.example", 403}, {"evil.example:65002", 403}, {"localhost.evil.example", 403}, {"127.0.0.1.evil.example", 403},
		{"10.0.0.1", 403}, {"0.0.0.0", 403}, {"[::]", 403}, {"", 200}, // the client fills in the address
	} {
		if resp, body := ask(t, http.MethodGet, url+"/v1/status", map[string]string{"Host": c.host}); resp.StatusCode != c.want {
			t.Errorf("Host %q: %s %q, want %d", c.host, resp.Status, body, c.want)
		}
	}
}

// A node that listens on all addresses is asked by the one that a scraper
// knows, which is no loopback.
func TestHostIsDialledAddress(t *testing.T) {
	a := &api{}
	at := func(addr string) context.Context {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(tcp))
	}
	for _, c := range []struct {
		host, local string
		want        bool
	}{
		{"10.1.2.3:65002", "10.1.2.3:65002", true}, {"10.1.2.3", "10.1.2.3:65002", true},
		{"10.1.2.3", "[::ffff:10.1.2.3]:65002", true}, {"[2001:db8::1]:65002", "[2001:db8::1]:65002", true},
		{"10.1.2.4", "10.1.2.3:65002", false}, {"evil.example", "10.1.2.3:65002", false},
	} {
		r := (&http.Request{Host: c.host}).WithContext(at(c.local))
		if got := a.hostAllowed(r); got != c.want {
			t.Errorf("Host %q at %s: %v, want %v", c.host, c.local, got, c.want)
		}
	}
}

func TestForeignPages(t *testing.T) {
	url := serve(t, full())
	for _, c := range []struct {
		site, mode string
		want       int
	}{
		{"cross-site", "no-cors", 403}, {"cross-site", "cors", 403}, {"cross-site", "", 403},
		{"cross-site", "navigate", 200}, // a link that somebody clicks
		{"same-origin", "cors", 200}, {"none", "navigate", 200},
	} {
		header := map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode}
		if resp, _ := ask(t, http.MethodGet, url+"/v1/status", header); resp.StatusCode != c.want {
			t.Errorf("%s %s: %s, want %d", c.site, c.mode, resp.Status, c.want)
		}
	}
}

// Run lets a request that is being served end, and serves no more.
func TestGracefulEnd(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(l, New(Config{Status: func() any {
		close(entered)
		<-leave
		return "done"
	}}), nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()

	type answer struct {
		status int
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr().String()+"/v1/status", http.NoBody)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		resp.Body.Close()
		answered <- answer{status: resp.StatusCode}
	}()
	<-entered
	cancel()
	for { // until the listener is closed
		c, err := net.DialTimeout("tcp", s.Addr().String(), time.Second)
		if err != nil {
			break
		}
		c.Close()
	}
	close(leave)
	if a := <-answered; a.err != nil || a.status != 200 {
		t.Errorf("request under way: %d, %v", a.status, a.err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunReportsBrokenListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := NewServer(l, New(Config{}), nil).Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestRunAfterTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewServer(l, New(Config{}), nil).Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

func TestTakenPatternPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	New(Config{Extra: map[string]http.Handler{"/healthz": http.NotFoundHandler()}})
}

func ExampleNew() {
	h := New(Config{Status: func() any { return struct{ Peer string }{"12D3KooW…"} }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // at once: this is an example
	if err := NewServer(l, h, nil).Run(ctx); err != nil {
		panic(err)
	}
}

func TestIndexIsSorted(t *testing.T) {
	_, body := ask(t, http.MethodGet, serve(t, full())+"/", nil)
	_, list, _ := strings.Cut(strings.TrimSpace(body), "\n\n")
	if lines := strings.Fields(list); !slices.IsSorted(lines) || len(lines) < 7+len(slices.Collect(maps.Keys(full().Extra))) {
		t.Errorf("list %q", lines)
	}
}
