package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	quic "github.com/quic-go/quic-go"

	"github.com/p2pnode/p2pnode/internal/p2ptest"
)

var muxers = []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}

// shake runs a handshake over a pipe; want is whom the client dials.
func shake(t *testing.T, client, server sec.SecureTransport, want peer.ID) (a, b sec.SecureConn, err error) {
	t.Helper()
	left, right := net.Pipe()
	t.Cleanup(func() { _, _ = left.Close(), right.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type result struct {
		conn sec.SecureConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, err := server.SecureInbound(ctx, right, "")
		if err == nil {
			_, err = c.Write([]byte{1})
		}
		done <- result{c, err}
	}()
	a, err = client.SecureOutbound(ctx, left, want)
	if err == nil {
		_, err = a.Read(make([]byte, 1)) // a refusal by the server comes here
	}
	r := <-done
	return a, r.conn, errors.Join(err, r.err)
}

// A machine without a clock of its own starts in 2000, as time does in a bubble of
// synctest; the other's certificate is of today.
func TestTLSClocksApart(t *testing.T) {
	key, today := p2ptest.Key(t)
	public := key.GetPublic()
	now, err := newTLS(libp2ptls.ID, key, muxers)
	if err != nil {
		t.Fatal(err)
	}
	dated, err := libp2ptls.New(libp2ptls.ID, key, muxers)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		key, id := p2ptest.Key(t)
		then, err := newTLS(libp2ptls.ID, key, muxers)
		if err != nil {
			t.Fatal(err)
		}
		a, b, err := shake(t, then, now, today)
		if err != nil {
			t.Fatalf("dialled by a machine whose clock is years behind: %v", err)
		}
		if a.LocalPeer() != id || a.RemotePeer() != today || b.LocalPeer() != today || b.RemotePeer() != id || !a.RemotePublicKey().Equals(public) {
			t.Errorf("%s sees %s, %s sees %s", a.LocalPeer(), a.RemotePeer(), b.LocalPeer(), b.RemotePeer())
		}
		if s := a.ConnState(); s.StreamMultiplexer != yamux.ID || !s.UsedEarlyMuxerNegotiation || s != b.ConnState() {
			t.Errorf("states %+v and %+v", s, b.ConnState())
		}
		if _, _, err := shake(t, now, then, id); err != nil {
			t.Errorf("dialled by the other: %v", err)
		}
		if _, _, err := shake(t, then, dated, today); err == nil {
			t.Error("a certificate of today is good in 2000: the clocks are not apart")
		}
	})
}

// TestTLSRefuses: who is dialled is who answers; and other nodes of libp2p are
// understood, those too that do not choose the muxer in the handshake.
func TestTLSRefuses(t *testing.T) {
	keyA, _ := p2ptest.Key(t)
	keyB, b := p2ptest.Key(t)
	_, other := p2ptest.Key(t)
	ours, err := newTLS(libp2ptls.ID, keyA, muxers)
	if err != nil {
		t.Fatal(err)
	}
	for name, muxers := range map[string][]upgrader.StreamMuxer{"theirs": muxers, "theirs without a muxer": nil} {
		theirs, err := libp2ptls.New(libp2ptls.ID, keyB, muxers)
		if err != nil {
			t.Fatal(err)
		}
		want := protocol.ID("")
		if len(muxers) > 0 {
			want = yamux.ID
		}
		for dir, try := range map[string]func(peer.ID) (sec.SecureConn, error){
			"dials": func(p peer.ID) (sec.SecureConn, error) { c, _, err := shake(t, ours, theirs, p); return c, err },
			"is dialled by": func(peer.ID) (sec.SecureConn, error) {
				id, err := peer.IDFromPrivateKey(keyA)
				if err != nil {
					t.Fatal(err)
				}
				_, c, err := shake(t, theirs, ours, id)
				return c, err
			},
		} {
			c, err := try(b)
			if err != nil || c.RemotePeer() != b || c.ConnState().StreamMultiplexer != want {
				t.Errorf("%s %s: %v", dir, name, err)
			}
		}
		if _, _, err := shake(t, ours, theirs, other); err == nil {
			t.Errorf("%s: another peer than the dialled one is taken", name)
		}
	}
}

// Both transports of a host show the certificate withoutDates.
func TestTLSOfAHost(t *testing.T) {
	key, id := p2ptest.Key(t)
	listen := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0"), multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}
	h, err := New(Config{Key: key, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	check := func(name string, c tls.ConnectionState) {
		if len(c.PeerCertificates) != 1 || !everGood(c.PeerCertificates[0]) {
			t.Errorf("%s: %d certificates, the first from %v", name, len(c.PeerCertificates), c.PeerCertificates[0].NotBefore)
		}
	}
	for _, a := range h.Addrs() {
		secured := make(chan sec.SecureConn, 1)
		from, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(),
			libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(libp2pquic.NewTransport),
			libp2p.Security(libp2ptls.ID, func(id protocol.ID, key crypto.PrivKey, m []upgrader.StreamMuxer) (*recording, error) {
				t, err := newTLS(id, key, m)
				return &recording{t, secured}, err
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = from.Close() })
		if err := from.Connect(t.Context(), peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{a}}); err != nil {
			t.Fatal(err)
		}
		var over *quic.Conn
		if c := from.Network().ConnsToPeer(id)[0]; c.As(&over) {
			check("QUIC", over.ConnectionState().TLS)
		} else {
			check("TCP", (<-secured).(*tlsConn).ConnectionState())
		}
	}
}

// recording hands on the connections that it secures.
type recording struct {
	*tlsTransport
	secured chan<- sec.SecureConn
}

func (r *recording) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	s, err := r.tlsTransport.SecureOutbound(ctx, c, p)
	if err == nil {
		r.secured <- s
	}
	return s, err
}

func everGood(c *x509.Certificate) bool {
	return !c.NotBefore.After(time.Unix(0, 0)) && c.NotAfter.Year() == 9999
}
