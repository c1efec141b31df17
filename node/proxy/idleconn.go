package proxy

import (
	"errors"
	"net"
	"os"
	"time"
)

// idleConn is a client's connection that was upgraded to another protocol. Its
// reads fail when nothing has moved in either direction for the idle time, or half
// as long again, and its writes when the client takes nothing for twice that.
type idleConn struct {
	net.Conn
	pump
}

func newIdleConn(conn net.Conn, idle time.Duration) *idleConn {
	c := &idleConn{Conn: conn, pump: pump{idle: idle}}
	c.touch()
	return c
}

// Read waits as long as the connection is in use.
func (c *idleConn) Read(p []byte) (int, error) {
	for {
		now := time.Now()
		if now.Sub(time.Unix(0, c.last.Load())) >= c.idle {
			return 0, errIdle
		}
		if err := c.SetReadDeadline(now.Add(c.idle / 2)); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if n > 0 {
			c.touch()
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// Write passes on what the origin sends.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(2 * c.idle)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.touch()
	}
	return n, err
}

// CloseWrite ends one direction, where the connection can.
func (c *idleConn) CloseWrite() error {
	closeWrite(c.Conn)
	return nil
}
