package link

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// sendBuffer is what a connection holds before its turn, in segments: as the
	// send buffer of a kernel.
	sendBuffer = 4
	// drainWithin bounds how long a closed connection goes on sending.
	drainWithin = 10 * time.Second
)

// Conn is a connection through a link. A write that returns nil may not have
// left yet, as with the kernel's.
type Conn struct {
	net.Conn
	link    *Link
	dialled bool
	local   func() bool // whether both ends are in this process

	waiting chan []byte // for their turn at the rate
	flying  chan flying // for the latency to be over
	closed  chan struct{}
	aborted chan struct{}
	close   func()
	abort   func()

	writeDeadline atomic.Pointer[time.Time]
}

// flying is a segment that is on its way until due.
type flying struct {
	data []byte
	due  time.Time
}

// Conn returns c as a connection through the link; dialled says that this
// process has dialled it.
func (l *Link) Conn(c net.Conn, dialled bool) *Conn {
	// What flies is at most what the rate sends in the latency.
	depth := 64 + int(float64(l.shape.Rate)/8*l.shape.Latency.Seconds())/segment
	s := &Conn{
		Conn: c, link: l, dialled: dialled,
		waiting: make(chan []byte, sendBuffer), flying: make(chan flying, depth),
		closed: make(chan struct{}), aborted: make(chan struct{}),
	}
	// Asked at the first byte: by then the dialler of this process has made its
	// end known.
	s.local = sync.OnceValue(func() bool { return l.isOwn(c.RemoteAddr()) })
	s.close = sync.OnceFunc(func() { close(s.closed) })
	ctx, cancel := context.WithCancel(context.Background())
	s.abort = sync.OnceFunc(func() { close(s.aborted); cancel(); s.close(); _ = c.Close() })
	if !l.add(s) {
		s.abort()
	}
	go s.pace(ctx)
	go s.deliver()
	return s
}

// Write takes b to be sent.
func (c *Conn) Write(b []byte) (int, error) {
	var timeout <-chan time.Time
	if d := c.writeDeadline.Load(); d != nil && !d.IsZero() {
		timer := time.NewTimer(time.Until(*d))
		defer timer.Stop()
		timeout = timer.C
	}
	n := 0
	for n < len(b) {
		part := append([]byte(nil), b[n:min(len(b), n+segment)]...)
		select {
		case <-c.closed:
			return n, net.ErrClosed
		default:
		}
		select {
		case c.waiting <- part:
			n += len(part)
		case <-c.closed:
			return n, net.ErrClosed
		case <-timeout:
			return n, os.ErrDeadlineExceeded
		}
	}
	return n, nil
}

// pace takes the connection's turns at the link's rate.
func (c *Conn) pace(ctx context.Context) {
	defer close(c.flying)
	for {
		part, ok := c.next()
		if !ok {
			return
		}
		due := time.Now()
		if !c.local() {
			if c.link.limiter.WaitN(ctx, len(part)) != nil {
				return
			}
			due = time.Now().Add(c.link.shape.Latency)
			c.link.sent.Add(int64(len(part)))
		}
		select {
		case c.flying <- flying{part, due}:
		case <-c.aborted:
			return
		}
	}
}

// next returns what is to be sent next; false at the end.
func (c *Conn) next() ([]byte, bool) {
	select {
	case part := <-c.waiting: // also of a closed connection
		return part, true
	default:
	}
	select {
	case part := <-c.waiting:
		return part, true
	case <-c.closed:
		return nil, false
	}
}

// deliver hands segments to the kernel when they are due, and ends the
// connection after the last.
func (c *Conn) deliver() {
	defer c.link.forget(c)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for f := range c.flying {
		if wait := time.Until(f.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-c.aborted:
				return
			}
		}
		if !c.passes(c.aborted) {
			return
		}
		if _, err := c.Conn.Write(f.data); err != nil {
			c.abort()
			return
		}
	}
	c.passes(c.aborted)
	c.abort()
}

// passes waits until the cable is in. False: until has ended the waiting.
func (c *Conn) passes(until <-chan struct{}) bool {
	if c.local() {
		return true
	}
	select {
	case <-c.link.cable():
		return true
	case <-until:
		return false
	}
}

// Read reads what has come in; while the cable is out nothing comes.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.passes(c.closed) {
		return 0, net.ErrClosed
	}
	if !c.local() {
		c.link.received.Add(int64(n))
	}
	return n, err
}

// Close ends the connection once all that was written has left; it does not
// wait for that.
func (c *Conn) Close() error {
	c.close()
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	time.AfterFunc(drainWithin, c.overdue)
	return nil
}

// overdue ends a connection whose other side takes nothing, unless the cable is
// out: then the other side hears nothing of it.
func (c *Conn) overdue() {
	if isClosed(c.link.cable()) {
		c.abort()
	}
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if isClosed(c.closed) {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn: it counts for writes that begin later.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.Store(&t)
	return nil
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
