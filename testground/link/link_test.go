package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pair returns the two ends of a TCP connection on loopback; a link takes the
// first, which has dialled, and the second is plain.
func pair(t *testing.T, l *Link) (*Conn, net.Conn) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dialled, err := new(net.Dialer).DialContext(context.Background(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	t.Cleanup(l.Close)
	return l.Conn(dialled, true), accepted
}

// TestRateAndLatency: what is sent takes at least the time that the rate and
// the delay ask for, and arrives as it was.
func TestRateAndLatency(t *testing.T) {
	const n = 256 << 10
	l := New(Shape{Rate: 16e6, Latency: 50 * time.Millisecond}) // 131 ms for n, and the delay
	c, other := pair(t, l)
	begun := time.Now()
	go func() {
		_, _ = c.Write(make([]byte, n))
		_ = c.Close() // sends what waits
	}()
	got, err := io.ReadAll(other)
	took := time.Since(begun)
	if err != nil || len(got) != n {
		t.Fatalf("%d bytes, %v; want %d", len(got), err, n)
	}
	// One segment goes at once: the limiter's burst.
	least := time.Duration(float64(n-segment)*8/16e6*1e9) + 50*time.Millisecond
	if took < least {
		t.Errorf("%d bytes took %s, want at least %s", n, took, least)
	}
	if sent, _ := l.Crossed(); sent != n {
		t.Errorf("%d bytes have crossed, want %d", sent, n)
	}
}

// TestLocal: between two hosts of one process there is no link.
func TestLocal(t *testing.T) {
	l := New(Shape{Rate: 8, Latency: time.Hour})
	c, other := pair(t, l)
	l.Own(c.RemoteAddr().String())
	in := l.Conn(other, false)
	if _, err := c.Write(make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	if sent, received := l.Crossed(); sent != 0 || received != 0 {
		t.Errorf("%d and %d bytes have crossed, want none", sent, received)
	}
}

// TestCut: nothing passes while the cable is out, the other end hears nothing
// of a close, and what was on its way arrives when the cable is in again.
func TestCut(t *testing.T) {
	l := New(Shape{})
	c, other := pair(t, l)
	l.Cut()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := other.Read(make([]byte, 5)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v, through a cut cable", n, err)
	}
	if err := other.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	l.Restore()
	if got, err := io.ReadAll(other); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestReset: the other end hears at once that the connection is over.
func TestReset(t *testing.T) {
	l := New(Shape{Latency: time.Hour})
	c, other := pair(t, l)
	if _, err := c.Write([]byte("never")); err != nil {
		t.Fatal(err)
	}
	l.Reset()
	if got, _ := io.ReadAll(other); len(got) != 0 {
		t.Errorf("got %q after a reset", got)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after a reset: %v, want %v", err, net.ErrClosed)
	}
}

// TestWriteDeadline: a write that the link cannot take ends at its deadline.
func TestWriteDeadline(t *testing.T) {
	l := New(Shape{Rate: 8})
	c, _ := pair(t, l)
	if err := c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v, want %v", err, os.ErrDeadlineExceeded)
	}
}
