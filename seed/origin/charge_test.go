package origin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// status answers with a status and no body.
func (o *memory) status(conn net.Conn, line string) bool {
	o.say(conn, line+"\nContent-Length: 0\n\n")
	return true
}

// A stripe with one bad block in it comes but for that block, which costs four
// requests in all, those for several blocks included.
func TestFailingBlockInsideStripe(t *testing.T) {
	for name, fail := range map[string]func(o *memory, conn net.Conn, h hit) bool{
		"at once": failures["500"],
		"when it comes to it": func(o *memory, conn net.Conn, h hit) bool {
			o.head(conn, h)
			o.bytes(conn, content.Span(h.rng.Off, max(h.rng.Off, 2*mib)))
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &memory{size: 4 * mib}
				o.reply = func(conn net.Conn, h hit) bool {
					if h.overlaps(2) {
						return fail(o, conn, h)
					}
					return o.good(conn, h)
				}
				c := o.client(t, Config{})
				if n, err := read(t, t.Context(), c, at(0, 4)); n != 2*mib || err == nil {
					t.Errorf("got %d bytes, %v; want the two good blocks", n, err)
				}
				for range 3 {
					read(t, t.Context(), c, at(2, 2))
				}
				_, err := read(t, t.Context(), c, at(2, 1))
				spent(t, err, ReasonBlock)
				if n, err := read(t, t.Context(), c, at(3, 1)); n != mib || err != nil {
					t.Errorf("the block behind: %d bytes, %v", n, err)
				}
				// The whole again: it stops before the bad block at once.
				before := len(o.seen(nil))
				if n, err := read(t, t.Context(), c, at(0, 4)); n != 2*mib || !errors.As(err, new(*BudgetError)) {
					t.Errorf("again: %d bytes, %v", n, err)
				}
				if hits := o.seen(nil)[before:]; len(hits) != 1 || hits[0].rng != (content.Range{Len: 2 * mib}) {
					t.Errorf("again: asked %v, want the blocks before the bad one in one request", hits)
				}
				if hits := o.seen(func(h hit) bool { return h.overlaps(2) }); len(hits) != 4 {
					t.Errorf("asked for the bad block by %v, want four requests", hits)
				}
			})
		})
	}
}

// What succeeds costs nothing, however often and however many at once.
func TestSuccessIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		o := &memory{size: 1000}
		o.reply = func(conn net.Conn, h hit) bool {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Millisecond)
			return o.good(conn, h)
		}
		c := o.client(t, Config{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 4 {
					if _, err := read(t, t.Context(), c, at(0, 1)); err != nil {
						t.Error(err)
					}
				}
				if _, err := c.Head(t.Context(), at(0, 1)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(o.seen(nil)); n != 250 || most.Load() > 4+2 {
			t.Errorf("%d requests, %d at once; want 250, of one block four and two for the metadata", n, most.Load())
		}
		if n := c.ledger.records.Len(); n != 0 {
			t.Errorf("%d records of nothing", n)
		}
	})
}

// Metadata has a budget of its own, in which both HEAD and the GET after it count.
func TestFailingHead(t *testing.T) {
	for name, tc := range map[string]struct{ head, get string }{
		"503":            {"503 Oops", "503 Oops"},
		"405, then 500":  {"405 Method Not Allowed", "500 Oops"},
		"403, then 404":  {"403 Forbidden", "404 Not Found"},
		"403, then 403":  {"403 Forbidden", "403 Forbidden"},
		"HEAD gone, 404": {"404 Not Found", "200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &memory{size: 4 * mib}
				o.reply = func(conn net.Conn, h hit) bool {
					switch {
					case h.Method == http.MethodHead:
						return o.status(conn, tc.head)
					case h.rng.Len == 1:
						return o.status(conn, tc.get)
					}
					return o.good(conn, h)
				}
				c := o.client(t, Config{})
				var err error
				for range 20 {
					if _, err = c.Head(t.Context(), Request{URL: file}); err == nil {
						t.Fatal("it worked")
					}
				}
				spent(t, err, ReasonBlock)
				if hits := o.seen(nil); len(hits) < 3 || len(hits) > 4 {
					t.Errorf("asked %v", hits)
				}
				if _, err := read(t, t.Context(), c, at(0, 1)); err != nil {
					t.Errorf("block 0: %v", err)
				}
				time.Sleep(2 * time.Minute)
				c.Head(t.Context(), Request{URL: file})
				atMost(t, 4, o.seen(func(h hit) bool { return h.Method == http.MethodHead || h.rng.Len == 1 }))
			})
		})
	}
}

