package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestShutdownCutsTunnels(t *testing.T) {
	n := startNode(t, Config{})
	hold := listen(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	_, br, _ := n.open(t, "CONNECT", connectTo(hold))
	n.shutdown(t)
	if _, err := br.ReadByte(); err == nil {
		t.Error("the tunnel survived")
	}
	if _, err := net.Dial("tcp", n.addr); err == nil {
		t.Error("the port still answers")
	}
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	swarm := newFakeSwarm(100_000)
	copying, release := make(chan struct{}), make(chan struct{})
	n := startNode(t, Config{Opener: openerFunc(func(ctx context.Context, req Request) (File, error) {
		close(copying)
		<-release
		return swarm.Open(ctx, req)
	})})
	go func() {
		<-copying
		n.stop()
		for { // until the listener is closed the shutdown has not begun
			conn, err := net.Dial("tcp", n.addr)
			if err != nil {
				break
			}
			_ = conn.Close()
		}
		close(release)
	}()
	res, body, err := n.get(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, res, 200)
	wantBody(t, body, swarm.data)
}

func TestRunReportsListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := NewServer(New(Config{Opener: newFakeSwarm(1)}), ln).Run(t.Context()); err == nil {
		t.Error("no error for a closed listener")
	}
}

// idleCounter counts how often it is told to close its idle connections.
type idleCounter struct {
	http.RoundTripper
	calls int
}

func (c *idleCounter) CloseIdleConnections() { c.calls++ }

// TestRunWaitsForHandlers has an opener that is slow to notice that it was cut
// off.
func TestRunWaitsForHandlers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opening, cut, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	direct := &idleCounter{}
	s := NewServer(New(Config{DirectLocal: direct, Opener: openerFunc(func(ctx context.Context, _ Request) (File, error) {
		close(opening)
		<-ctx.Done()
		close(cut)
		<-release
		return nil, ctx.Err()
	})}), ln)
	s.grace = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan error, 1)
	go func() { returned <- s.Run(ctx) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET http://origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	<-opening
	cancel()
	<-cut
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	select {
	case err := <-returned:
		t.Fatalf("returned %v with %d handlers running", err, running)
	default:
	}
	if direct.calls != 0 {
		t.Error("idle connections closed before the handlers returned")
	}
	close(release)
	if err := <-returned; err != nil {
		t.Error(err)
	}
	if direct.calls != 1 {
		t.Errorf("idle connections closed %d times", direct.calls)
	}
}

// deadlineWriter notes the write deadlines that are set on it.
type deadlineWriter struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *deadlineWriter) SetWriteDeadline(t time.Time) error {
	w.deadlines = append(w.deadlines, t)
	return nil
}

// TestWriteDeadline checks that a write has a deadline, and that the next
// request on the connection does not inherit it.
func TestWriteDeadline(t *testing.T) {
	w := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}
	New(Config{Opener: newFakeSwarm(10)}).ServeHTTP(w, httptest.NewRequest("GET", "http://origin.test/", nil))
	if len(w.deadlines) != 2 || w.deadlines[0].IsZero() || !w.deadlines[1].IsZero() {
		t.Errorf("deadlines %v", w.deadlines)
	}
}

// pipes is a listener of connections in memory, for virtual time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// pipe is a connection of a client of this machine.
type pipe struct{ net.Conn }

func (pipe) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }

