package origin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// hostile runs ten reads of r, two seconds apart, against an origin, and checks
// what holds whatever it does: no wrong byte, no answer that is whole and is
// not, an end within a minute, four requests a minute.
func hostile(t *testing.T, r Request, reply func(o *memory, conn net.Conn, h hit) bool, check func(n int64, err error, o *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: 4 * mib}
		o.reply = func(conn net.Conn, h hit) bool { return reply(o, conn, h) }
		c := o.client(t, Config{})
		for i := range 10 {
			start := time.Now()
			n, err := read(t, t.Context(), c, r)
			if d := time.Since(start); d > time.Minute {
				t.Errorf("read %d took %v", i, d)
			}
			if i == 0 || !errors.As(err, new(*BudgetError)) {
				check(n, err, o)
			}
			if err == nil {
				continue
			}
			atMost(t, 4, o.seen(nil))
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Minute) // the origin notices that nobody reads
	})
}

// fails checks that an origin yields no more than n bytes and an error.
func fails(t *testing.T, want error, most int64) func(int64, error, *memory) {
	return func(n int64, err error, _ *memory) {
		t.Helper()
		if !errors.Is(err, want) || n > most {
			t.Errorf("got %d bytes, %v; want at most %d, then %v", n, err, most, want)
		}
	}
}

func TestHostileShortBody(t *testing.T) {
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
		o.head(conn, h)
		o.bytes(conn, content.Range{Off: h.rng.Off, Len: 100})
		return false
	}, fails(t, io.ErrUnexpectedEOF, 300))
}

func TestHostileShortBodyOnce(t *testing.T) {
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
		o.head(conn, h)
		if h.n == 0 {
			o.bytes(conn, content.Range{Off: h.rng.Off, Len: 100})
			return false
		}
		return o.bytes(conn, h.rng)
	}, func(n int64, err error, o *memory) {
		if n != mib || err != nil {
			t.Errorf("got %d bytes, %v", n, err)
		}
		if hits := o.seen(nil); hits[1].rng != content.Span(mib+100, 2*mib) {
			t.Errorf("asked %v, want to go on at the next byte", hits[:2])
		}
	})
}

func TestHostileWrongContentRange(t *testing.T) {
	for _, field := range []string{"bytes 5-2/100", "bytes 1048576-2097151/*", "bytes */4194304", "lines 1048576-2097151/4194304", "nonsense", "bytes 1048576-2097151/1048577"} {
		t.Run(field, func(t *testing.T) {
			hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
				o.say(conn, "206 Partial Content\nETag: \"v1\"\nContent-Length: 1048576\nContent-Range: "+field+"\n\n")
				return o.bytes(conn, h.rng)
			}, fails(t, ErrUncacheable, 0))
		})
	}
}

func TestHostile206ForAnotherRange(t *testing.T) {
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
		h.rng.Off += 7
		o.head(conn, h)
		return o.bytes(conn, h.rng)
	}, fails(t, ErrUncacheable, 0))
	// Of the part that is asked for after a break, too.
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
		if h.n > 0 {
			h.rng.Off--
		}
		o.head(conn, h)
		o.bytes(conn, content.Range{Off: h.rng.Off, Len: 5000})
		return false
	}, fails(t, ErrUncacheable, 5000))
}

func TestHostileChangingETag(t *testing.T) {
	var n atomic.Int64
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
		o.say(conn, fmt.Sprintf("206 Partial Content\nETag: \"v%d\"\nContent-Length: %d\nContent-Range: bytes %d-%d/%d\n\n",
			n.Add(1), h.rng.Len, h.rng.Off, h.rng.End()-1, o.size))
		o.bytes(conn, content.Range{Off: h.rng.Off, Len: 5000})
		return false
	}, fails(t, ErrChanged, 5000))
}

func TestHostile200ForRange(t *testing.T) {
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
		h.Header.Del("Range")
		h.rng = content.Range{Len: o.size}
		o.head(conn, h)
		return o.bytes(conn, h.rng)
	}, func(n int64, err error, o *memory) {
		if n != o.size || err != nil {
			t.Errorf("got %d bytes, %v; want the whole file from its first byte", n, err)
		}
	})
}

