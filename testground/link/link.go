package link

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// segment is what a connection may send in its turn, in bytes.
const segment = 16 << 10

// Shape is how a link treats what leaves through it. The zero value does
// nothing.
type Shape struct {
	// Rate in bits a second; 0 is no limit.
	Rate int64
	// Latency of each byte on its way out; a round trip between two such links
	// takes twice that.
	Latency time.Duration
}

// Link is the uplink of all hosts of a process. Its methods are safe for
// concurrent use.
type Link struct {
	shape   Shape
	limiter *rate.Limiter

	sent, received atomic.Int64

	mu sync.Mutex
	// mu guards the following. own are the addresses of both ends of
	// connections and of listeners of this process; open is a closed channel
	// while the cable is in.
	own    map[string]bool
	conns  map[*Conn]bool
	open   chan struct{}
	closed bool
}

// New returns a link with its cable in. Close it at the end.
func New(shape Shape) *Link {
	l := &Link{
		shape: shape, limiter: rate.NewLimiter(rate.Inf, segment),
		own: make(map[string]bool), conns: make(map[*Conn]bool), open: make(chan struct{}),
	}
	close(l.open)
	if shape.Rate > 0 {
		l.limiter.SetLimit(rate.Limit(float64(shape.Rate) / 8))
	}
	return l
}

// Shape returns what New was given.
func (l *Link) Shape() Shape { return l.shape }

// Own says that a host of this process listens on an address, as host:port.
func (l *Link) Own(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own[addr] = true
}

// Crossed returns the bytes that left and came in through the link; those
// between two hosts on it do not count.
func (l *Link) Crossed() (sent, received int64) { return l.sent.Load(), l.received.Load() }

// Cut takes the cable out, for all connections present and to come. Their other
// ends hear nothing, not even of their being closed.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if isClosed(l.open) {
		l.open = make(chan struct{})
	}
}

// Restore puts the cable back in. Connections that were closed meanwhile end
// now.
func (l *Link) Restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !isClosed(l.open) {
		close(l.open)
	}
}

// Reset ends every connection of the link at once, as the kernel does for a
// process that is killed: nothing that waits is sent any more.
func (l *Link) Reset() {
	l.mu.Lock()
	conns := make([]*Conn, 0, len(l.conns))
	for c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.abort()
	}
}

// Close ends the link and its connections, also those to come.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.Reset()
}

// cable is closed while the cable is in.
func (l *Link) cable() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// add takes a new connection; false where the link has been closed.
func (l *Link) add(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
	if c.dialled {
		l.own[c.Conn.LocalAddr().String()] = true
	}
	return !l.closed
}

// isOwn reports whether an address is one of this process.
func (l *Link) isOwn(a net.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own[a.String()]
}

// forget drops an ended connection.
func (l *Link) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if c.dialled {
		delete(l.own, c.Conn.LocalAddr().String())
	}
}

// Listener returns a listener whose connections send through the link.
func (l *Link) Listener(of net.Listener) net.Listener { return listener{of, l} }

type listener struct {
	net.Listener
	link *Link
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.link.Conn(c, false), nil
}
