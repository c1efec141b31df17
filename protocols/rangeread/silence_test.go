package rangeread

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/p2pnode/p2pnode/internal/content"
	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// virtual runs f in virtual time, with a client and a server over pipes.
func virtual(t *testing.T, m *memory, h Handler, f func(t *testing.T, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := &memHost{id: "source"}
		ctx, cancel := context.WithCancel(t.Context())
		srv := NewServer(ServerConfig{Host: mem, Handler: h})
		c := NewClient(ClientConfig{Host: mem, Trusted: m.trusted, Silent: m.silent})
		ended := make(chan error, 2)
		go func() { ended <- srv.Run(ctx) }()
		go func() { ended <- c.Run(ctx) }()
		synctest.Wait()
		f(t, c)
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		mem.wg.Wait()
	})
}

// within checks how long something took that ends with silence.
func within(t *testing.T, start time.Time) {
	t.Helper()
	if d := time.Since(start); d < DefaultSilence || d > DefaultSilence*3/2 {
		t.Errorf("silence was found after %v, want %v to %v", d, DefaultSilence, DefaultSilence*3/2)
	}
}

// A source that says nothing is given up within half as long again as the
// silence time, before the header and after; its stream is not used again.
func TestSilence(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 3*content.BlockSize, key, id)
	var told atomic.Int64
	m.silent = func(id peer.ID) {
		if id != "source" {
			t.Errorf("%s is said to be silent", id)
		}
		told.Add(1)
	}
	var says atomic.Int64 // bytes before it hangs; -1 for not even a header
	says.Store(-1)
	h := handler(func(ctx context.Context, _ Request, a *Answer) error {
		if silentAfter := says.Load(); silentAfter >= 0 {
			r, err := a.Header(Header{Meta: m.meta})
			if err != nil {
				return err
			}
			for i := int64(0); a.Pos() < silentAfter; i++ {
				if err := a.Complete(i, min(r.End(), silentAfter), m.seals[i], m.outboards[i], m.read); err != nil {
					return err
				}
			}
			if err := a.Flush(); err != nil {
				return err
			}
		}
		<-ctx.Done() // a handler that hangs
		return context.Cause(ctx)
	})
	virtual(t, m, h, func(t *testing.T, c *Client) {
		for range 3 {
			start := time.Now()
			if _, err := c.Open(t.Context(), "source", m.request(0, 1)); !errors.Is(err, ErrSilent) {
				t.Fatalf("Open: %v", err)
			}
			within(t, start)
		}
		for _, silentAfter := range []int64{0, content.LeafSize, content.BlockSize, 2*content.BlockSize + 5*content.LeafSize} {
			says.Store(silentAfter)
			b, err := c.Open(t.Context(), "source", m.request(0, m.meta.Size))
			if err != nil {
				t.Fatal(err)
			}
			// A client that takes its time is no silence of the source.
			time.Sleep(10 * DefaultSilence)
			start := time.Now()
			r, err := drain(b)
			if !errors.Is(err, ErrSilent) || int64(len(r.data)) != silentAfter {
				t.Fatalf("%d bytes of %d, error %v", len(r.data), silentAfter, err)
			}
			within(t, start)
			if _, again := b.Next(nil); !errors.Is(again, ErrSilent) {
				t.Errorf("Next after an error: %v", again)
			}
			_ = b.Close()
		}
		if c.pools() != 0 {
			t.Error("streams of a silent source were kept")
		}
		if n := told.Load(); n != 7 {
			t.Errorf("the silence of 7 reads was told %d times", n)
		}
	})
}

// A source that is heard on another stream may take longer on this one; when it
// falls silent on all they are given up as soon as ever.
func TestSilenceIsOfThePeer(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize, key, id)
	var told atomic.Int64
	m.silent = func(peer.ID) { told.Add(1) }
	var late atomic.Int64 // when reads of byte 1 are answered
	h := handler(func(ctx context.Context, req Request, a *Answer) error {
		r, err := a.Header(Header{Meta: m.meta})
		if err != nil {
			return err
		}
		if req.Range.Off == 1 {
			if err := a.Flush(); err != nil {
				return err
			}
			select {
			case <-time.After(time.Duration(late.Load())):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return a.Complete(0, r.End(), m.seals[0], m.outboards[0], m.read)
	})
	virtual(t, m, h, func(t *testing.T, c *Client) {
		for _, tc := range []struct {
			late, heard time.Duration // until when other reads are answered
			silent      time.Duration // when it is told; 0 for never
			lost        int64         // how often the source is said to be silent itself
		}{
			{late: 6 * DefaultSilence, heard: 6 * DefaultSilence},
			{late: time.Hour, heard: 3 * DefaultSilence, silent: 4 * DefaultSilence, lost: 1},
			{late: time.Hour, heard: time.Hour, silent: streamPatience * DefaultSilence},
		} {
			late.Store(int64(tc.late))
			told.Store(0)
			start := time.Now()
			others := make(chan struct{})
			stop := make(chan struct{})
			go func() {
				defer close(others)
				tick := time.NewTicker(DefaultSilence / 4)
				defer tick.Stop()
				for time.Since(start) < tc.heard {
					if _, err := readAll(c, "source", m.request(0, 1)); err != nil {
						t.Errorf("read beside a late one: %v", err)
						return
					}
					select {
					case <-tick.C:
					case <-stop:
						return
					}
				}
			}()
			b, err := c.Open(t.Context(), "source", m.request(1, 1))
			if err != nil {
				t.Fatal(err)
			}
			_, err = drain(b)
			_ = b.Close()
			took := time.Since(start)
			close(stop)
			<-others
			switch {
			case tc.silent == 0 && (err != nil || took < tc.late):
				t.Errorf("a source that is late on one stream: %v after %v", err, took)
			case tc.silent > 0 && (!errors.Is(err, ErrSilent) || took < tc.silent-DefaultSilence/2 || took > tc.silent+DefaultSilence/2):
				t.Errorf("heard for %v: %v after %v, want %v", tc.heard, err, took, tc.silent)
			}
			if n := told.Load(); n != tc.lost {
				t.Errorf("heard for %v: its connections are put in doubt %d times, want %d", tc.heard, n, tc.lost)
			}
		}
	})
}

// WAIT keeps a source alive for as long as it takes, in Open and in Next.
func TestWait(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize, key, id)
	for _, early := range []bool{true, false} {
		h := handler(func(ctx context.Context, _ Request, a *Answer) error {
			done := make(chan struct{})
			time.AfterFunc(20*DefaultSilence, func() { close(done) })
			if early {
				if err := a.Wait(ctx, WaitOrigin, done); err != nil {
					return err
				}
			}
			r, err := a.Header(Header{Meta: m.meta})
			if err != nil {
				return err
			}
			if !early {
				if err := a.Wait(ctx, WaitDisk, done); err != nil {
					return err
				}
			}
			return a.Complete(0, r.End(), m.seals[0], m.outboards[0], m.read)
		})
		virtual(t, m, h, func(t *testing.T, c *Client) {
			start := time.Now()
			mustRead(t, c, "source", m, m.request(0, 100))
			if d := time.Since(start); d < 20*DefaultSilence {
				t.Errorf("read after %v", d)
			}
		})
	}
}