// A body that goes on behind its end is cut there, and its connection dropped.
func TestHostileEndlessBody(t *testing.T) {
	for name, head := range map[string]string{
		"of a good length":  "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 1048576-2097151/4194304\nContent-Length: 1048576\n\n",
		"chunked":           "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 1048576-2097151/4194304\nTransfer-Encoding: chunked\n\n",
		"until it is ended": "206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 1048576-2097151/4194304\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			var stopped atomic.Int64
			hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
				defer stopped.Add(1)
				o.say(conn, head)
				for off := int64(mib); ; off += 1 << 10 {
					if name == "chunked" {
						io.WriteString(conn, "400\r\n")
					}
					if !o.bytes(conn, content.Range{Off: off, Len: 1 << 10}) {
						return false
					}
					if name == "chunked" {
						io.WriteString(conn, "\r\n")
					}
				}
			}, func(n int64, err error, o *memory) {
				synctest.Wait()
				if n != mib || err != nil || int(stopped.Load()) != len(o.seen(nil)) {
					t.Errorf("got %d bytes, %v; the origin was stopped %d times of %d", n, err, stopped.Load(), len(o.seen(nil)))
				}
			})
		})
	}
	t.Run("of no length at all", func(t *testing.T) {
		hostile(t, Request{URL: file}, func(o *memory, conn net.Conn, h hit) bool {
			o.say(conn, "200 OK\nETag: \"v1\"\n\n")
			for o.bytes(conn, content.Range{Len: 1 << 10}) {
			}
			return false
		}, fails(t, ErrUncacheable, 0))
	})
	t.Run("as a header", func(t *testing.T) {
		hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return false
				}
			}
		}, fails(t, ErrUnreachable, 0))
	})
}

// trickle writes p in pieces of n bytes, one a step.
func trickle(conn net.Conn, p []byte, n int, step time.Duration) bool {
	for len(p) > 0 {
		time.Sleep(step)
		n = min(n, len(p))
		if _, err := conn.Write(p[:n]); err != nil {
			return false
		}
		p = p[n:]
	}
	return true
}

func TestHostileSlowLorisHeader(t *testing.T) {
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, _ hit) bool {
		return trickle(conn, []byte("HTTP/1.1 206 Partial Content\r\n"+strings.Repeat("X: y\r\n", 1000)), 1, time.Second)
	}, fails(t, ErrUnreachable, 0))
}

func TestHostileSlowLorisBody(t *testing.T) {
	for name, step := range map[string]time.Duration{"a byte a second": time.Second, "a byte in 29 seconds": 29 * time.Second, "one in 1.1 milliseconds": 1100 * time.Microsecond} {
		t.Run(name, func(t *testing.T) {
			hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
				o.head(conn, h)
				return trickle(conn, pattern(h.rng.Off, h.rng.Len), 1, step)
			}, func(n int64, err error, o *memory) {
				if !errors.Is(err, ErrUnreachable) || n > 60<<10 {
					t.Errorf("got %d bytes, %v; want ErrUnreachable", n, err)
				}
			})
		})
	}
}

// An origin that is slow, but comes, is waited for: it costs it one request.
func TestSlowOriginIsKept(t *testing.T) {
	for name, tc := range map[string]struct {
		piece int
		step  time.Duration
	}{
		"10 KiB/s, smoothly":     {1 << 10, 100 * time.Millisecond},
		"10 KiB/s, in one burst": {250 << 10, 25 * time.Second},
		"1.2 KiB/s":              {1200, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &memory{size: mib}
				o.reply = func(conn net.Conn, h hit) bool {
					time.Sleep(29 * time.Second)
					o.head(conn, h)
					return trickle(conn, pattern(h.rng.Off, h.rng.Len), tc.piece, tc.step)
				}
				c := o.client(t, Config{})
				if n, err := read(t, t.Context(), c, at(0, 1)); n != mib || err != nil || len(o.seen(nil)) != 1 {
					t.Errorf("got %d bytes by %d requests, %v", n, len(o.seen(nil)), err)
				}
			})
		})
	}
}

// A reader that is slow itself does not make an origin slow.
func TestSlowReaderIsNoSlowOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: mib}
		c := o.client(t, Config{})
		resp, err := c.Get(t.Context(), at(0, 1))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf, n := make([]byte, 10), 0
		for range 100 {
			time.Sleep(20 * time.Second)
			m, err := resp.Body.Read(buf)
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || len(o.seen(nil)) != 1 {
			t.Errorf("%v after %d requests", err, len(o.seen(nil)))
		}
	})
}

