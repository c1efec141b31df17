package host

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

const (
	// aliveWithin is how long a connection in doubt has to answer, four times as
	// long through a relay: a relay at its limit holds bytes back. replacedWithin is
	// what it has where the peer has come by another one meanwhile.
	aliveWithin    = 2 * time.Second
	replacedWithin = time.Second
	relayedTimes   = 4
	// maxPings bounds the connections that are asked at once; others wait.
	maxPings = 256
)

// alive closes connections whose other end is gone without a word: it moved, it
// slept, or this host did. Without it the next stream would be opened on them for
// as long as the transport takes to find out, up to 40 s.
type alive struct {
	log  *slog.Logger
	free chan struct{}
	stop chan struct{} // closed at the end
	work sync.WaitGroup

	mu sync.Mutex
	// mu guards the following.
	asked  map[network.Conn]bool
	from   map[network.Conn]netip.Addr // the address of this machine that each was made from
	closed bool
}

func newAlive(log *slog.Logger) *alive {
	return &alive{
		log: log, free: make(chan struct{}, maxPings), stop: make(chan struct{}),
		asked: map[network.Conn]bool{}, from: map[network.Conn]netip.Addr{},
	}
}

// end lets no more checks begin; wait waits for those that run, which end when the
// host's connections do. It is called once.
func (a *alive) end() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	close(a.stop)
}

func (a *alive) wait() { a.work.Wait() }

// doubt has a connection closed unless it answers within limit. It does not
// block.
func (a *alive) doubt(c network.Conn, limit time.Duration) {
	if c.Stat().Limited {
		limit *= relayedTimes
	}
	a.spawn(c, func() {
		select {
		case a.free <- struct{}{}:
			defer func() { <-a.free }()
		case <-a.stop:
			return
		}
		if err := a.ask(c, limit); err != nil && !c.IsClosed() {
			a.bury(c, err.Error())
		}
	})
}

// spawn runs what is to be done about a connection, one at a time for each.
func (a *alive) spawn(c network.Conn, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.asked[c] {
		return
	}
	a.asked[c] = true
	a.work.Go(func() {
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			delete(a.asked, c)
		}()
		f()
	})
}

// bury closes a dead connection. It may block for some seconds; the connection is
// out of use at once.
func (a *alive) bury(c network.Conn, why string) {
	a.log.Debug("closes a dead connection", "peer", c.RemotePeer(), "at", c.RemoteMultiaddr(), "why", why)
	_ = c.Close()
}

// ask pings the peer over a connection. An error says that nothing came back in
// time; an answer of any kind shows that it is alive.
func (a *alive) ask(c network.Conn, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(context.Background(), ping.ServiceName), limit)
	defer cancel()
	st, err := c.NewStream(ctx)
	if err != nil {
		return nil // all its streams are in use, or it is closed: that says nothing
	}
	end := time.Now().Add(limit)
	_ = st.SetDeadline(end)
	if err = echo(st); err == nil || time.Now().Before(end) {
		_ = st.Reset()
		return nil
	}
	// Not reset: that may wait for a connection that takes no more bytes.
	return fmt.Errorf("no answer in %v: %w", limit, err)
}

// echo has the peer send back what it is sent (libp2p's ping).
func echo(st network.Stream) error {
	if err := st.SetProtocol(ping.ID); err != nil {
		return err
	}
	if err := st.Scope().SetService(ping.ServiceName); err != nil {
		return err
	}
	said := make([]byte, ping.PingSize)
	if _, err := rand.Read(said); err != nil {
		return err
	}
	lazy := multistream.NewMSSelect(st, ping.ID) // its header goes out with the first bytes
	if _, err := lazy.Write(said); err != nil {
		return err
	}
	_, err := io.ReadFull(lazy, said)
	return err
}

// Connected implements network.Notifiee: a peer that comes anew may have left its
// older connections behind.
func (a *alive) Connected(n network.Network, c network.Conn) {
	a.note(c)
	for _, o := range n.ConnsToPeer(c.RemotePeer()) {
		if o != c && !isCircuit(o.RemoteMultiaddr()) {
			a.doubt(o, replacedWithin)
		}
	}
}

// note notes from which address of this machine a connection was made. QUIC's
// sockets do not say, and the connections that this host dialled outlive it.
func (a *alive) note(c network.Conn) {
	if isCircuit(c.RemoteMultiaddr()) {
		return
	}
	local, _, ok := addrPort(c.LocalMultiaddr())
	to, _, okTo := addrPort(c.RemoteMultiaddr())
	if !ok || !okTo {
		return
	}
	from := local.Addr()
	if from.IsUnspecified() {
		from = sourceTo(to)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if from.IsValid() && !c.IsClosed() {
		a.from[c] = from
	}
}

// source returns the address of this machine that a connection was made from; the
// zero value of one through a relay, or where that is not known.
func (a *alive) source(c network.Conn) netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.from[c]
}

// Disconnected implements network.Notifiee.
func (a *alive) Disconnected(_ network.Network, c network.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.from, c)
}

// Listen implements network.Notifiee.
func (a *alive) Listen(network.Network, multiaddr.Multiaddr) {}

// ListenClose implements network.Notifiee.
func (a *alive) ListenClose(network.Network, multiaddr.Multiaddr) {}

// Doubt says that a peer was silent where it was expected to speak. Of its
// connections those are closed, so that the next stream dials anew, that do not
// answer a ping within 2 s (8 s through a relay). It does not block, and may be
// called as often as there is a reason to.
func (h *Host) Doubt(id peer.ID) {
	for _, c := range h.Network().ConnsToPeer(id) {
		h.alive.doubt(c, aliveWithin)
	}
}
