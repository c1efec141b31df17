//go:build linux

package netlab_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/p2pnode/p2pnode/internal/netlab"
)

// TestKinds: each kind of NAT maps and filters as its name says, seen from two
// public hosts.
func TestKinds(t *testing.T) {
	lab := netlab.Start(t)
	one, two := lab.Host("one"), lab.Host("two")
	listeners := []net.Listener{listenOn(t, one), listenOn(t, two)}
	for _, kind := range netlab.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			at := lab.Place("host-"+string(kind), kind)
			inside := listenOn(t, at)
			var seen []string
			for i, n := range []*netlab.Namespace{one, two} {
				host, port := seenFrom(t, at, net.JoinHostPort(n.IP, "65000"), listeners[i])
				if (host == at.IP) != (kind == netlab.Public) {
					t.Errorf("seen as %s, its own address is %s", host, at.IP)
				}
				seen = append(seen, port)
			}
			if (seen[0] != "4000" || seen[1] != "4000") != (kind == netlab.Symmetric) {
				t.Errorf("port 4000 is seen as %v", seen)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c, err := one.Dial(ctx, "tcp", net.JoinHostPort(at.Outside, "65000"))
			if err == nil {
				c.Close()
			}
			if open := kind == netlab.Public || kind == netlab.FullCone; (err == nil) != open {
				t.Errorf("dialled from outside: %v", err)
			}
			inside.Close()
		})
	}
}

func listenOn(t *testing.T, n *netlab.Namespace) net.Listener {
	t.Helper()
	l, err := n.Listen(":65000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// seenFrom dials a listener from port 4000 of a host and returns the address
// that the listener sees.
func seenFrom(t *testing.T, from *netlab.Namespace, addr string, l net.Listener) (host, port string) {
	t.Helper()
	var c net.Conn
	if err := from.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 4000}, Timeout: 10 * time.Second}
		c, err = d.DialContext(t.Context(), "tcp", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	host, port, err = net.SplitHostPort(in.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// TestUDPBlocked: the box of that kind passes no UDP, others do.
func TestUDPBlocked(t *testing.T) {
	lab := netlab.Start(t)
	server := lab.Host("server")
	var in net.PacketConn
	if err := server.Do(func() (err error) {
		in, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", ":9")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, kind := range []netlab.Kind{netlab.PortPreserving, netlab.UDPBlocked} {
		c, err := lab.Place("host-"+string(kind), kind).Dial(t.Context(), "udp", server.IP+":9")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make(chan bool, 1)
		go func() {
			_ = in.SetReadDeadline(time.Now().Add(2 * time.Second))
			n, _, err := in.ReadFrom(make([]byte, 10))
			got <- err == nil && n > 0
		}()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if passed := <-got; passed != (kind == netlab.PortPreserving) {
			t.Errorf("%s: a packet came through: %v", kind, passed)
		}
	}
}

// TestLinks: an uplink keeps to its rate, counts what it carries, and is cut and
// healed.
func TestLinks(t *testing.T) {
	lab := netlab.Start(t)
	server := lab.Host("server")
	l := listenOn(t, server)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(make([]byte, 2<<20))
			_ = c.Close()
		}
	}()
	site := lab.NAT("site", netlab.PortPreserving)
	at := site.Host("host")
	site.Limit("20mbit")
	fetch := func(within time.Duration) (int64, time.Duration) {
		c, err := at.Dial(t.Context(), "tcp", server.IP+":65000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(within))
		began := time.Now()
		n, _ := io.Copy(io.Discard, c)
		return n, time.Since(began)
	}
	before := site.Received()
	n, took := fetch(time.Minute)
	if n != 2<<20 || took < 600*time.Millisecond { // 16.8 Mbit, less the burst of 2
		t.Errorf("%d bytes in %v over 20 Mbit/s", n, took)
	}
	if down := site.Received() - before; down < n || down > n*11/10 {
		t.Errorf("%d bytes counted of %d", down, n)
	}
	site.Cut()
	site.Heal()
	if n, _ := fetch(time.Minute); n != 2<<20 {
		t.Errorf("%d bytes after the cut", n)
	}
}
