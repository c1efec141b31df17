package host

import (
	"net"
	"sync"
)

// gather is a connection under TLS that sends the records of one large Write
// together. By itself TLS gives each record of 16 KiB to the kernel alone; over
// TCP that is a wake of the reader for each, which costs both ends more CPU than
// the bytes do.
type gather struct {
	net.Conn

	mu sync.Mutex
	// mu guards the following, and the order of what is sent.
	writes int     // large Writes that run
	held   *[]byte // records not sent yet; nil between large Writes
	err    error   // of a send whose Write had returned
}

// heldSize is what is sent at once: a frame of the muxer (64 KiB) in its records,
// of which each adds 22 bytes; a new connection's are of 1.2 KiB.
const heldSize = 64<<10 + 4<<10

var heldPool = sync.Pool{New: func() any { b := make([]byte, 0, heldSize); return &b }}

// Write implements net.Conn. While large runs it may return before the bytes are
// sent.
func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	if g.writes == 0 {
		return g.Conn.Write(p)
	}
	if len(*g.held)+len(p) > heldSize {
		if err := g.send(); err != nil {
			return 0, err
		}
	}
	*g.held = append(*g.held, p...)
	return len(p), nil
}

// large runs write, which writes to g, and sends what it wrote.
func (g *gather) large(write func() (int, error)) (n int, err error) {
	g.mu.Lock()
	if g.writes++; g.held == nil {
		g.held = heldPool.Get().(*[]byte)
	}
	g.mu.Unlock()
	n, err = write()
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.send(); err == nil && e != nil {
		n, err = 0, e
	}
	if g.writes--; g.writes == 0 {
		heldPool.Put(g.held)
		g.held = nil
	}
	return n, err
}

// send sends what is held; mu is held.
func (g *gather) send() error {
	if g.err == nil && len(*g.held) > 0 {
		_, g.err = g.Conn.Write(*g.held)
	}
	*g.held = (*g.held)[:0]
	return g.err
}
