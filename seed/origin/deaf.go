package origin

import (
	"context"
	"net"
	"time"
)

// dialFunc is that of http.Transport.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// keepAlive finds out within 15 s that the other end of a connection is gone, on
// which a body is awaited.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 2}

// hearing returns dial with connections that fail once what was sent is not
// acknowledged for so long (RFC 5482): by that a network which carries nothing any
// more, such as a cut uplink, differs from an origin that is slow to answer, whose
// machine acknowledges. Where the system cannot do it, the origin's answer is
// waited for.
func hearing(dial dialFunc, limit time.Duration) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok {
			setUserTimeout(tcp, limit)
		}
		return c, err
	}
}
