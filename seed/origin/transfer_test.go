package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

var asked10 = content.Range{Off: 10, Len: 10}

// partial starts a read from an origin that sends the header and four bytes,
// and then does what rest says.
func startPartial(t *testing.T, ctx context.Context, cfg Config, rest func(o *scripted, conn *net.TCPConn)) io.ReadCloser {
	t.Helper()
	o := serve(t, func(o *scripted, _ int, conn *net.TCPConn, _ *http.Request) bool {
		io.WriteString(conn, wire(ok206+"\n0123"))
		rest(o, conn)
		return false
	})
	resp, err := loopback(t, cfg).Get(ctx, Request{URL: o.url, Range: asked10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if _, err := io.ReadFull(resp.Body, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	return resp.Body
}

func TestBodyShort(t *testing.T) {
	body := startPartial(t, deadline(t), Config{}, func(_ *scripted, conn *net.TCPConn) { conn.CloseWrite() })
	for range 2 { // the error stays
		if n, err := body.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "4 of 10") {
			t.Errorf("got %d bytes, %v", n, err)
		}
	}
}

func TestBodyShortChunked(t *testing.T) {
	o := says(t, "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 10-19/100\nTransfer-Encoding: chunked\n\n4\r\n0123\r\n0\r\n\r\n")
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: asked10})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "0123" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBodyReset(t *testing.T) {
	reset := make(chan struct{})
	body := startPartial(t, deadline(t), Config{}, func(_ *scripted, conn *net.TCPConn) {
		<-reset
		conn.SetLinger(0)
		conn.Close()
	})
	close(reset)
	if _, err := body.Read(make([]byte, 10)); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

func TestBodyStalls(t *testing.T) {
	body := startPartial(t, deadline(t), Config{ProgressTimeout: 20 * time.Millisecond}, func(o *scripted, _ *net.TCPConn) { <-o.stop })
	if _, err := body.Read(make([]byte, 10)); !errors.Is(err, ErrUnreachable) || errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

func TestBodyCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	body := startPartial(t, ctx, Config{}, func(o *scripted, _ *net.TCPConn) { <-o.stop })
	cancel()
	if _, err := body.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// Close must stop the transfer at once, also when it is called beside a Read,
// and tell the origin by closing the connection.
func TestBodyCloseStopsEndlessTransfer(t *testing.T) {
	gone := make(chan struct{})
	o := serve(t, func(_ *scripted, _ int, conn *net.TCPConn, _ *http.Request) bool {
		defer close(gone)
		io.WriteString(conn, wire("200 OK\nETag: \"v1\"\nContent-Length: 1099511627776\n\n"))
		buf := make([]byte, 64<<10)
		for {
			if _, err := conn.Write(buf); err != nil {
				return false
			}
		}
	})
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, resp.Body)
		read <- err
	}()
	resp.Body.Close()
	if err := <-read; err == nil {
		t.Error("the read of a closed body went on to its end")
	}
	<-gone
	if err := resp.Body.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestBodyReadsInPieces(t *testing.T) {
	o := says(t, ok206+"\n"+ten)
	resp, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url, Range: asked10})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := iotest.TestReader(resp.Body, []byte(ten)); err != nil {
		t.Error(err)
	}
}

func TestNoAnswer(t *testing.T) {
	t.Run("first byte too late", func(t *testing.T) {
		o := serve(t, func(o *scripted, _ int, _ *net.TCPConn, _ *http.Request) bool { <-o.stop; return false })
		_, err := loopback(t, Config{FirstByteTimeout: 20 * time.Millisecond}).Get(deadline(t), Request{URL: o.url})
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
	})
	t.Run("cancelled before it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := serve(t, func(o *scripted, _ int, _ *net.TCPConn, _ *http.Request) bool { cancel(); <-o.stop; return false })
		_, err := loopback(t, Config{}).Get(ctx, Request{URL: o.url})
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
	t.Run("connection refused", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		_, err = loopback(t, Config{}).Get(deadline(t), Request{URL: "http://" + l.Addr().String() + "/?sig=secret"})
		if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want ErrUnreachable without the query", err)
		}
	})
	t.Run("no HTTP", func(t *testing.T) {
		o := serve(t, func(_ *scripted, _ int, conn *net.TCPConn, _ *http.Request) bool {
			io.WriteString(conn, "SSH-2.0-x\r\n")
			return false
		})
		if _, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
	})
	t.Run("endless header", func(t *testing.T) {
		o := serve(t, func(_ *scripted, _ int, conn *net.TCPConn, _ *http.Request) bool {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return false
				}
			}
		})
		if _, err := loopback(t, Config{}).Get(deadline(t), Request{URL: o.url}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", err)
		}
	})
}

// A connection is used again after a body was read to its last byte, which
// saves an origin a handshake a stripe.
func TestConnectionIsReused(t *testing.T) {
	conns := 0
	srv := httptest.NewUnstartedServer(rangeServer("0123456789"))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns++
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c := loopback(t, Config{})
	for i := range int64(5) {
		resp, err := c.Get(deadline(t), Request{URL: srv.URL, Range: content.Range{Off: 2 * i, Len: 2}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if conns != 1 {
		t.Errorf("%d connections for five reads, want 1", conns)
	}
}

// rangeServer is a well-behaved origin.
func rangeServer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", etag)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
	}
}

func TestHTTP2AndOwnRoots(t *testing.T) {
	var proto string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto = r.Proto
		rangeServer("0123456789")(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c := loopback(t, Config{TLS: &tls.Config{RootCAs: roots}})
	resp, err := c.Get(deadline(t), Request{URL: srv.URL, Range: content.Range{Off: 3, Len: 4}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "3456" || err != nil || proto != "HTTP/2.0" {
		t.Errorf("got %q, %v by %s", got, err, proto)
	}
	if _, err := loopback(t, Config{}).Get(deadline(t), Request{URL: srv.URL}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("unknown root: got %v, want ErrUnreachable", err)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := says(t, ok206+"\n"+ten, "404 Not Found\n\n", "204 No Content\n\n")
	c := loopback(t, Config{Registerer: reg})
	for range 3 {
		resp, err := c.Get(deadline(t), Request{URL: o.url, Range: asked10})
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	c.Head(deadline(t), Request{URL: "http://10.0.0.1/"})
	got := gathered(t, reg)
	want := map[string]float64{
		"p2pnode_origin_body_bytes_total":               10,
		"p2pnode_origin_requests_total GET ok":          1,
		"p2pnode_origin_requests_total GET status":      1,
		"p2pnode_origin_requests_total GET uncacheable": 1,
		"p2pnode_origin_requests_total HEAD forbidden":  1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
}
