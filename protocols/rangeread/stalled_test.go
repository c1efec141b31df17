package rangeread

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// A source that says nothing but WAIT is given up when its time is over, before
// the header and after; who reads for another gives up sooner, and who waits for
// what may take long later.
func TestStalled(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 2*content.BlockSize, key, id)
	type script struct {
		name       string
		request    func(*Request)
		header     bool
		sequential bool
		bytes      int64 // that come before
		reason     WaitReason
		after      time.Duration
	}
	nothing := func(*Request) {}
	brief := func(r *Request) { r.Brief = 500 * time.Millisecond }
	for _, tc := range []script{
		{name: "no header", request: nothing, after: DefaultPatience},
		{name: "header", request: nothing, header: true, after: DefaultPatience},
		{name: "some bytes", request: nothing, header: true, bytes: 3 * content.LeafSize, after: DefaultPatience},
		{name: "read for another", request: func(r *Request) { r.Path = []peer.ID{id, id} }, after: DefaultPatience * 5 / 6},
		{name: "read for itself", request: func(r *Request) { r.Path = []peer.ID{id} }, after: DefaultPatience},
		{name: "sequential", request: nothing, header: true, sequential: true, after: time.Hour},
		{name: "for a peer", request: nothing, reason: WaitPeer, after: DefaultPatience},
		{name: "for a peer, briefly", request: brief, reason: WaitPeer, bytes: content.LeafSize, header: true, after: 500 * time.Millisecond},
		{name: "for the origin, not for a peer", request: brief, after: DefaultPatience},
		{name: "fill only", request: func(r *Request) { r.FillOnly = true }, after: time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := handler(func(ctx context.Context, _ Request, a *Answer) error {
				if tc.header {
					meta := m.meta
					meta.Sequential = tc.sequential
					if _, err := a.Header(Header{Meta: meta}); err != nil {
						return err
					}
				}
				if tc.bytes > 0 {
					if err := a.Complete(0, tc.bytes, m.seals[0], m.outboards[0], m.read); err != nil {
						return err
					}
				}
				return a.Wait(ctx, cmp.Or(tc.reason, WaitOrigin), nil) // for ever
			})
			virtual(t, m, h, func(t *testing.T, c *Client) {
				req := m.request(0, m.meta.Size)
				tc.request(&req)
				start := time.Now()
				r, err := readAll(c, "source", req)
				if !errors.Is(err, ErrStalled) || int64(len(r.data)) != tc.bytes {
					t.Fatalf("%d bytes of %d, error %v", len(r.data), tc.bytes, err)
				}
				if d := time.Since(start); d < tc.after || d > tc.after+time.Second {
					t.Errorf("given up after %v, want %v", d, tc.after)
				}
				if c.idle("source") != 0 {
					t.Error("the stream was kept")
				}
			})
		})
	}
}

// TestBriefPatience: who has little time for a source that waits for a peer, or for
// its turn, leaves it that long after it waited for the origin, not at once.
func TestBriefPatience(t *testing.T) {
	const brief, before = 500 * time.Millisecond, 10 * time.Second
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize, key, id)
	for _, reason := range []WaitReason{WaitPeer, WaitQueue} {
		h := handler(func(ctx context.Context, _ Request, a *Answer) error {
			over := make(chan struct{})
			time.AfterFunc(before, func() { close(over) })
			if err := a.Wait(ctx, WaitOrigin, over); err != nil {
				return err
			}
			return a.Wait(ctx, reason, nil) // for ever
		})
		virtual(t, m, h, func(t *testing.T, c *Client) {
			req := m.request(0, m.meta.Size)
			req.Brief = brief
			start := time.Now()
			_, err := readAll(c, "source", req)
			if d := time.Since(start); !errors.Is(err, ErrStalled) || d < before+brief || d > before+brief+time.Second {
				t.Errorf("%s: %v after %v, want %v", reason, err, d, before+brief)
			}
		})
	}
}

// Slow is not dead: a source that waits for most of its time before each leaf is
// read to the end.
func TestSlowIsNotStalled(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 5*content.LeafSize, key, id)
	pause := func(ctx context.Context, a *Answer) error {
		over := make(chan struct{})
		time.AfterFunc(DefaultPatience-time.Second, func() { close(over) })
		return a.Wait(ctx, WaitOrigin, over)
	}
	h := handler(func(ctx context.Context, _ Request, a *Answer) error {
		if err := pause(ctx, a); err != nil {
			return err
		}
		r, err := a.Header(Header{Meta: m.meta})
		if err != nil {
			return err
		}
		for a.Pos() < r.End() {
			if err := pause(ctx, a); err != nil {
				return err
			}
			if err := a.Complete(0, a.Pos()+content.LeafSize, m.seals[0], m.outboards[0], m.read); err != nil {
				return err
			}
		}
		return nil
	})
	virtual(t, m, h, func(t *testing.T, c *Client) { mustRead(t, c, "source", m, m.request(0, m.meta.Size)) })
}
