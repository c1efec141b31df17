package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
	"github.com/p2pnode/p2pnode/node/host"
)

const (
	tcpAny  = "/ip4/127.0.0.1/tcp/0"
	quicAny = "/ip4/127.0.0.1/udp/0/quic-v1"
	patient = 20 * time.Second // longer than any wait that succeeds
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func maddr(t testing.TB, s string) multiaddr.Multiaddr {
	t.Helper()
	a, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newHost makes a host that closes with the test. What cfg leaves out is a
// fresh key, any TCP port of loopback, and no log.
func newHost(t testing.TB, cfg host.Config) *host.Host {
	t.Helper()
	if cfg.Key == nil {
		cfg.Key = newKey(t)
	}
	if cfg.Listen == nil {
		cfg.Listen = []multiaddr.Multiaddr{maddr(t, tcpAny)}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// run runs h until the returned function is called, which waits for its end.
func run(t testing.TB, h *host.Host, wanted func() []peer.AddrInfo) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, wanted) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func info(h *host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

func connect(t testing.TB, from, to *host.Host) {
	t.Helper()
	if err := from.Connect(t.Context(), info(to)); err != nil {
		t.Fatalf("connect: %v", err)
	}
}

func connected(a, b *host.Host) bool {
	return a.Network().Connectedness(b.ID()) == network.Connected
}

func TestTransports(t *testing.T) {
	for _, c := range []struct {
		name, transport string
		security        string
		listen          []string
	}{
		{"tcp", "tcp", "/tls/1.0.0", []string{tcpAny}},
		{"quic", "quic-v1", "", []string{quicAny}},
		{"tcp before quic on loopback", "tcp", "/tls/1.0.0", []string{quicAny, tcpAny}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var listen []multiaddr.Multiaddr
			for _, a := range c.listen {
				listen = append(listen, maddr(t, a))
			}
			a, b := newHost(t, host.Config{}), newHost(t, host.Config{Listen: listen, Version: "1.2.3"})
			b.SetStreamHandler("/test/1", func(s network.Stream) {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			})
			connect(t, a, b)
			s, err := a.NewStream(t.Context(), b.ID(), "/test/1")
			if err != nil {
				t.Fatal(err)
			}
			state := s.Conn().ConnState()
			if state.Transport != c.transport || string(state.Security) != c.security {
				t.Errorf("connected by %q with security %q", state.Transport, state.Security)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
				t.Errorf("read %q, error %v", got, err)
			}
			p2ptest.Eventually(t, patient, func() bool {
				v, _ := a.Peerstore().Get(b.ID(), "AgentVersion")
				return v == "p2pnode/1.2.3"
			}, "identify tells the version")
		})
	}
}

// TestThousandStreams holds as many streams open at once as the transport
// carries on a connection before any is answered: all of them on TCP, 256 on
// QUIC, where libp2p makes the others wait.
func TestThousandStreams(t *testing.T) {
	const n = 1000
	for _, c := range []struct {
		name, listen string
		together     int
	}{
		{"tcp", tcpAny, n},
		{"quic", quicAny, 250}, // identify and others take a few
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newHost(t, host.Config{}), newHost(t, host.Config{Listen: []multiaddr.Multiaddr{maddr(t, c.listen)}})
			var open sync.WaitGroup
			open.Add(c.together)
			var mu sync.Mutex
			here := 0
			b.SetStreamHandler("/test/1", func(s network.Stream) {
				defer s.Close()
				ask := make([]byte, 64)
				if _, err := io.ReadFull(s, ask); err != nil {
					t.Errorf("read the request: %v", err)
				}
				mu.Lock()
				if here++; here <= c.together {
					open.Done()
				}
				mu.Unlock()
				open.Wait()
				_, _ = s.Write(append(ask, "answered"...))
			})
			connect(t, a, b)
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					if err := ask(t.Context(), a, b.ID(), fmt.Sprintf("%064d", i)); err != nil {
						t.Errorf("stream %d: %v", i, err)
					}
				})
			}
			all.Wait()
		})
	}
}

func ask(ctx context.Context, h *host.Host, to peer.ID, request string) error {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	s, err := h.NewStream(ctx, to, "/test/1")
	if err != nil {
		return err
	}
	defer s.Close()
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	if _, err := io.WriteString(s, request); err != nil {
		return errors.Join(err, s.Reset())
	}
	got, err := io.ReadAll(s)
	if err == nil && string(got) != request+"answered" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

func TestPortInUse(t *testing.T) {
	h := newHost(t, host.Config{Listen: []multiaddr.Multiaddr{maddr(t, tcpAny), maddr(t, quicAny)}})
	plain, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	taken := append(h.Addrs(), maddr(t, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", plain.Addr().(*net.TCPAddr).Port)))
	if len(taken) != 3 {
		t.Fatalf("addresses %v", taken)
	}
	for _, a := range taken {
		// One free address must not make up for the taken one.
		_, err := host.New(host.Config{Key: newKey(t), Listen: []multiaddr.Multiaddr{maddr(t, tcpAny), a}})
		if err == nil {
			t.Fatalf("a second host listens on %s", a)
		}
		if msg := err.Error(); !strings.Contains(msg, "listen on "+a.String()+": another process uses this port") || strings.Contains(msg, "\n") {
			t.Errorf("error %q", msg)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		cfg        host.Config
	}{
		{"no key", "key is missing", host.Config{}},
		{"max peers", "max peers is -1", host.Config{Key: newKey(t), MaxPeers: -1}},
		{"all interfaces", "/ip4/0.0.0.0/tcp/0: only loopback", host.Config{Key: newKey(t), Listen: []multiaddr.Multiaddr{maddr(t, "/ip4/0.0.0.0/tcp/0")}}},
		{"private", "/ip4/10.0.0.1/udp/1/quic-v1: only loopback", host.Config{Key: newKey(t), Listen: []multiaddr.Multiaddr{maddr(t, "/ip4/10.0.0.1/udp/1/quic-v1")}}},
		{"name", "/dns4/localhost/tcp/1: only loopback", host.Config{Key: newKey(t), Listen: []multiaddr.Multiaddr{maddr(t, "/dns4/localhost/tcp/1")}}},
		{"websocket", "/ip4/127.0.0.1/tcp/0/ws: want TCP or QUIC", host.Config{Key: newKey(t), Listen: []multiaddr.Multiaddr{maddr(t, "/ip4/127.0.0.1/tcp/0/ws")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := host.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	lab := newHost(t, host.Config{AllowPublic: true, Listen: []multiaddr.Multiaddr{maddr(t, "/ip4/0.0.0.0/tcp/0")}})
	if len(lab.Addrs()) == 0 {
		t.Error("AllowPublic does not listen on all interfaces")
	}
}
