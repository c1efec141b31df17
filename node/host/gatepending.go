package host

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// strangerStreams is how many streams without a protocol a peer may have open
	// before it is admitted: identify, its push, ping and membership open at once.
	strangerStreams = 8
	// memberStreams is how many of them any member may have, whatever the others
	// do. Above that it may have as many as are left over.
	memberStreams = 8
)

// maxPending returns how many connections may be without a hello on a host that
// is made for a number of peers.
func maxPending(maxPeers int) int { return max(64, maxPeers/4) }

// unsaid counts the inbound streams that have not named their protocol yet. They
// are in nobody's account but libp2p's transient one, and whoever fills that
// keeps all others out for the 10 s that naming it may take.
type unsaid struct {
	// most is how many those of all members may be. Strangers are bounded by
	// their number, that of pending connections, and come on top.
	most int

	mu sync.Mutex
	// mu guards the following.
	members int
	byPeer  map[peer.ID]int
}

// enter counts a stream in; leave, to be called once, counts it out. A member may
// hold as many as there are free: k of them that open as many as they can leave
// one part in k+1 to the others.
func (u *unsaid) enter(id peer.ID, member bool) (leave func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	limit, one := strangerStreams, 0
	if member {
		limit, one = max(memberStreams, u.most-u.members), 1
	}
	if u.byPeer[id] >= limit {
		return nil, fmt.Errorf("%w: peer %s has %d streams without a protocol", network.ErrResourceLimitExceeded, id, u.byPeer[id])
	}
	u.byPeer[id]++
	u.members += one
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.members -= one
		if u.byPeer[id]--; u.byPeer[id] == 0 {
			delete(u.byPeer, id)
		}
	}), nil
}

// source returns the network that a connection comes from, as wide as one user
// may have it: an IPv4 address, the /56 of an IPv6 one. Relayed connections come
// from their relay. Connections without an IP address are from one source.
func source(c network.Conn) netip.Prefix {
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	bits := 32
	if addr.Is6() {
		bits = 56
	}
	prefix, _ := addr.Prefix(bits)
	return prefix
}

// crowded returns the connection that gives its place to a new one: the oldest
// inbound one without a hello of the source with most of them. Nil where all are
// this host's own. The caller holds mu.
func (g *Gate) crowded() network.Conn {
	type group struct {
		n      int
		oldest network.Conn
		since  time.Time
	}
	groups := make(map[netip.Prefix]group)
	var most group
	for c, a := range g.conns {
		if a.in || c.Stat().Direction == network.DirOutbound {
			continue
		}
		from := source(c)
		s := groups[from]
		s.n++
		if s.oldest == nil || a.since.Before(s.since) {
			s.oldest, s.since = c, a.since
		}
		groups[from] = s
	}
	for _, s := range groups {
		if s.n > most.n || s.n == most.n && s.since.Before(most.since) {
			most = s
		}
	}
	return most.oldest
}
