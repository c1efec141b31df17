package origin

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// A body that breaks again and again, each time further on, is put together.
func TestResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const piece = 100_000
		o := &memory{size: 3*mib + 77}
		o.reply = func(conn net.Conn, h hit) bool {
			o.head(conn, h)
			o.bytes(conn, content.Range{Off: h.rng.Off, Len: min(piece, h.rng.Len)})
			return false
		}
		c := o.client(t, Config{})
		n, err := read(t, t.Context(), c, at(0, 4))
		if n != o.size || err != nil {
			t.Fatalf("got %d of %d bytes, %v", n, o.size, err)
		}
		var next int64
		for i, h := range o.seen(nil) {
			if h.rng.Off != next {
				t.Fatalf("request %d is for %v, want it to go on at %d", i, h.rng, next)
			}
			next += min(piece, h.rng.Len)
		}
		if next != o.size {
			t.Errorf("the origin sent %d bytes of %d", next, o.size)
		}
	})
}

// What a resumed body is of must be what it was of at first.
func TestResumeOfChangedFile(t *testing.T) {
	for name, tc := range map[string]struct {
		digest string
		change func(*memory)
	}{
		"other ETag":           {"", func(o *memory) { o.etag = "2" }},
		"digest of other size": {digest, func(o *memory) { o.size++ }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &memory{size: 2 * mib}
				o.reply = func(conn net.Conn, h hit) bool {
					if h.n > 0 {
						tc.change(o)
						return o.good(conn, h)
					}
					o.head(conn, h)
					o.bytes(conn, content.Range{Off: h.rng.Off, Len: mib + 5})
					return false
				}
				c := o.client(t, Config{})
				r := at(0, 2)
				r.Digest = tc.digest
				resp, err := c.Get(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if n, err := io.Copy(io.Discard, resp.Body); n != mib+5 || !errors.Is(err, ErrChanged) {
					t.Errorf("%d bytes, %v; want the first %d and ErrChanged", n, err, mib+5)
				}
				if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, ErrChanged) {
					t.Errorf("the error went away: %v", err)
				}
			})
		})
	}
}

// An origin without ranges is read from its first byte again, and what is known
// already is passed over.
func TestResumeWithoutRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: 3 * mib}
		o.reply = func(conn net.Conn, h hit) bool {
			h.rng = content.Range{Len: o.size}
			h.Header.Del("Range")
			o.head(conn, h)
			o.bytes(conn, content.Range{Len: min(o.size, int64(h.n+1)*(mib+1000))})
			return false
		}
		c := o.client(t, Config{})
		if n, err := read(t, t.Context(), c, at(1, 1)); n != o.size || err != nil {
			t.Errorf("%d bytes, %v; want the whole file", n, err)
		}
		if n := len(o.seen(nil)); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
	})
}

// Retries wait, longer each time and never twice the same, and end.
func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: mib}
		o.reply = func(conn net.Conn, _ hit) bool { return o.status(conn, "502 Oops") }
		c := o.client(t, Config{Limits: Limits{Attempts: 6, BlockFailures: 100}})
		var waits [5][]time.Duration
		for range 5 {
			before := len(o.seen(nil))
			if _, err := c.Get(t.Context(), at(0, 1)); errors.As(err, new(*BudgetError)) || err == nil {
				t.Fatalf("got %v, want the status", err)
			}
			hits := o.seen(nil)[before:]
			if len(hits) != 6 {
				t.Fatalf("%d attempts, want 6", len(hits))
			}
			for i := range waits {
				waits[i] = append(waits[i], hits[i+1].at.Sub(hits[i].at))
			}
		}
		for i, mean := 0, 200*time.Millisecond; i < len(waits); i, mean = i+1, 2*mean {
			slices.Sort(waits[i])
			if waits[i][0] < mean/2 || waits[i][4] > mean*3/2 || waits[i][0] == waits[i][4] {
				t.Errorf("wait %d: %v, want %v spread by half", i, waits[i], mean)
			}
		}
	})
}

// The reader's end ends a wait for the next attempt, and Close does too.
func TestRetryEndsWithReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: 2 * mib}
		o.reply = func(conn net.Conn, h hit) bool {
			o.head(conn, h)
			o.bytes(conn, content.Range{Off: h.rng.Off, Len: min(1000, h.rng.Len)})
			return false
		}
		c := o.client(t, Config{Limits: Limits{RetryDelay: time.Hour}})
		resp, err := c.Get(t.Context(), at(0, 1))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		time.AfterFunc(time.Second, func() { resp.Body.Close() })
		n, err := io.Copy(io.Discard, resp.Body)
		if n != 1000 || err == nil || time.Since(start) != time.Second {
			t.Errorf("%d bytes, %v after %v; want an end after a second", n, err, time.Since(start))
		}
	})
}
