package limits

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// nowhere is of a node that is at no site.
func nowhere(peer.ID) bool { return false }

const mib = 1 << 20

// Up holds what goes beyond the site to its bound, all peers together, in the
// mean; what stays at the site is free; and a bound is changed while it runs.
func TestUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(make(handler), func(p peer.ID) bool { return p == "near" })
		if wait := l.Up("a", 1<<40); wait != 0 {
			t.Errorf("without a bound it waits %v", wait)
		}
		if _, err := l.Change([]byte(`{"up_bytes_per_second": 1048576}`)); err != nil {
			t.Fatal(err)
		}
		send := func(to peer.ID, n int) {
			for ; n > 0; n -= byteBurst / 2 {
				time.Sleep(l.Up(to, byteBurst/2))
			}
		}
		start := time.Now()
		done := make(chan struct{})
		for _, to := range []peer.ID{"a", "b", "c"} {
			go func() { send(to, 4*mib); done <- struct{}{} }()
		}
		send("near", 1000*mib)
		if d := time.Since(start); d != 0 {
			t.Errorf("at the site it took %v", d)
		}
		for range 3 {
			<-done
		}
		burst := time.Second * byteBurst / mib
		if d, want := time.Since(start), 12*time.Second; d < want-burst || d > want {
			t.Errorf("12 MiB at 1 MiB/s took %v", d)
		}
		l.SetUplink(0)
		start = time.Now()
		send("a", 100*mib)
		if d := time.Since(start); d > burst {
			t.Errorf("with no bound any more it took %v", d)
		}
	})
}

// PeerUp bounds each peer by itself, wherever it stands.
func TestPeerUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(make(handler), func(peer.ID) bool { return true })
		if err := l.Set(Limits{PeerUp: mib}); err != nil {
			t.Fatal(err)
		}
		for _, to := range []peer.ID{"a", "b"} {
			start := time.Now()
			for range 8 {
				time.Sleep(l.Up(to, byteBurst))
			}
			if d := time.Since(start); d != 7*time.Second/4 {
				t.Errorf("2 MiB at 1 MiB/s for %s, less the first 256 KiB, took %v", to, d)
			}
		}
	})
}

// Down has those wait who get bytes from beyond the site, and lets go of them when
// their context ends.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(make(handler), func(p peer.ID) bool { return p == "near" })
		l.SetUplink(mib)
		start := time.Now()
		for range 16 {
			for _, from := range []peer.ID{"", "far", "near"} {
				if err := l.Down(t.Context(), from, mib/8); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := time.Since(start); d != 15*time.Second/4 {
			t.Errorf("4 MiB at 1 MiB/s, less the first 256 KiB, took %v", d)
		}
		ended := errors.New("ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(ended) })
		start = time.Now()
		if err := l.Down(ctx, "far", 100*mib); !errors.Is(err, ended) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestByteLimitsAreChecked(t *testing.T) {
	l := New(make(handler), nowhere)
	for _, text := range []string{`{"up_bytes_per_second": 1}`, `{"down_bytes_per_second": -1}`, `{"peer_up_bytes_per_second": 1e18}`} {
		if _, err := l.Change([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
