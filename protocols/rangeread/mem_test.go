package rangeread

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// memHost is a host in memory, for virtual time: its streams go to itself.
type memHost struct {
	host.Host
	id      peer.ID
	handler network.StreamHandler
	wg      sync.WaitGroup
}

func (h *memHost) SetStreamHandler(_ protocol.ID, f network.StreamHandler) { h.handler = f }
func (h *memHost) RemoveStreamHandler(protocol.ID)                         {}

func (h *memHost) NewStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error) {
	if h.handler == nil {
		return nil, errors.New("nobody serves")
	}
	a, b := net.Pipe()
	h.wg.Go(func() { h.handler(&memStream{pipe: b, id: h.id}) })
	return &memStream{pipe: a, id: h.id}, nil
}

// memStream is a stream over a pipe.
type memStream struct {
	network.Stream
	pipe net.Conn
	id   peer.ID
}

// memConn is its connection.
type memConn struct {
	network.Conn
	id peer.ID
}

func (c memConn) RemotePeer() peer.ID     { return c.id }
func (c memConn) Stat() network.ConnStats { return network.ConnStats{} }

func (s *memStream) Read(p []byte) (int, error)         { return s.pipe.Read(p) }
func (s *memStream) Write(p []byte) (int, error)        { return s.pipe.Write(p) }
func (s *memStream) Close() error                       { return s.pipe.Close() }
func (s *memStream) Reset() error                       { return s.pipe.Close() }
func (s *memStream) SetReadDeadline(t time.Time) error  { return s.pipe.SetReadDeadline(t) }
func (s *memStream) SetWriteDeadline(t time.Time) error { return s.pipe.SetWriteDeadline(t) }
func (s *memStream) Scope() network.StreamScope         { return &network.NullScope{} }
func (s *memStream) Conn() network.Conn                 { return memConn{id: s.id} }

// scripted is a stream with its input, that records its output.
type scripted struct {
	memStream
	in    io.Reader
	out   bytes.Buffer
	reset bool
}

func (s *scripted) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) Reset() error                     { s.reset = true; return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// record returns the bytes by which a server with h answers a request of peer
// from.
func record(t testing.TB, h Handler, from peer.ID, req Request) []byte {
	t.Helper()
	st := &scripted{memStream: memStream{id: from}}
	srv := NewServer(ServerConfig{Handler: h})
	if err := newSession(srv, st, new(load)).answer(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	return st.out.Bytes()
}

// errNeither: a stream must be kept or reset.
var errNeither = errors.New("the stream was neither kept nor reset, or both")

// play has a client read an answer as if it came from peer from. reused says
// that the stream may serve again.
func play(c *Client, from peer.ID, req Request, answer []byte) (r result, reused bool, err error) {
	p, err := c.enter(context.Background(), from)
	if err != nil {
		return r, false, err
	}
	st := &scripted{in: bytes.NewReader(answer)}
	b := &Body{client: c, pool: p, peer: from, conn: newConn(st, &c.clock, &p.heard), req: req}
	b.stop = func() bool { return true }
	if _, err = b.start(); err == nil {
		r, err = drain(b)
	}
	_ = b.Close()
	c.mu.Lock()
	reused = len(p.idle) > 0
	p.idle = nil
	delete(c.peers, from)
	c.mu.Unlock()
	if reused == st.reset {
		return r, reused, errNeither
	}
	return r, reused, err
}