// The end of the context ends a read at once, wherever it is, with its cause.
func TestCancel(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, content.BlockSize, key, id)
	var header atomic.Bool
	var served chan error
	h := handler(func(ctx context.Context, _ Request, a *Answer) error {
		if header.Load() {
			if _, err := a.Header(Header{Meta: m.meta}); err != nil {
				return err
			}
		}
		err := a.Wait(ctx, WaitOrigin, nil)
		served <- err
		return err
	})
	errGone := errors.New("client went away")
	virtual(t, m, h, func(t *testing.T, c *Client) {
		served = make(chan error, 1) // of this virtual time
		for _, withHeader := range []bool{false, true} {
			header.Store(withHeader)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(5*time.Second, func() { cancel(errGone) })
			start := time.Now()
			b, err := c.Open(ctx, "source", m.request(0, 1))
			if withHeader {
				if err != nil {
					t.Fatal(err)
				}
				_, err = b.Next(nil)
				_ = b.Close()
				_ = b.Close()
			}
			if !errors.Is(err, errGone) || time.Since(start) != 5*time.Second {
				t.Errorf("header %v: error %v after %v", withHeader, err, time.Since(start))
			}
			if err := <-served; err == nil {
				t.Error("the source went on waiting")
			}
			if d := time.Since(start); d > 5*time.Second+2*WaitEvery {
				t.Errorf("the source noticed after %v", d)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Open(ctx, "source", m.request(0, 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("Open with an ended context: %v", err)
		}
		if c.pools() != 0 {
			t.Error("a cancelled read left a stream")
		}
	})
}

// Idle streams are closed by the reader after a minute, and by the source, whose
// reader forgot them, after two or three.
func TestIdle(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 100, key, id)
	virtual(t, m, m, func(t *testing.T, c *Client) {
		mustRead(t, c, "source", m, m.request(0, 1))
		time.Sleep(readerIdle - time.Second)
		if c.idle("source") != 1 {
			t.Error("a stream was closed early")
		}
		time.Sleep(readerIdle)
		if c.pools() != 0 {
			t.Error("an idle stream was kept")
		}
		mustRead(t, c, "source", m, m.request(0, 1))
		c.mu.Lock()
		forgotten := c.peers["source"].idle[0]
		delete(c.peers, "source")
		c.mu.Unlock()
		start := time.Now()
		if _, err := forgotten.stream.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the source said: %v", err)
		}
		if d := time.Since(start); d < serverIdle || d > serverIdle*3/2 {
			t.Errorf("the source closed the stream after %v", d)
		}
	})
}

// A request must be complete ten seconds after its first byte.
func TestSlowRequest(t *testing.T) {
	key, id := p2ptest.Key(t)
	m := newMemory(t, 100, key, id)
	virtual(t, m, m, func(t *testing.T, c *Client) {
		s, err := c.cfg.Host.NewStream(t.Context(), "source", ProtocolID)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Second) // idle is not slow
		if _, err := s.Write([]byte{100, 1, 2}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("answered")
		}
		if d := time.Since(start); d != requestTimeout {
			t.Errorf("reset after %v, want %v", d, requestTimeout)
		}
	})
}

// Deadlines are set again only when they are used up, and never too near.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set []time.Time
		d := deadline{set: func(at time.Time) error { set = append(set, at); return nil }, least: 10 * time.Second}
		for range 100 {
			if err := d.extend(); err != nil {
				t.Fatal(err)
			}
			if left := time.Until(set[len(set)-1]); left < 10*time.Second || left > 15*time.Second {
				t.Fatalf("deadline %v ahead", left)
			}
			time.Sleep(time.Second)
		}
		if len(set) > 20 {
			t.Errorf("set %d times in 100 s", len(set))
		}
	})
}
