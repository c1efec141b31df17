package link

import (
	"context"
	"net"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// Option has a host send its TCP connections through the link. It takes the
// place of all security transports that were chosen before: they are TLS alone
// in the product.
func (l *Link) Option() libp2p.Option {
	return func(cfg *libp2p.Config) error {
		cfg.SecurityTransports = nil
		return libp2p.Security(libp2ptls.ID, l.newTLS)(cfg)
	}
}

func (l *Link) newTLS(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*shapedTLS, error) {
	t, err := libp2ptls.New(id, key, muxers)
	if err != nil {
		return nil, err
	}
	return &shapedTLS{t, l}, nil
}

// shapedTLS is libp2p's TLS over a link.
type shapedTLS struct {
	*libp2ptls.Transport
	link *Link
}

// SecureInbound implements sec.SecureTransport.
func (t *shapedTLS) SecureInbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.Transport.SecureInbound(ctx, t.link.Conn(c, false), p)
}

// SecureOutbound implements sec.SecureTransport.
func (t *shapedTLS) SecureOutbound(ctx context.Context, c net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.Transport.SecureOutbound(ctx, t.link.Conn(c, true), p)
}
