package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// tunnelChunk is how much moves between two looks at the clock. A peer must
// accept that much within twice the idle time.
const tunnelChunk = 128 << 10

// connect answers a CONNECT: it dials, takes the connection over, and moves
// bytes until both directions have ended, nothing moved for the idle time, or
// the request's context ends.
func (h *Handler) connect(x *exchange) {
	addr, err := tunnelAddr(x.r.RequestURI)
	if err != nil {
		x.fail(err)
		return
	}
	x.host = addr
	if h.cfg.Self(addr) || viaSelf(x.r, h.cfg.Name) {
		x.fail(ErrLoop)
		return
	}
	host, _, _ := net.SplitHostPort(addr) // it was put together from the two
	if rule, _, _ := h.cfg.Rules.Decide(Asked{Method: x.r.Method, Host: host, Size: SizeNone}); rule.Action == ActionBlock {
		x.fail(errBlocked)
		return
	}
	if h.cfg.Intercept.opens(addr) {
		h.intercept(x, addr)
		return
	}
	dial := h.cfg.DialRemote
	if x.local {
		dial = h.cfg.DialLocal
	}
	if len(h.tunnels) == cap(h.tunnels) { // Hijack makes sure
		x.fail(errTunnels)
		return
	}
	upstream, err := dial(x.r.Context(), "tcp", addr)
	if err != nil {
		x.fail(err)
		return
	}
	defer upstream.Close() // both ends were heard out
	client, buf, err := x.w.Hijack()
	if err != nil {
		x.fail(err)
		return
	}
	defer client.Close() // both ends were heard out
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		x.err = fmt.Errorf("answer CONNECT: %w", err)
		return
	}
	x.w.status = 200
	x.firstByte(sourceDirect)
	if x.err = h.tunnel(x.r.Context(), client, buf.Reader, upstream); x.err == nil {
		x.outcome = outcomeTunnel
	}
}

// tunnel moves bytes both ways until both have ended; early holds what the
// client sent behind its request.
func (h *Handler) tunnel(ctx context.Context, client net.Conn, early *bufio.Reader, upstream net.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = upstream.Close()
	})
	defer stop()
	p := &pump{idle: h.cfg.TunnelIdle}
	p.touch()
	var wg sync.WaitGroup
	wg.Go(func() {
		n, err := p.run(client, upstream)
		h.metrics.bytes.WithLabelValues(sourceDirect).Add(float64(n))
		if err != nil {
			cancel(fmt.Errorf("tunnel to client: %w", err))
		}
	})
	if err := forward(upstream, early); err != nil {
		cancel(err)
	}
	if _, err := p.run(upstream, client); err != nil {
		cancel(fmt.Errorf("tunnel to origin: %w", err))
	}
	wg.Wait()
	return context.Cause(ctx)
}

// forward writes what is buffered, and no more.
func forward(dst io.Writer, early *bufio.Reader) error {
	data, err := early.Peek(early.Buffered())
	if err == nil && len(data) > 0 {
		_, err = dst.Write(data)
	}
	if err != nil {
		return fmt.Errorf("forward the first %d bytes: %w", len(data), err)
	}
	return nil
}

var errIdle = errors.New("idle for too long")

// pump moves the bytes of the two directions of one tunnel.
type pump struct {
	idle time.Duration
	// last is when bytes were last seen to have moved in either direction, in
	// Unix nanoseconds; it may lag by half the idle time.
	last atomic.Int64
}

func (p *pump) touch() { p.last.Store(time.Now().UnixNano()) }

// run copies src to dst until src ends, which it tells dst. It copies through
// the kernel where both are TCP.
func (p *pump) run(dst, src net.Conn) (total int64, err error) {
	for {
		now := time.Now()
		if now.Sub(time.Unix(0, p.last.Load())) >= p.idle {
			return total, errIdle
		}
		// Twice an idle time each direction tells what it has moved.
		if err := src.SetReadDeadline(now.Add(p.idle / 2)); err != nil {
			return total, err
		}
		// Later than the one for reading, so that the two can be told apart.
		cutOff := now.Add(2 * p.idle)
		if err := dst.SetWriteDeadline(cutOff); err != nil {
			return total, err
		}
		n, err := io.CopyN(dst, src, tunnelChunk)
		total += n
		if n > 0 {
			p.touch()
		}
		switch {
		case errors.Is(err, io.EOF):
			closeWrite(dst)
			return total, nil
		case err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(cutOff)):
			return total, err
		}
	}
}

// closeWrite passes on the end of one direction; the other may go on. Where
// that fails the connection is lost, which its reader finds out.
func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
		return
	}
	_ = c.Close()
}
