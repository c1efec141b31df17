package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// open sends a request on a connection of its own and returns it, with what
// follows the answer's header.
func (n *node) open(t *testing.T, method, request string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return conn, br, res
}

// listen runs serve on each connection to the address it returns.
func listen(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serve(conn.(*net.TCPConn))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func connectTo(addr string) string {
	return "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"
}

func TestConnectTLS(t *testing.T) {
	data := newFakeSwarm(5 << 20).data
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Via") != "" {
			t.Error("the tunnel was looked into")
		}
		_, _ = w.Write(data)
	}))
	defer origin.Close()
	n := startNode(t, Config{})
	res, body, err := n.do(t, "GET", origin.URL, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, res, 200)
	wantBody(t, body, data)
}

func TestConnectErrors(t *testing.T) {
	n := startNode(t, Config{})
	_, br, res := n.open(t, "GET", connectTo(closedAddr(t)))
	wantStatus(t, res, 502)
	if body, _ := io.ReadAll(res.Body); !bytes.Contains(body, []byte("connection refused")) {
		t.Errorf("no reason in %q", body)
	}
	_ = br
	h := New(Config{Opener: newFakeSwarm(1)})
	r := httptest.NewRequest("CONNECT", "origin.test:443", nil)
	r.RequestURI = "origin.test:443"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r) // a client from 192.0.2.1
	if w.Code != 403 {
		t.Errorf("a remote client without policy: status %d", w.Code)
	}
}

// TestConnectHalfClose sends with the request, ends its direction, and must
// still get the answer; then the other way round.
func TestConnectHalfClose(t *testing.T) {
	n := startNode(t, Config{})
	echo := listen(t, func(c *net.TCPConn) {
		data, _ := io.ReadAll(c) // until the client ends
		_, _ = c.Write(append([]byte("got "), data...))
	})
	conn, br, res := n.open(t, "CONNECT", connectTo(echo)+"early ")
	wantStatus(t, res, 200)
	_, _ = io.WriteString(conn, "late")
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(br); err != nil || string(got) != "got early late" {
		t.Errorf("%q, %v", got, err)
	}

	received := make(chan string, 1)
	speaker := listen(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		_ = c.CloseWrite()
		data, _ := io.ReadAll(c)
		received <- string(data)
	})
	conn, br, _ = n.open(t, "CONNECT", connectTo(speaker))
	if got, err := io.ReadAll(br); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	_, _ = io.WriteString(conn, "bye")
	_ = conn.Close()
	if got := <-received; got != "bye" {
		t.Errorf("origin got %q", got)
	}
}

func TestConnectIdle(t *testing.T) {
	n := startNode(t, Config{TunnelIdle: 50 * time.Millisecond})
	ended := make(chan error, 1)
	silent := listen(t, func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	_, br, _ := n.open(t, "CONNECT", connectTo(silent))
	if _, err := br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("client: %v", err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("origin: %v", err)
	}
}

// TestConnectOneWay checks that a tunnel lives while one direction moves, though
// the other is silent for longer than the idle time.
func TestConnectOneWay(t *testing.T) {
	const idle, gap, count = 600 * time.Millisecond, 30 * time.Millisecond, 40
	n := startNode(t, Config{TunnelIdle: idle})
	trickle := listen(t, func(c *net.TCPConn) {
		tick := time.NewTicker(gap)
		defer tick.Stop()
		for range count {
			<-tick.C
			if _, err := c.Write([]byte{'x'}); err != nil {
				return
			}
		}
	})
	_, br, _ := n.open(t, "CONNECT", connectTo(trickle))
	got := make([]byte, count)
	if k, err := io.ReadFull(br, got); err != nil {
		t.Errorf("after %d of %d bytes: %v", k, count, err)
	}
}

func TestConnectBound(t *testing.T) {
	n := startNode(t, Config{MaxTunnels: 1})
	hold := listen(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	conn, _, res := n.open(t, "CONNECT", connectTo(hold))
	wantStatus(t, res, 200)
	_, _, res = n.open(t, "GET", connectTo(hold))
	wantStatus(t, res, 503)
	_ = conn.Close()
	n.handler.tunnels <- struct{}{} // the place is given back
	<-n.handler.tunnels
}
