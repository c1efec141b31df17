package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/p2pnode/p2pnode/internal/content"
)

// body is one answer's: it counts the bytes against their promised number,
// watches that they keep coming, and says to the budgets what came.
type body struct {
	src    *answer
	ticket *ticket
	want   content.Range
	entire bool  // want is the whole file
	open   bool  // the origin did not tell where it ends
	pos    int64 // in the file
	edge   int64 // the end of the block of pos
	err    error // once not nil, what every Read returns
	count  prometheus.Counter
	now    func() time.Time
	// window is the longest wait for anything, and the time of waiting after
	// which floor bytes must have come.
	window       time.Duration
	floor        int64
	waited       time.Duration
	cameInWindow int64
	// watch fires, and cancels the request, when one Read takes too long.
	watch   *time.Timer
	stalled atomic.Bool
}

var errTooSlow = errors.New("too slow")

func (c *Client) newBody(a *answer, want content.Range, size int64, t *ticket) *body {
	window := c.cfg.ProgressTimeout
	b := &body{
		src: a, ticket: t, want: want, entire: want.Len == size || size < 0, open: size < 0, pos: want.Off, edge: blockEnd(want.Off), count: c.metrics.bodyBytes,
		now: c.cfg.Now, window: window, floor: int64(window.Seconds() * float64(c.cfg.Limits.MinRate)),
	}
	b.watch = time.AfterFunc(window, func() {
		b.stalled.Store(true)
		a.cancel()
	})
	b.watch.Stop() // armed by each Read
	return b
}

// blockEnd is the end of the block that byte off is in.
func blockEnd(off int64) int64 { return (off/content.BlockSize + 1) * content.BlockSize }

// Read follows io.Reader; see Response.Body for the errors.
func (b *body) Read(p []byte) (int, error) {
	if b.err == nil && b.pos >= b.want.End() {
		b.end(io.EOF, 0)
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	p = p[:min(int64(len(p)), b.want.End()-b.pos)]
	asked := b.now()
	b.watch.Reset(b.window)
	n, err := b.src.Body.Read(p)
	b.watch.Stop()
	waited := b.now().Sub(asked)
	b.came(n)
	switch {
	case b.open && errors.Is(err, io.EOF):
		b.want = content.Span(b.want.Off, b.pos)
		b.end(io.EOF, 0)
		return n, b.err
	case b.pos >= b.want.End():
		b.end(io.EOF, 0)
		return n, nil
	case err == nil:
		err = b.tooSlow(n, waited)
	}
	if err != nil {
		b.end(err, waited)
	}
	return n, b.err
}

// came takes n more bytes.
func (b *body) came(n int) {
	b.pos += int64(n)
	b.count.Add(float64(n))
	for ; b.pos >= b.edge; b.edge += content.BlockSize {
		b.ticket.delivered(b.edge/content.BlockSize - 1)
	}
}

// tooSlow adds up the waiting, and fails when too little came in too long.
func (b *body) tooSlow(n int, waited time.Duration) error {
	b.waited += waited
	b.cameInWindow += int64(n)
	if b.waited < b.window {
		return nil
	}
	if b.cameInWindow < b.floor {
		return fmt.Errorf("%w: %d bytes in %v", errTooSlow, b.cameInWindow, b.waited.Round(time.Millisecond))
	}
	b.waited, b.cameInWindow = 0, 0
	return nil
}

// end takes the reason why nothing more is read, after the last wait.
func (b *body) end(err error, waited time.Duration) {
	b.err = io.EOF
	if b.pos < b.want.End() {
		b.err = b.failure(err, waited)
		b.ticket.broke(b.pos, b.err)
		b.src.pass.leave(b.err)
		return
	}
	if !b.want.Empty() {
		b.ticket.delivered((b.pos - 1) / content.BlockSize)
	}
	b.ticket.good(b.entire)
	b.src.pass.leave(nil)
}

// failure says why the body ended before its last byte.
func (b *body) failure(err error, waited time.Duration) error {
	got, want := b.pos-b.want.Off, b.want.Len
	switch {
	case b.stalled.Load():
		return fmt.Errorf("read byte %d of %d: %w: nothing came for %v", got, want, ErrUnreachable, b.window)
	case errors.Is(err, errTooSlow):
		return fmt.Errorf("read byte %d of %d: %w: %w", got, want, ErrUnreachable, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the origin sent %d of %d bytes: %w", got, want, io.ErrUnexpectedEOF)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("read byte %d of %d: %w", got, want, silent(err, waited))
	default:
		return fmt.Errorf("read byte %d of %d: %w: %w", got, want, ErrUnreachable, err)
	}
}

// Close stops the transfer and frees or drops its connection. It may be called
// while a Read blocks, and more than once.
func (b *body) Close() error {
	b.watch.Stop()
	b.src.close(context.Canceled) // unless it has ended
	b.ticket.drop()
	return nil
}
