package host

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

// cable is a way to a host that can be cut: what goes in is lost then, and
// nobody is told.
type cable struct {
	at  []multiaddr.Multiaddr
	cut atomic.Bool
}

func newCable(t *testing.T, to *Host) *cable {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := tcpOf(t, to)
	c := &cable{at: addrsOf(t, "/ip4/127.0.0.1/tcp/"+port(t, l.Addr().String()))}
	var ends sync.WaitGroup
	var mu sync.Mutex
	var open []io.Closer
	keep := func(o io.Closer) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, o)
	}
	ends.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(t.Context(), "tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			keep(in)
			keep(out)
			ends.Go(func() { c.carry(in, out) })
			ends.Go(func() { c.carry(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, o := range open {
			o.Close()
		}
		mu.Unlock()
		ends.Wait()
	})
	return c
}

func (c *cable) carry(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if c.cut.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

func tcpOf(t *testing.T, h *Host) string {
	t.Helper()
	for _, a := range h.Network().ListenAddresses() {
		if p, err := a.ValueForProtocol(multiaddr.P_TCP); err == nil {
			return "127.0.0.1:" + p
		}
	}
	t.Fatal("the host has no TCP address")
	return ""
}

func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dialer makes a host of an identity that listens nowhere.
func dialer(t *testing.T, key crypto.PrivKey) *Host {
	t.Helper()
	h, err := New(Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func tcpHost(t *testing.T) *Host {
	t.Helper()
	return loopHost(t, "/ip4/127.0.0.1/tcp/0", nil)
}

// A connection on which nobody answers is closed, so that the next dial is a new
// one; one that lives is left, however often it is in doubt.
func TestDoubt(t *testing.T) {
	here, there := tcpHost(t), tcpHost(t)
	c := newCable(t, there)
	if err := here.Connect(t.Context(), peer.AddrInfo{ID: there.ID(), Addrs: c.at}); err != nil {
		t.Fatal(err)
	}
	conn := here.Network().ConnsToPeer(there.ID())[0]
	for range 20 {
		for range 5 {
			here.Doubt(there.ID())
		}
		here.checked(t)
	}
	if conn.IsClosed() {
		t.Fatal("a connection that answers was closed")
	}
	c.cut.Store(true)
	began := time.Now()
	here.Doubt(there.ID())
	p2ptest.Eventually(t, 30*time.Second, conn.IsClosed, "the dead connection is closed")
	if took := time.Since(began); took < aliveWithin*9/10 || took > 3*aliveWithin {
		t.Errorf("closed after %v, want %v", took, aliveWithin)
	}
	if err := here.Connect(t.Context(), infoOf(there)); err != nil {
		t.Errorf("dial anew: %v", err)
	}
}

// A peer that comes anew has left its older connection behind, which is closed if
// it is dead; one that lives stays.
func TestPeerComesAnew(t *testing.T) {
	for _, cut := range []bool{true, false} {
		here := tcpHost(t)
		c := newCable(t, here)
		// Two hosts with one identity: one that moves forgets its connections.
		key := key(t)
		first := dialer(t, key)
		if err := first.Connect(t.Context(), peer.AddrInfo{ID: here.ID(), Addrs: c.at}); err != nil {
			t.Fatal(err)
		}
		p2ptest.Eventually(t, 30*time.Second, func() bool { return len(here.Network().ConnsToPeer(first.ID())) == 1 }, "the first connection")
		old := here.Network().ConnsToPeer(first.ID())[0]
		c.cut.Store(cut)
		second := dialer(t, key)
		if err := second.Connect(t.Context(), infoOf(here)); err != nil {
			t.Fatal(err)
		}
		if cut {
			p2ptest.Eventually(t, 5*time.Second, old.IsClosed, "the dead connection is closed")
			continue
		}
		p2ptest.Eventually(t, 30*time.Second, func() bool { return len(here.Network().ConnsToPeer(first.ID())) == 2 }, "both connections")
		here.checked(t)
		if old.IsClosed() {
			t.Error("a connection that answers was closed")
		}
		if here.Network().Connectedness(first.ID()) != network.Connected {
			t.Error("the new connection is gone")
		}
	}
}
