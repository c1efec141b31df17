package origin

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

// failures are all ways in which an origin fails to deliver a block.
var failures = map[string]func(o *memory, conn net.Conn, h hit) bool{
	"500": func(o *memory, conn net.Conn, _ hit) bool {
		o.say(conn, "500 Oops\nContent-Length: 0\n\n")
		return true
	},
	"503": func(o *memory, conn net.Conn, _ hit) bool {
		o.say(conn, "503 Oops\nContent-Length: 0\n\n")
		return true
	},
	"429": func(o *memory, conn net.Conn, _ hit) bool {
		o.say(conn, "429 Slow down\nContent-Length: 0\n\n")
		return true
	},
	"408": func(o *memory, conn net.Conn, _ hit) bool {
		o.say(conn, "408 Timeout\nContent-Length: 0\n\n")
		return true
	},
	"404": func(o *memory, conn net.Conn, _ hit) bool {
		o.say(conn, "404 Not Found\nContent-Length: 0\n\n")
		return true
	},
	"uncacheable":   func(o *memory, conn net.Conn, h hit) bool { o.say(conn, "204 No Content\n\n"); return true },
	"no HTTP":       func(o *memory, conn net.Conn, _ hit) bool { io.WriteString(conn, "SSH-2.0-x\r\n"); return false },
	"closed":        func(*memory, net.Conn, hit) bool { return false },
	"never answers": func(_ *memory, conn net.Conn, _ hit) bool { conn.Read(make([]byte, 1)); return false },
	"head, no body": func(o *memory, conn net.Conn, h hit) bool {
		o.head(conn, h)
		return false
	},
	"half a block, then silence": func(o *memory, conn net.Conn, h hit) bool {
		o.head(conn, h)
		const wall = mib + mib/2
		o.bytes(conn, content.Span(h.rng.Off, max(h.rng.Off, min(wall, h.rng.End()))))
		conn.Read(make([]byte, 1))
		return false
	},
	"always to the same byte": func(o *memory, conn net.Conn, h hit) bool {
		o.head(conn, h)
		const wall = mib + 300_000
		o.bytes(conn, content.Span(h.rng.Off, max(h.rng.Off, min(wall, h.rng.End()))))
		return false
	},
	"the whole file, to a byte in the block": func(o *memory, conn net.Conn, h hit) bool {
		h.rng = content.Range{Len: o.size}
		h.Header.Del("Range")
		o.head(conn, h)
		o.bytes(conn, content.Range{Len: mib + 1000})
		return false
	},
}

// A failing block costs four requests a minute, whatever the failure, whoever
// and however many ask; the other blocks are served.
func TestFailingBlockIsAskedFourTimesAMinute(t *testing.T) {
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				broken.Store(true)
				o := &memory{size: 4 * mib}
				o.reply = func(conn net.Conn, h hit) bool {
					if broken.Load() && h.overlaps(1) {
						return fail(o, conn, h)
					}
					return o.good(conn, h)
				}
				c := o.client(t, Config{})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				read(t, ctx, c, Request{Task: content.TaskID{1}, URL: file, Range: at(1, 1).Range})
				var refused atomic.Int64
				var wg sync.WaitGroup
				for i := range 8 { // readers, patient and impatient ones
					wg.Go(func() {
						for ctx.Err() == nil {
							one, cancel := context.WithTimeout(ctx, time.Duration(1+i%4*20)*time.Second)
							// Signatures differ; the task is the same.
							_, err := read(t, one, c, Request{Task: content.TaskID{1}, URL: file, Range: at(1, 1).Range})
							cancel()
							if err == nil {
								t.Error("the block was served")
							}
							if b := (*BudgetError)(nil); errors.As(err, &b) && b.Reason == ReasonBlock && b.RetryAfter > 0 && b.RetryAfter <= time.Minute {
								refused.Add(1)
							}
							time.Sleep(2 * time.Second)
						}
					})
				}
				for ctx.Err() == nil {
					for _, block := range []int64{0, 2, 3} {
						if _, err := read(t, t.Context(), c, Request{Task: content.TaskID{1}, URL: file, Range: at(block, 1).Range}); err != nil && name != "the whole file, to a byte in the block" {
							t.Errorf("block %d: %v", block, err)
						}
					}
					time.Sleep(10 * time.Second)
				}
				wg.Wait()
				hits := o.seen(func(h hit) bool { return h.overlaps(1) })
				atMost(t, 4, hits)
				if len(hits) < 4 {
					t.Errorf("the block was asked for %d times in three minutes", len(hits))
				}
				if refused.Load() == 0 {
					t.Error("nobody was told when to come again")
				}
				broken.Store(false)
				time.Sleep(time.Minute)
				if _, err := read(t, t.Context(), c, at(1, 1)); err != nil {
					t.Errorf("after a good minute: %v", err)
				}
			})
		})
	}
}
