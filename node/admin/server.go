package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the server. A client that is slower than these is cut off.
const (
	maxConns          = 128
	maxHeaderBytes    = 16 << 10
	readTimeout       = 10 * time.Second
	idleTimeout       = 60 * time.Second
	shutdownGraceTime = 2 * time.Second
)

// Server serves a handler on one listener.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// NewServer takes over the listener: Run closes it. A nil logger is
// slog.Default(). It starts nothing.
func NewServer(l net.Listener, h http.Handler, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.Default()
	}
	return &Server{
		listener: netutil.LimitListener(l, maxConns),
		http: &http.Server{
			Handler:        h,
			ReadTimeout:    readTimeout,
			IdleTimeout:    idleTimeout,
			MaxHeaderBytes: maxHeaderBytes,
			ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		},
	}
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets running requests end for a bounded time,
// those that heed their context at once, cuts off the rest and returns nil. It returns an error where the listener
// fails before that. Call it once.
func (s *Server) Run(ctx context.Context) error {
	requests, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve admin on %s: %w", s.Addr(), err)
	case <-ctx.Done():
		stop()
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGraceTime)
	defer cancel()
	err := s.http.Shutdown(grace)
	if err != nil {
		err = s.http.Close()
	}
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("end admin server on %s: %w", s.Addr(), err)
	}
	return nil
}
