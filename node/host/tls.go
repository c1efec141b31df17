package host

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// withoutDates has the certificate of an Identity be good by every clock. libp2p's
// own begin an hour before they are made, so that machines whose clocks differ by
// more cannot connect; and nothing rests on these dates: the certificate is signed
// by itself, made anew at each start, and what it says is that the peer's key made
// it. What ends is the certificate of the swarm, which GateConfig has rules for.
func withoutDates(c *libp2ptls.IdentityConfig) {
	number := func() *big.Int {
		n, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64))
		if err != nil {
			panic(err) // crypto/rand promises that it does not fail
		}
		return n
	}
	c.CertTemplate = &x509.Certificate{
		SerialNumber: number(),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: none
		Subject:      pkix.Name{SerialNumber: number().String()},
	}
}

// tlsTransport is libp2p's TLS over TCP (libp2p/specs tls) with a certificate
// withoutDates, which libp2ptls.Transport has no option for. The handshake and the
// check of the peer's certificate are libp2ptls' own.
type tlsTransport struct {
	identity *libp2ptls.Identity
	id       protocol.ID
	self     peer.ID
	alpn     []string // the muxers in order, then that for none
}

// noMuxer is what a peer offers or chooses that does not negotiate the muxer in
// the handshake.
const noMuxer = "libp2p"

func newTLS(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*tlsTransport, error) {
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	t := &tlsTransport{id: id, self: self}
	if t.identity, err = libp2ptls.NewIdentity(key, withoutDates); err != nil {
		return nil, fmt.Errorf("make a TLS identity: %w", err)
	}
	for _, m := range muxers {
		t.alpn = append(t.alpn, string(m.ID))
	}
	t.alpn = append(t.alpn, noMuxer)
	return t, nil
}

// ID implements sec.SecureTransport.
func (t *tlsTransport) ID() protocol.ID { return t.id }

// SecureInbound implements sec.SecureTransport.
func (t *tlsTransport) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.handshake(ctx, c, p, tls.Server)
}

// SecureOutbound implements sec.SecureTransport. In TLS 1.3 a client is done before
// the server has looked at its certificate: a refusal comes with the first Read.
func (t *tlsTransport) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.handshake(ctx, c, p, tls.Client)
}

func (t *tlsTransport) handshake(ctx context.Context, c net.Conn, p peer.ID, role func(net.Conn, *tls.Config) *tls.Conn) (_ sec.SecureConn, err error) {
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	config, keys := t.identity.ConfigForPeer(p)
	config.NextProtos = t.alpn
	below := &gather{Conn: c}
	over := role(below, config)
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	var key crypto.PubKey
	select {
	case key = <-keys: // sent by the check of the certificate
	default:
	}
	if key == nil {
		return nil, errors.New("TLS handshake ended without the peer's key")
	}
	s := &tlsConn{Conn: over, below: below, self: t.self, key: key}
	if s.peer, err = peer.IDFromPublicKey(key); err != nil {
		return nil, err
	}
	if muxer := over.ConnectionState().NegotiatedProtocol; muxer != noMuxer && muxer != "" {
		s.state = network.ConnectionState{StreamMultiplexer: protocol.ID(muxer), UsedEarlyMuxerNegotiation: true}
	}
	return s, nil
}

// tlsConn is a connection after its handshake.
type tlsConn struct {
	*tls.Conn
	below      *gather
	self, peer peer.ID
	key        crypto.PubKey
	state      network.ConnectionState
}

// maxRecord is the most that one record of TLS holds.
const maxRecord = 16 << 10

// Write implements net.Conn.
func (c *tlsConn) Write(p []byte) (int, error) {
	if len(p) <= maxRecord {
		return c.Conn.Write(p)
	}
	return c.below.large(func() (int, error) { return c.Conn.Write(p) })
}

// LocalPeer implements sec.SecureConn.
func (c *tlsConn) LocalPeer() peer.ID { return c.self }

// RemotePeer implements sec.SecureConn.
func (c *tlsConn) RemotePeer() peer.ID { return c.peer }

// RemotePublicKey implements sec.SecureConn.
func (c *tlsConn) RemotePublicKey() crypto.PubKey { return c.key }

// ConnState implements sec.SecureConn.
func (c *tlsConn) ConnState() network.ConnectionState { return c.state }
