package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/protocols/assignment"
	"github.com/p2pnode/p2pnode/protocols/fetch/pb"
	"github.com/p2pnode/p2pnode/protocols/internal/frame"
)

// ServerConfig holds what is optional; its zero value is good.
type ServerConfig struct {
	// Timeout of one request, and of writing one page; 0 is DefaultTimeout.
	Timeout time.Duration
	// Limits; fields that are 0 are those of DefaultLimits.
	Limits Limits
	// Logger; nil is slog.Default().
	Logger *slog.Logger
	// Registerer of the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Server answers from a Log.
type Server struct {
	service frame.Service
	log     Log
	timeout time.Duration
}

// NewServer returns a server; it serves nothing before Run. The methods of log
// are called from several goroutines.
func NewServer(h host.Host, log Log, cfg ServerConfig) *Server {
	s := &Server{service: newService(h, cfg.Limits, cfg.Logger, cfg.Registerer), log: log, timeout: cfg.Timeout}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	return s
}

// Run serves until ctx ends, and returns when all handlers have.
func (s *Server) Run(ctx context.Context) error { return s.service.Serve(ctx, s.handle) }

func (s *Server) handle(_ context.Context, st network.Stream) error {
	in, out := frame.NewReader(st, maxRequest), frame.NewWriter(st, maxPage)
	for seq := uint64(1); seq <= MaxPages; seq++ {
		if err := st.SetDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		var m pb.Request
		if err := in.Read(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read request %d: %w", seq, err)
		}
		if m.GetSeq() != seq {
			return frame.Malformed("request %d in the place of %d", m.GetSeq(), seq)
		}
		cursors, want, err := requestFromProto(&m)
		if err != nil {
			return fmt.Errorf("request %d: %w", seq, err)
		}
		entries, more := s.log.Since(cursors, want, pageRoom)
		entries, cut := fit(entries)
		if err := out.Write(pageToProto(seq, entries, more || cut)); err != nil {
			return fmt.Errorf("write page %d: %w", seq, err)
		}
	}
	return nil
}

// fit returns the entries that one page takes, and whether any are left.
func fit(entries []assignment.Signed) ([]assignment.Signed, bool) {
	room := pageRoom
	for i, e := range entries {
		if room -= e.Size(); room < 0 || i == maxEntries {
			return entries[:i], true
		}
	}
	return entries, false
}
