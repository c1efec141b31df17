package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/sec"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// counted counts what is written below TLS, and fails once it is told to.
type counted struct {
	net.Conn
	writes atomic.Int64
	fail   atomic.Bool
}

var errFailed = errors.New("failed")

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.fail.Load() {
		return 0, errFailed
	}
	return c.Conn.Write(p)
}

// secured is a connection that this package secures, from its lower end up.
func secured(t *testing.T) (below *counted, from, to sec.SecureConn) {
	t.Helper()
	keyA, _ := p2ptest.Key(t)
	keyB, b := p2ptest.Key(t)
	dials, err := newTLS(libp2ptls.ID, keyA, muxers)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := libp2ptls.New(libp2ptls.ID, keyB, muxers)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		conn sec.SecureConn
		err  error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			accepted <- result{nil, err}
			return
		}
		s, err := answers.SecureInbound(t.Context(), c, "")
		accepted <- result{s, err}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	below = &counted{Conn: c}
	from, err = dials.SecureOutbound(t.Context(), below, b)
	if err != nil {
		t.Fatal(err)
	}
	r := <-accepted
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _, _ = from.Close(), r.conn.Close() })
	return below, from, r.conn
}

// TestLargeWritesLeaveTogether: a frame of the muxer is one write to the kernel,
// a new connection's too, whose records are short; small ones are not held.
func TestLargeWritesLeaveTogether(t *testing.T) {
	below, from, to := secured(t)
	for _, n := range []int{1, 64 << 10, 64 << 10, 64<<10 + 12, 16 << 10, 64 << 10, 300 << 10} {
		data := p2ptest.Bytes(uint64(n), n)
		before := below.writes.Load()
		if k, err := from.Write(data); k != n || err != nil {
			t.Fatalf("wrote %d of %d bytes: %v", k, n, err)
		}
		if got, want := below.writes.Load()-before, max(1, int64(n)>>16+1); got > want {
			t.Errorf("%d bytes left in %d writes, want at most %d", n, got, want)
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came wrong: %v", n, err)
		}
	}
}

// TestLargeWriteFails: the error of what is sent last is that of its Write, and
// stays.
func TestLargeWriteFails(t *testing.T) {
	below, from, _ := secured(t)
	below.fail.Store(true)
	if n, err := from.Write(make([]byte, 40<<10)); n != 0 || !errors.Is(err, errFailed) {
		t.Errorf("large write: %d, %v", n, err)
	}
	below.fail.Store(false)
	if _, err := from.Write([]byte("x")); err == nil {
		t.Error("a record follows one that was not sent")
	}
}

// TestLargeAndSmallWritesAtOnce: whoever writes, all arrives, each whole.
func TestLargeAndSmallWritesAtOnce(t *testing.T) {
	_, from, to := secured(t)
	const each = 40
	sizes := []int{10, 17 << 10, 70 << 10, 100}
	var all sync.WaitGroup
	for who, n := range sizes {
		all.Go(func() {
			for i := range each {
				msg := bytes.Repeat([]byte{byte(i)}, 8+n)
				binary.BigEndian.PutUint32(msg, uint32(who))
				binary.BigEndian.PutUint32(msg[4:], uint32(n))
				if _, err := from.Write(msg); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := make([]byte, len(sizes))
	for range each * len(sizes) {
		var head [8]byte
		if _, err := io.ReadFull(to, head[:]); err != nil {
			t.Fatal(err)
		}
		who := binary.BigEndian.Uint32(head[:])
		body := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(to, body); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body, bytes.Repeat(next[who:who+1], sizes[who])) {
			t.Fatalf("message %d of writer %d is not whole", next[who], who)
		}
		next[who]++
	}
	all.Wait()
}
