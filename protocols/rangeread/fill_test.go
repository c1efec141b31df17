package rangeread

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// A fill is answered by the header alone, however long it takes, on streams
// that serve again.
func TestFill(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 3<<20, key, id)
	fill := handler(func(ctx context.Context, req Request, a *Answer) error {
		if !req.FillOnly || req.Range != m.request(1<<20, 1<<20).Range {
			t.Errorf("request %+v", req)
		}
		done := make(chan struct{})
		time.AfterFunc(3*WaitEvery, func() { close(done) })
		if err := a.Wait(ctx, WaitOrigin, done); err != nil {
			return err
		}
		r, err := a.Header(Header{Meta: m.meta, Source: SourceOrigin})
		if !r.Empty() || !a.Done() {
			t.Errorf("to be sent: %v, done %t", r, a.Done())
		}
		return err
	})
	e := serve(t, fill, id, func(c *ClientConfig) { c.Silence = 2 * WaitEvery })
	for range 2 {
		h, err := e.client.Fill(t.Context(), e.source, m.request(1<<20, 1<<20))
		if err != nil || h.Meta != m.meta || h.Source != SourceOrigin {
			t.Errorf("header %+v, %v", h, err)
		}
	}
	if n := len(e.client.peers[e.source].idle); n != 1 {
		t.Errorf("%d idle streams, want the same one for both", n)
	}
	e.server.cfg.Handler = handler(func(context.Context, Request, *Answer) error {
		return &Error{Status: StatusOriginError, OriginStatus: 503, Size: -1}
	})
	var answer *Error
	if _, err := e.client.Fill(t.Context(), e.source, m.request(0, 1)); !errors.As(err, &answer) || answer.OriginStatus != 503 {
		t.Errorf("refused: %v", err)
	}
	// A source that does not know the flag sends bytes.
	e.server.cfg.Handler = handler(func(ctx context.Context, req Request, a *Answer) error {
		a.req.FillOnly, req.FillOnly = false, false
		return m.Serve(ctx, "", req, a)
	})
	if _, err := e.client.Fill(t.Context(), e.source, m.request(0, 1)); !errors.Is(err, ErrProtocol) {
		t.Errorf("bytes in place of the end: %v", err)
	}
}
