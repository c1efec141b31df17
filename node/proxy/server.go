package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of the server. A request's header may hold a signed URL and a large
// cookie, hence its size.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	shutdownGrace     = 5 * time.Second
)

// Server runs a Handler on a listener.
type Server struct {
	handler *Handler
	ln      net.Listener
	grace   time.Duration

	mu sync.Mutex
	// mu guards the following.
	running  int
	draining bool
	// idle is closed when draining is set and running is 0.
	idle chan struct{}
}

// NewServer returns a server that will own ln, which may be of TLS, for HTTP/1.1
// alone: CONNECT takes a whole connection. It is the one server of h. It starts
// nothing.
func NewServer(h *Handler, ln net.Listener) *Server {
	return &Server{handler: h, ln: ln, grace: shutdownGrace, idle: make(chan struct{})}
}

// Run serves until ctx ends; it must be called once. Then requests have five
// seconds to end, and tunnels as long as these take; what is left is cut off.
// It returns when all handlers have returned, and closes the listener. The
// error is nil unless the listener failed.
func (s *Server) Run(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	outer, inner := s.server(base, s.handler.ServeHTTP), s.server(base, s.handler.serveOpened)
	failed, running := make(chan error, 2), 1
	go func() { failed <- served(s.ln, outer.Serve(s.ln)) }()
	if i := s.handler.cfg.Intercept; i != nil {
		inner.TLSConfig, inner.ConnContext = i.tlsConfig(), withConn
		go func() { failed <- served(s.handler.inside, inner.ServeTLS(s.handler.inside, "", "")) }()
		running++
	}
	var err error
	select {
	case err = <-failed:
		running--
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(base, s.grace)
		var both sync.WaitGroup
		both.Go(func() { _ = inner.Shutdown(grace) }) // the rest is cut off below
		_ = outer.Shutdown(grace)
		both.Wait()
		cancel()
	}
	cut()
	_ = outer.Close() // the listener is closed already, or has failed
	_ = inner.Close()
	for range running {
		err = errors.Join(err, <-failed)
	}
	s.drain()
	s.handler.closeIdle()
	return err
}

func (s *Server) server(base context.Context, serve http.HandlerFunc) *http.Server {
	return &http.Server{
		Handler:           s.counted(serve),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.handler.errorLog,
	}
}

// served is the error of a server that has ended, unless it was told to.
func served(ln net.Listener, err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve proxy on %s: %w", ln.Addr(), err)
}

// counted counts the handlers, since http.Server waits for none that it cut off
// nor for tunnels.
func (s *Server) counted(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.draining {
			s.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		s.running++
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.running--; s.running == 0 && s.draining {
				close(s.idle)
			}
		}()
		serve(w, r)
	}
}

// drain waits for the handlers and lets no further ones in.
func (s *Server) drain() {
	s.mu.Lock()
	s.draining = true
	if s.running == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	<-s.idle
}

// closeIdle closes the connections that the transports keep for later.
func (h *Handler) closeIdle() {
	for _, t := range []http.RoundTripper{h.cfg.DirectLocal, h.cfg.DirectRemote} {
		if c, ok := t.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}
