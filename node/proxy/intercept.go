package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// errMisdirected: within an intercepted connection another host is asked for.
var errMisdirected = errors.New("this connection was opened to another host")

// Interception says which hosts' TLS the proxy opens, so that what they serve can
// go through the swarm. Their clients have to trust CA.
type Interception struct {
	CA    *CA
	Hosts HostPatterns
}

// opens reports whether a CONNECT to host:port is intercepted.
func (i *Interception) opens(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return i != nil && err == nil && i.Hosts.Match(host)
}

// intercept answers a CONNECT by being the server that the client wants to talk
// to. It returns when the connection is closed, or the request's context ends.
func (h *Handler) intercept(x *exchange, addr string) {
	conn, buf, err := x.w.Hijack()
	if err != nil {
		x.fail(err)
		return
	}
	opened := &openedConn{Conn: conn, early: buf.Reader, authority: addr, client: x.client, closed: make(chan struct{})}
	defer func() { _ = opened.Close() }() // it is closed already, or of no more use
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		x.err = fmt.Errorf("answer CONNECT: %w", err)
		return
	}
	ctx := x.r.Context()
	select {
	case h.inside.conns <- opened:
	case <-h.inside.closed:
		x.err = net.ErrClosed
		return
	case <-ctx.Done():
		x.err = context.Cause(ctx)
		return
	}
	select {
	case <-opened.closed:
		x.outcome = outcomeIntercepted
	case <-ctx.Done():
		x.err = context.Cause(ctx)
	}
}

// serveOpened answers a request within an intercepted connection: it is the one
// for the absolute https URL, of the client that the CONNECT was from.
func (h *Handler) serveOpened(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(*openedConn)
	x := h.begin(w, r)
	defer x.end()
	x.face, x.host, x.client = faceConnect, conn.authority, conn.client
	host := r.Host
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "443")
	}
	asked, err := tunnelAddr(host)
	if err != nil || asked != conn.authority || r.Method == http.MethodConnect || !strings.HasPrefix(r.RequestURI, "/") {
		x.fail(fmt.Errorf("%w: it is to %s", errMisdirected, conn.authority))
		return
	}
	if err := h.gate.allow(x.client); err != nil {
		x.fail(err)
		return
	}
	r.RequestURI = "https://" + strings.TrimSuffix(conn.authority, ":443") + r.RequestURI
	t, err := parseTarget(r)
	x.face, x.local = t.face, isLocal(r, t.face)
	h.admitted(x, t, err)
}

// tlsConfig is what intercepted connections are opened with.
func (i *Interception) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			// Of the host that was named in the open, whatever is asked within.
			host, _, err := net.SplitHostPort(hello.Conn.(*openedConn).authority)
			if err != nil {
				return nil, err
			}
			return i.CA.certificate(host)
		},
	}
}

// openedConn is a connection that a CONNECT has made, seen from its server. What
// the client sent behind its request comes first.
type openedConn struct {
	net.Conn
	early     *bufio.Reader
	authority string
	client    string // who sent the CONNECT
	once      sync.Once
	closed    chan struct{}
}

// Read implements net.Conn.
func (c *openedConn) Read(p []byte) (int, error) {
	if c.early.Buffered() > 0 {
		return c.early.Read(p)
	}
	return c.Conn.Read(p)
}

// Close implements net.Conn.
func (c *openedConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		close(c.closed)
	})
	return err
}

// openedListener is where a server gets the intercepted connections.
type openedListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newOpenedListener() *openedListener {
	return &openedListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *openedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *openedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener: there is none.
func (l *openedListener) Addr() net.Addr { return &net.TCPAddr{} }

// connKey is the context's key for the intercepted connection of a request.
type connKey struct{}

// withConn is the ConnContext of the server of intercepted connections.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c.(*tls.Conn).NetConn())
}
