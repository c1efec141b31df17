package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

const originURL = "http://origin.example"

// memoryOrigin is an HTTP server at the end of pipes. It counts what it sends.
type memoryOrigin struct {
	server http.Server
	conns  pipes
	// note, where set, completes what is known of a request.
	note func(*hit)

	mu sync.Mutex
	// mu guards the following.
	files    map[string][]byte // by path
	requests int
	hits     []*hit
}

// hit is a request that was answered with some of a file.
type hit struct {
	url  string
	by   peer.ID
	at   time.Time
	off  int64 // of the first byte
	sent int64
	// side and owner are for who notes more.
	side  int
	owner bool
}

// newOrigin starts an origin that ends with the bubble it was made in.
func newOrigin(t testing.TB) *memoryOrigin {
	o := &memoryOrigin{
		conns: pipes{new: make(chan net.Conn), closed: make(chan struct{})},
		files: make(map[string][]byte),
	}
	o.server.Handler = o
	o.server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, callerKey{}, c.(caller).id)
	}
	served := make(chan error, 1)
	go func() { served <- o.server.Serve(&o.conns) }()
	t.Cleanup(func() {
		_ = o.server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return o
}

// add serves n bytes made of a seed, and returns their URL.
func (o *memoryOrigin) add(seed uint64, n int) string {
	path := fmt.Sprintf("/file-%d", seed)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[path] = p2ptest.Bytes(seed, n)
	return originURL + path
}

// ServeHTTP serves the files, 20 ms after it was asked.
func (o *memoryOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-r.Context().Done():
	}
	o.mu.Lock()
	data := o.files[r.URL.Path]
	o.requests++
	o.mu.Unlock()
	h := &hit{url: originURL + r.URL.Path, by: r.Context().Value(callerKey{}).(peer.ID), at: time.Now()}
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &h.off); err == nil || r.Header.Get("Range") == "" {
		if o.note != nil {
			o.note(h)
		}
		o.mu.Lock()
		o.hits = append(o.hits, h)
		o.mu.Unlock()
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(data)))
	w.Header().Set("Cache-Control", "max-age=86400")
	http.ServeContent(counted{w, o, h}, r, "", time.Time{}, bytes.NewReader(data))
}

// asked returns the number of requests so far.
func (o *memoryOrigin) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.requests
}

// fetched returns the requests that were answered with bytes, in their order.
func (o *memoryOrigin) fetched() []hit {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []hit
	for _, h := range o.hits {
		if h.sent > 0 {
			out = append(out, *h)
		}
	}
	return out
}

// counted counts the bytes of a body.
type counted struct {
	http.ResponseWriter
	o *memoryOrigin
	h *hit
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.o.mu.Lock()
	defer c.o.mu.Unlock()
	c.h.sent += int64(n)
	return n, err
}

// callerKey is where a request's context names the node that asks.
type callerKey struct{}

// caller is the origin's end of a node's connection.
type caller struct {
	net.Conn
	id peer.ID
}

// dial returns how a node connects to the origin, whatever the address.
func (o *memoryOrigin) dial(id peer.ID) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case o.conns.new <- caller{far, id}:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-o.conns.closed:
			return nil, net.ErrClosed
		}
	}
}

// pipes is a listener for connections in memory.
type pipes struct {
	new    chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.new:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "origin", Net: "pipe"} }