func TestHostileRedirectLoop(t *testing.T) {
	r := at(1, 1)
	r.Digest = digest
	for name, tc := range map[string]struct {
		to   func(hit) string
		most int // requests of one read
	}{
		"to itself":   {func(hit) string { return "/file" }, 1},
		"to and fro":  {func(h hit) string { return map[string]string{"/file": "/other", "/other": "/file"}[h.URL.Path] }, 2},
		"without end": {func(h hit) string { return h.URL.Path + "x" }, 4},
	} {
		t.Run(name, func(t *testing.T) {
			first := true
			hostile(t, r, func(o *memory, conn net.Conn, h hit) bool {
				return o.status(conn, "302 Found\nLocation: "+tc.to(h))
			}, func(n int64, err error, o *memory) {
				var status *StatusError
				if !errors.As(err, &status) || status.Status != 302 {
					t.Errorf("got %v, want the status", err)
				}
				if hits := o.seen(nil); first && len(hits) != tc.most {
					t.Errorf("asked %v, want %d", hits, tc.most)
				}
				first = false
			})
		})
	}
}

func TestHostileRedirectToPrivateAddress(t *testing.T) {
	r := at(1, 1)
	r.Digest = digest
	for _, target := range []string{"http://10.0.0.1/x", "http://169.254.169.254/latest/", "http://[::1]/x", "http://127.0.0.1:80/", "file:///etc/passwd"} {
		t.Run(target, func(t *testing.T) {
			hostile(t, r, func(o *memory, conn net.Conn, h hit) bool {
				return o.status(conn, "302 Found\nLocation: "+target)
			}, func(n int64, err error, o *memory) {
				if !errors.Is(err, ErrForbiddenTarget) {
					t.Errorf("got %v, want ErrForbiddenTarget", err)
				}
				if hits := o.seen(func(h hit) bool { return h.Host != "origin.test" }); len(hits) > 0 {
					t.Errorf("asked %v", hits)
				}
			})
		})
	}
}

func TestHostile429WithRetryAfter(t *testing.T) {
	hostile(t, at(1, 1), func(o *memory, conn net.Conn, _ hit) bool {
		return o.status(conn, "429 Too Many Requests\nRetry-After: 3600")
	}, func(n int64, err error, o *memory) {
		var status *StatusError
		if b := spent(t, err, ReasonRetryAfter); b.RetryAfter < 5*time.Minute || !errors.As(err, &status) || status.Status != http.StatusTooManyRequests {
			t.Errorf("got %v", err)
		}
		if n := len(o.seen(nil)); n != 1 {
			t.Errorf("%d requests, want one", n)
		}
	})
}

// Bursts of failures, shorter than a fill's patience, are not seen by readers;
// of longer ones the origin sees four requests a minute.
func TestHostile5xxBursts(t *testing.T) {
	for _, status := range []string{"500 Oops", "502 Bad Gateway", "503 Busy", "504 Timeout"} {
		t.Run(status, func(t *testing.T) {
			hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
				if h.n%3 < 2 {
					return o.status(conn, status)
				}
				return o.good(conn, h)
			}, func(n int64, err error, o *memory) {
				if n != mib || err != nil {
					t.Errorf("got %d bytes, %v", n, err)
				}
			})
			hostile(t, at(1, 1), func(o *memory, conn net.Conn, h hit) bool {
				return o.status(conn, status)
			}, func(n int64, err error, o *memory) {
				var got *StatusError
				if !errors.As(err, &got) || !strings.HasPrefix(status, fmt.Sprint(got.Status)) {
					t.Errorf("got %v, want the status", err)
				}
			})
		})
	}
}

func TestHostileResetMidBody(t *testing.T) {
	o := serve(t, func(o *scripted, n int, conn *net.TCPConn, r *http.Request) bool {
		if n == 0 {
			io.WriteString(conn, wire(ok206+"\n0123"))
			conn.SetLinger(0)
			<-o.again // the client has read them: a reset would take them away
			return false
		}
		io.WriteString(conn, wire("206 Partial Content\nETag: \"v1\"\nContent-Range: bytes 14-19/100\nContent-Length: 6\n\n456789"))
		return true
	})
	resp, err := loopback(t, Config{Limits: Limits{Attempts: 3, RetryDelay: time.Millisecond}}).Get(deadline(t), Request{URL: o.url, Range: asked10})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, got); err != nil {
		t.Fatal(err)
	}
	close(o.again)
	rest, err := io.ReadAll(resp.Body)
	if got = append(got, rest...); string(got) != ten || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if asked := o.asked(); !slices.Equal(asked, []string{"GET bytes=10-19", "GET bytes=14-19"}) {
		t.Errorf("asked %q, want to go on at the next byte", asked)
	}
}
