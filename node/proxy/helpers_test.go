package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/content"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testETag     = `"v1"`
	testModified = "Mon, 02 Nov 2026 10:00:00 GMT"
)

// fakeSwarm is an Opener over one file in memory.
type fakeSwarm struct {
	data []byte
	meta content.Meta
	// openErr, primeErr and copyErr are what the calls return; Copy first
	// delivers failAt bytes.
	openErr, primeErr, copyErr error
	failAt                     int64
	// stall, where set, makes Copy wait for the end of its context after the
	// first byte, which it tells by closing stall.
	stall chan struct{}

	mu sync.Mutex
	// mu guards the following.
	opens  []Request
	closed int
}

func newFakeSwarm(size int) *fakeSwarm {
	data := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	return &fakeSwarm{data: data, meta: content.Meta{
		Size: int64(size), ETag: testETag, LastModified: testModified, ContentType: "application/x-test",
	}}
}

func (f *fakeSwarm) Open(_ context.Context, req Request) (File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens = append(f.opens, req)
	if f.openErr != nil {
		return nil, f.openErr
	}
	return &fakeFile{swarm: f}, nil
}

func (f *fakeSwarm) requests() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opens
}

func (f *fakeSwarm) closes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

type fakeFile struct {
	swarm  *fakeSwarm
	primed bool
	sent   int64
}

func (f *fakeFile) Meta() content.Meta   { return f.swarm.meta }
func (f *fakeFile) CacheControl() string { return "max-age=60" }
func (f *fakeFile) Age() time.Duration   { return 7500 * time.Millisecond }

func (f *fakeFile) Source() string {
	if !f.primed {
		return ""
	}
	return "peer"
}

func (f *fakeFile) Prime(context.Context, content.Range) error {
	f.primed = f.swarm.primeErr == nil
	return f.swarm.primeErr
}

func (f *fakeFile) Copy(ctx context.Context, w io.Writer, r content.Range) (int64, error) {
	part := f.swarm.data[r.Off:r.End()]
	if f.swarm.stall != nil {
		n, _ := w.Write(part[:1])
		close(f.swarm.stall)
		<-ctx.Done()
		return int64(n), ctx.Err()
	}
	if f.swarm.copyErr != nil {
		part = part[:f.swarm.failAt]
	}
	if len(part) == 0 {
		return 0, f.swarm.copyErr
	}
	n, err := w.Write(part)
	f.sent += int64(n)
	return int64(n), cmp.Or(err, f.swarm.copyErr)
}

func (f *fakeFile) Tally() (local, peer, origin int64) { return 0, f.sent, 0 }

func (f *fakeFile) Close() error {
	f.swarm.mu.Lock()
	defer f.swarm.mu.Unlock()
	f.swarm.closed++
	return nil
}

// node is a running proxy and a client that uses it.
type node struct {
	addr    string
	handler *Handler
	client  *http.Client
	stop    context.CancelFunc
	stopped chan error
}

func startNode(t *testing.T, cfg Config) *node {
	t.Helper()
	if cfg.Opener == nil {
		cfg.Opener = &fakeSwarm{openErr: ErrPassThrough}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if cfg.Self == nil {
		cfg.Self = func(hostport string) bool { return hostport == addr }
	}
	n := &node{addr: addr, handler: New(cfg), stopped: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() { n.stopped <- NewServer(n.handler, ln).Run(ctx) }()
	transport := NewTransport(new(net.Dialer).DialContext)
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: addr})
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // a test's own server
	n.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		n.shutdown(t)
	})
	return n
}

// shutdown stops the proxy and waits for its handlers; again, it does nothing.
func (n *node) shutdown(t *testing.T) {
	t.Helper()
	n.stop()
	if err := <-n.stopped; err != nil {
		t.Errorf("run: %v", err)
	}
	n.stopped <- nil
}

// counter returns the value of the counter with these label values, which are
// in the order of the labels' names.
func counter(t *testing.T, reg *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var got []string
			for _, label := range m.GetLabel() {
				got = append(got, label.GetValue())
			}
			if slices.Equal(got, values) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// do sends a request through the proxy and reads the whole answer; readErr is
// how the body ended.
func (n *node) do(t *testing.T, method, target string, header http.Header, body io.Reader) (res *http.Response, got []byte, readErr error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err = n.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, readErr = io.ReadAll(res.Body)
	return res, got, readErr
}

// raw sends bytes as they are on a connection of their own and returns the
// answer to the given method.
func (n *node) raw(t *testing.T, method, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func (n *node) get(t *testing.T, header http.Header) (*http.Response, []byte, error) {
	t.Helper()
	return n.do(t, http.MethodGet, "http://origin.test/file", header, nil)
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func wantStatus(t *testing.T, res *http.Response, want int) {
	t.Helper()
	if res.StatusCode != want {
		t.Fatalf("status %s, want %d", res.Status, want)
	}
}

func wantHeader(t *testing.T, h http.Header, name, want string) {
	t.Helper()
	if got := h.Get(name); got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

func wantBody(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("body of %d bytes is not the %d bytes wanted", len(got), len(want))
	}
}
