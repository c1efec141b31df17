package origin

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is an origin that answers with the bytes it is told to, however
// wrong they are.
type scripted struct {
	url  string
	stop chan struct{} // closed when the test ends
	// again is for a test that tells reply to go on.
	again chan struct{}

	mu       sync.Mutex // guards the following
	requests []*http.Request
	conns    map[net.Conn]bool
}

// serve starts an origin whose answer to request number n (from 0) is written
// by reply. Returning false closes the connection.
func serve(t *testing.T, reply func(o *scripted, n int, conn *net.TCPConn, r *http.Request) bool) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &scripted{url: "http://" + l.Addr().String() + "/file", stop: make(chan struct{}), again: make(chan struct{}), conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns[conn] = true
			o.mu.Unlock()
			wg.Go(func() { o.handle(conn.(*net.TCPConn), reply) })
		}
	})
	t.Cleanup(func() {
		close(o.stop)
		l.Close()
		o.mu.Lock()
		for conn := range o.conns {
			conn.Close()
		}
		o.mu.Unlock()
		wg.Wait()
	})
	return o
}

func (o *scripted) handle(conn *net.TCPConn, reply func(*scripted, int, *net.TCPConn, *http.Request) bool) {
	defer conn.Close()
	br := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		o.mu.Lock()
		n := len(o.requests)
		o.requests = append(o.requests, r)
		o.mu.Unlock()
		if !reply(o, n, conn, r) {
			return
		}
	}
}

// asked returns the requests so far as "METHOD Range-field".
func (o *scripted) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, r := range o.requests {
		out = append(out, strings.TrimSpace(r.Method+" "+r.Header.Get("Range")))
	}
	return out
}

// says returns an origin that answers request n with the n-th text, and the
// last one for ever, with every newline of the header made a CRLF. It closes
// the connection after each.
func says(t *testing.T, texts ...string) *scripted {
	return serve(t, func(_ *scripted, n int, conn *net.TCPConn, _ *http.Request) bool {
		io.WriteString(conn, wire(texts[min(n, len(texts)-1)]))
		conn.CloseWrite()
		return false
	})
}

// wire turns "status line\nfields\n\nbody" into a response.
func wire(text string) string {
	head, body, _ := strings.Cut(text, "\n\n")
	return "HTTP/1.1 " + strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body
}

// loopback is a client that may go to this machine. It asks once, where Limits
// do not say otherwise.
func loopback(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Policy == nil {
		p, err := NewPolicy([]string{"127.0.0.0/8", "::1"})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Policy = p
	}
	orDefault(&cfg.Limits.Attempts, 1)
	c := New(cfg)
	t.Cleanup(c.CloseIdle)
	return c
}

// deadline is a context that ends long before the test binary does.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