// An answer for one requester says nothing to another, but a failure does.
func TestAnswersAreTheRequesters(t *testing.T) {
	bearer := func(token string) Request {
		r := at(0, 1)
		r.Header = http.Header{"Authorization": {"Bearer " + token}}
		return r
	}
	signed := func(sig string) Request {
		r := at(0, 1)
		r.URL += "?sig=" + sig
		return r
	}
	expecting := func(g byte) Request {
		r := at(0, 1)
		r.Expect = content.Generation{g}
		return r
	}
	for name, tc := range map[string]struct {
		status string
		asks   []Request // after four times the first one
		fourth bool      // the others are refused too
	}{
		"401 for credentials":  {"401 Unauthorized", []Request{bearer("a"), bearer("b"), at(0, 1)}, false},
		"403 for a signature":  {"403 Forbidden", []Request{signed("a"), signed("b"), signed("c")}, false},
		"404":                  {"404 Not Found", []Request{signed("a"), bearer("b")}, false},
		"500 for credentials":  {"500 Oops", []Request{bearer("a"), bearer("b"), at(0, 1)}, true},
		"502 for a signature":  {"502 Oops", []Request{signed("a"), signed("b"), signed("c")}, true},
		"changed, for several": {"200 OK\nETag: \"v2\"", []Request{expecting(1), expecting(2)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &memory{size: 4 * mib}
				o.reply = func(conn net.Conn, _ hit) bool { return o.status(conn, tc.status) }
				c := o.client(t, Config{})
				for range 10 {
					c.Get(t.Context(), tc.asks[0])
				}
				_, err := c.Get(t.Context(), tc.asks[0])
				spent(t, err, ReasonBlock)
				if n := len(o.seen(nil)); n != 4 {
					t.Fatalf("%d requests, want 4", n)
				}
				for _, r := range tc.asks[1:] {
					_, err := c.Get(t.Context(), r)
					if refused := errors.As(err, new(*BudgetError)); refused != tc.fourth {
						t.Errorf("another requester got %v", err)
					}
				}
				if tc.status[0] == '4' { // the answer is kept for those whom it was for
					var status *StatusError
					if !errors.As(err, &status) || fmt.Sprint(status.Status) != tc.status[:3] {
						t.Errorf("the last answer is lost: %v", err)
					}
				}
			})
		})
	}
}

// The tables are bounded, and where they forget the origin's own budget holds.
func TestFailingBlocksWithoutNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: 1 << 40}
		o.reply = func(conn net.Conn, _ hit) bool { return o.status(conn, "500 Oops") }
		c := o.client(t, Config{Limits: Limits{Blocks: 8, Tasks: 8, Origins: 8, Attempts: 1}})
		start := time.Now()
		for i := range int64(1000) {
			r := at(i, 4)
			r.Task = content.TaskID{byte(i), 1}
			c.Get(t.Context(), r)
		}
		_, err := c.Get(t.Context(), at(0, 1))
		if b := spent(t, err, ReasonOrigin); b.RetryAfter > time.Second {
			t.Errorf("to be asked again after %v, want within a second", b.RetryAfter)
		}
		if n := len(o.seen(nil)); n != 64 || time.Since(start) > 0 {
			t.Errorf("%d requests in %v, want 64 at once", n, time.Since(start))
		}
		if n := c.ledger.records.Len(); n > 8 {
			t.Errorf("%d records, want at most 8", n)
		}
		time.Sleep(time.Minute / 64)
		c.Get(t.Context(), at(77, 1))
		c.Get(t.Context(), at(78, 1))
		if n := len(o.seen(nil)); n != 65 {
			t.Errorf("%d requests after a 64th of a minute, want one more", n-64)
		}
		for i := range 1000 {
			c.Get(t.Context(), Request{URL: fmt.Sprintf("http://host%d.test/", i)})
		}
		if n := c.gates.byOrigin.Len(); n > 8 {
			t.Errorf("%d origins, want at most 8", n)
		}
	})
}

// An origin that fails a few requests in a hundred keeps being asked.
func TestGoodOutweighsBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &memory{size: 4000 * mib}
		o.reply = func(conn net.Conn, h hit) bool {
			if h.n%20 == 0 {
				return o.status(conn, "500 Oops")
			}
			return o.good(conn, h)
		}
		c := o.client(t, Config{})
		for i := range int64(4000) {
			if _, err := c.Head(t.Context(), Request{URL: file, Task: content.TaskID{byte(i >> 8), byte(i)}}); err != nil {
				t.Fatalf("read %d: %v", i, err)
			}
		}
	})
}

// A block that came has a clean record, also as one of many.
func TestSuccessClears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good atomic.Bool
		o := &memory{size: 20 * mib}
		o.reply = func(conn net.Conn, h hit) bool {
			if good.Load() {
				return o.good(conn, h)
			}
			return o.status(conn, "500 Oops")
		}
		c := o.client(t, Config{})
		for range 3 {
			read(t, t.Context(), c, at(0, 4)) // three times block 0, once the others
			good.Store(true)
			if n, err := read(t, t.Context(), c, at(0, 4)); n != 4*mib || err != nil {
				t.Fatalf("got %d bytes, %v", n, err)
			}
			good.Store(false)
		}
		read(t, t.Context(), c, at(18, 1))
		good.Store(true)
		if n, err := read(t, t.Context(), c, at(0, 20)); n != 20*mib || err != nil {
			t.Fatalf("got %d bytes, %v", n, err)
		}
		if n := c.ledger.records.Len(); n != 0 {
			t.Errorf("%d records of what came", n)
		}
	})
}

// Connections that the origin has closed meanwhile are no failure; but one that
// closes them all in answer to a request does not get that request on each.
func TestClosedConnections(t *testing.T) {
	for name, fresh := range map[string]bool{"used ones only": true, "new ones too": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				used := make(map[net.Conn]bool)
				o := &memory{size: 16 * mib}
				o.reply = func(conn net.Conn, h hit) bool {
					mu.Lock()
					again := used[conn]
					used[conn] = true
					mu.Unlock()
					if h.overlaps(15) && (again || !fresh) {
						return false
					}
					time.Sleep(time.Second)
					return o.good(conn, h)
				}
				c := o.client(t, Config{Limits: Limits{Attempts: 1}})
				var wg sync.WaitGroup
				for i := range int64(10) {
					wg.Go(func() { read(t, t.Context(), c, at(i, 1)) })
				}
				wg.Wait()
				if _, err := read(t, t.Context(), c, at(15, 1)); (err == nil) != fresh {
					t.Errorf("got %v", err)
				}
				if hits := o.seen(func(h hit) bool { return h.overlaps(15) }); len(hits) != 2 {
					t.Errorf("%d requests, want one on a used connection and one on a new one", len(hits))
				}
			})
		})
	}
}
