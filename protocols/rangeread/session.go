package rangeread

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// session answers the requests of one stream, one after another.
type session struct {
	srv    *Server
	stream network.Stream
	from   peer.ID
	load   *load
	br     *bufio.Reader

	// Reused by every request on the stream.
	scr   scratch
	fw    frameWriter
	proof proof
	room  []byte // of a message, before its length is known

	idle, writing deadline
}

func newSession(srv *Server, st network.Stream, l *load) *session {
	s := &session{
		srv: srv, stream: st, from: st.Conn().RemotePeer(), load: l,
		br:      bufio.NewReaderSize(st, 4<<10),
		idle:    deadline{set: st.SetReadDeadline, least: serverIdle},
		writing: deadline{set: st.SetWriteDeadline, least: writeTimeout},
	}
	s.fw.w = s
	return s
}

// Write writes to the stream, in its time.
func (s *session) Write(p []byte) (int, error) {
	if err := s.writing.extend(); err != nil {
		return 0, err
	}
	return s.stream.Write(p)
}

// run returns nil when the reader closed the stream between requests.
func (s *session) run(ctx context.Context) error {
	if err := s.stream.Scope().SetService(ServiceName); err != nil {
		return err
	}
	if err := s.stream.Scope().ReserveMemory(maxRequest, network.ReservationPriorityMedium); err != nil {
		return err
	}
	for {
		if err := s.idle.extend(); err != nil {
			return err
		}
		if _, err := s.br.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		req, err := s.read()
		if err != nil {
			s.srv.metrics.malformed.Inc()
			return err
		}
		if err := s.answer(ctx, req); err != nil {
			return err
		}
	}
}

// read reads a request, of which the first byte is there.
func (s *session) read() (Request, error) {
	if !s.buffered() {
		if err := s.idle.put(time.Now().Add(requestTimeout)); err != nil {
			return Request{}, err
		}
	}
	n, err := readLength(s.br)
	if err != nil {
		return Request{}, err
	}
	if n > maxRequest {
		return Request{}, fmt.Errorf("%w: request of %d bytes", ErrProtocol, n)
	}
	b, err := s.scr.bytes(s.br, int(n))
	if err != nil {
		return Request{}, err
	}
	return decodeRequest(b)
}

// buffered reports whether all of a request has come, which is the rule.
func (s *session) buffered() bool {
	b, err := s.br.Peek(s.br.Buffered())
	if err != nil {
		return false
	}
	n, size := binary.Uvarint(b)
	return size > 0 && n <= uint64(len(b)-size)
}

// answer runs the handler for one request; an error is that of the stream.
func (s *session) answer(ctx context.Context, req Request) error {
	a := &Answer{session: s, fw: &s.fw, req: req}
	a.fw.take()
	defer a.close()
	err := s.srv.serve(ctx, s.from, s.load, req, a)
	if a.broken != nil {
		return a.broken
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	status := StatusOf(err)
	if err == nil && !a.Done() {
		err = NewError(StatusInternal, "short answer")
		status = StatusInternal
	}
	s.srv.metrics.answers.inc(status)
	s.srv.metrics.bytes.Add(float64(a.sent))
	if err != nil {
		s.srv.log.Debug("range read failed", "peer", s.from, "task", req.Task, "off", req.Range.Off, "len", req.Range.Len, "err", err)
	}
	return a.finish(err)
}
