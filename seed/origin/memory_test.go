package origin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/content"
)

const mib = content.BlockSize

// memory is an origin without a network, for tests in virtual time. Its file
// has any size; byte i is i>>8 plus i, so that a shifted byte is seen.
type memory struct {
	size int64
	etag string
	// reply writes an answer; nil: good. Returning false closes the connection.
	reply func(conn net.Conn, r hit) bool
	// refuse, where it returns an error, fails a dial.
	refuse func(ctx context.Context) error

	mu sync.Mutex
	// mu guards the following.
	hits  []hit
	dials []time.Time
	conns []net.Conn
}

// hit is one request that the origin saw.
type hit struct {
	*http.Request
	n   int // from 0
	at  time.Time
	rng content.Range // asked, cut at the file's end; all of it without Range
}

func (h hit) String() string { return fmt.Sprintf("%s %v", h.Method, h.rng) }

// overlaps reports whether the request asked for bytes of a block.
func (h hit) overlaps(block int64) bool {
	return !h.rng.Intersect(content.Range{Off: block * mib, Len: mib}).Empty()
}

// period is after how many bytes the pattern repeats.
const period = 1 << 16

var onePeriod = func() (p [period]byte) {
	for i := range p {
		p[i] = byte(i>>8 + i)
	}
	return p
}()

func pattern(off, n int64) []byte {
	b := make([]byte, 0, n)
	for int64(len(b)) < n {
		from := (off + int64(len(b))) % period
		b = append(b, onePeriod[from:min(period, from+n-int64(len(b)))]...)
	}
	return b
}

// client returns a client whose every connection leads to the origin.
func (o *memory) client(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	c := New(cfg)
	c.direct.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		if ap, err := netip.ParseAddrPort(addr); err == nil {
			if err := c.cfg.Policy.CheckAddr(ap.Addr()); err != nil {
				return nil, err
			}
		}
		return o.dial(ctx)
	}
	t.Cleanup(func() {
		c.CloseIdle()
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, conn := range o.conns {
			conn.Close()
		}
	})
	return c
}

func (o *memory) dial(ctx context.Context) (net.Conn, error) {
	o.mu.Lock()
	o.dials = append(o.dials, time.Now())
	o.mu.Unlock()
	if o.refuse != nil {
		if err := o.refuse(ctx); err != nil {
			return nil, err
		}
	}
	near, far := net.Pipe()
	o.mu.Lock()
	o.conns = append(o.conns, near, far)
	o.mu.Unlock()
	go o.handle(far)
	return near, nil
}

func (o *memory) handle(conn net.Conn) {
	defer conn.Close()
	br := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		o.mu.Lock()
		h := hit{Request: r, n: len(o.hits), at: time.Now(), rng: content.Range{Len: o.size}}
		var first, last int64
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n == 2 {
			h.rng = content.Span(first, last+1).Intersect(h.rng)
		}
		o.hits = append(o.hits, h)
		o.mu.Unlock()
		if o.reply == nil {
			if !o.good(conn, h) {
				return
			}
		} else if !o.reply(conn, h) {
			return
		}
	}
}

// head writes the head of a good answer.
func (o *memory) head(conn net.Conn, h hit) {
	status := "200 OK"
	if h.Header.Get("Range") != "" {
		status = fmt.Sprintf("206 Partial Content\nContent-Range: bytes %d-%d/%d", h.rng.Off, h.rng.End()-1, o.size)
	}
	o.say(conn, fmt.Sprintf("%s\nETag: %q\nAccept-Ranges: bytes\nContent-Length: %d\n\n", status, "v1"+o.etag, h.rng.Len))
}

// say writes "status line\nfields\n\nbody".
func (o *memory) say(conn net.Conn, text string) { io.WriteString(conn, wire(text)) }

// good writes a good answer.
func (o *memory) good(conn net.Conn, h hit) bool {
	o.head(conn, h)
	if h.Method == http.MethodHead {
		return true
	}
	return o.bytes(conn, h.rng)
}

// bytes writes bytes of the file.
func (o *memory) bytes(conn net.Conn, r content.Range) bool {
	_, err := conn.Write(pattern(r.Off, r.Len))
	return err == nil
}

// seen returns the requests so far that want holds for.
func (o *memory) seen(want func(hit) bool) []hit {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.hits), func(h hit) bool { return want != nil && !want(h) })
}

// dialled returns how often a connection was tried.
func (o *memory) dialled() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.dials)
}

const file = "http://origin.test/file"

// at is the request for a range of blocks.
func at(block, n int64) Request {
	return Request{URL: file, Range: content.Range{Off: block * mib, Len: n * mib}}
}

// read gets a range and all its bytes, which must be right as far as they come.
func read(t *testing.T, ctx context.Context, c *Client, r Request) (n int64, err error) {
	t.Helper()
	resp, err := c.Get(ctx, r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if !bytes.Equal(got, pattern(resp.Range.Off, int64(len(got)))) {
		t.Errorf("the bytes of %v are wrong", resp.Range)
	}
	if err == nil && int64(len(got)) != resp.Range.Len {
		t.Errorf("%d bytes of %v without an error", len(got), resp.Range)
	}
	return int64(len(got)), err
}

// atMost fails where more than n requests came in any minute.
func atMost(t *testing.T, n int, hits []hit) {
	t.Helper()
	for i := n; i < len(hits); i++ {
		if d := hits[i].at.Sub(hits[i-n].at); d < time.Minute {
			t.Fatalf("%d requests in %v: %v", n+1, d, hits[i-n:i+1])
		}
	}
}

// spent returns err's BudgetError, and fails where there is none for a reason.
func spent(t *testing.T, err error, reason Reason) *BudgetError {
	t.Helper()
	var b *BudgetError
	if !errors.As(err, &b) || b.Reason != reason || b.RetryAfter <= 0 || b.Last == nil {
		t.Fatalf("got %v, want a BudgetError for %s", err, reason)
	}
	return b
}

// refusing is the error of a dial to a port where nobody listens.
func refusing(context.Context) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}