// TestStalledClient: who takes nothing of its answer, or sends nothing more of an
// upload, whether it is passed on or refused, loses the connection.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := pipes{make(chan net.Conn), make(chan struct{})}
		upload := make(chan error, 1)
		origin := roundTripper(func(r *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, r.Body)
			upload <- err
			return nil, err
		})
		h := New(Config{Opener: newFakeSwarm(1 << 20), DirectLocal: origin, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- NewServer(h, ln).Run(ctx) }()
		for _, c := range []struct{ name, send string }{
			{"an answer that is not read", "GET http://origin.test/ HTTP/1.1\r\nHost: x\r\n\r\n"},
			{"an upload", "POST http://origin.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"},
			{"an upload that is refused", "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"},
		} {
			client, server := net.Pipe()
			closed := make(chan struct{})
			ln.conns <- watched{pipe{server}, sync.OnceFunc(func() { close(closed) })}
			if _, err := io.WriteString(client, c.send); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if strings.HasPrefix(c.send, "POST") {
				go func() { _, _ = io.Copy(io.Discard, client) }()
			}
			<-closed
			// What net/http does of its own when it closes takes half a second.
			if took := time.Since(began); took < clientStall || took > clientStall+time.Second {
				t.Errorf("%s: closed after %v, want %v", c.name, took, clientStall)
			}
			_ = client.Close()
		}
		if err := <-upload; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("of an upload the origin is told %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestSlowAnswerOverHTTP2: an answer that pauses for longer than a client may take to
// accept something goes on, and a client that accepts nothing is cut off all the same.
func TestSlowAnswerOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := pipes{make(chan net.Conn), make(chan struct{})}
		stalled := make(chan time.Duration, 1)
		srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			out := &response{ResponseWriter: w, rc: http.NewResponseController(w), http2: r.ProtoMajor == 2}
			_, err := io.WriteString(out, "first")
			if err := errors.Join(err, http.NewResponseController(out).Flush()); err != nil {
				t.Error(err)
			}
			if r.URL.Path == "/pauses" {
				time.Sleep(clientStall + time.Minute)
				if _, err := io.WriteString(out, ", last"); err != nil {
					t.Error(err)
				}
				return
			}
			began := time.Now()
			for err == nil {
				began = time.Now()
				_, err = out.Write(make([]byte, 1<<20))
			}
			stalled <- time.Since(began)
		})}
		srv.Protocols.SetUnencryptedHTTP2(true)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			ln.conns <- pipe{server}
			return client, nil
		}}
		tr.Protocols.SetUnencryptedHTTP2(true)
		get := func(path string) *http.Response {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://node.test"+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			res, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		res := get("/pauses")
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "first, last" || res.ProtoMajor != 2 {
			t.Errorf("%s: %q, error %v", res.Proto, body, err)
		}
		_ = res.Body.Close()
		res = get("/unread")
		if took := <-stalled; took < clientStall || took > clientStall+time.Second {
			t.Errorf("who reads nothing is cut off after %v, want %v", took, clientStall)
		}
		_ = res.Body.Close()
		tr.CloseIdleConnections()
		_ = srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// roundTripper is an http.RoundTripper of one function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// watched is a pipe that tells when it is closed.
type watched struct {
	pipe
	closed func()
}

func (w watched) Close() error {
	w.closed()
	return w.pipe.Close()
}

// TestSilentClient: who does not end a request's header, and who asks nothing more,
// loses the connection.
func TestSilentClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := pipes{make(chan net.Conn), make(chan struct{})}
		h := New(Config{Opener: &fakeSwarm{openErr: ErrPassThrough}, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- NewServer(h, ln).Run(ctx) }()
		for _, c := range []struct {
			name, send string
			answered   bool
			after      time.Duration
		}{
			{"half a header", "GET / HTTP/1.1\r\nHo", false, readHeaderTimeout},
			{"nothing at all", "", false, readHeaderTimeout},
			{"idle", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true, idleTimeout},
			{"half a header after a request", "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", true, readHeaderTimeout},
		} {
			client, server := net.Pipe()
			ln.conns <- pipe{server}
			began := time.Now()
			go func() { _, _ = io.WriteString(client, c.send) }()
			text, err := io.ReadAll(client)
			if took := time.Since(began); err != nil || took != c.after || bytes.Contains(text, []byte("p2pnode")) != c.answered {
				t.Errorf("%s: closed after %v, want %v; %d bytes, %v", c.name, took, c.after, len(text), err)
			}
			_ = client.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
