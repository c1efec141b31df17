package membership

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/p2pnode/p2pnode/protocols/internal/frame"
	"github.com/p2pnode/p2pnode/protocols/membership/pb"
)

// Protocol is the protocol's ID.
const Protocol protocol.ID = "/p2pnode/membership/1.0.0"

const (
	// ServiceName is the resource manager's name of the service.
	ServiceName = "p2pnode.membership"
	// Timeout bounds one exchange.
	Timeout = 10 * time.Second
	// StreamsPerPeer bounds the streams of a peer in each direction.
	StreamsPerPeer = 4

	maxMessage   = 2 << 10
	streamMemory = 2 * maxMessage
)

// Checker decides on the certificates that peers show.
type Checker interface {
	// Chain returns this host's own chain, empty while it has none.
	Chain() Chain
	// Check decides on the chain that the peer at the other end shows: nil, or
	// an error of this package.
	Check(c network.Conn, chain Chain) error
	// Admit says how far the two ends of a connection are: the peer's chain is
	// good; and, where both is set, the peer has said that ours is.
	Admit(c network.Conn, chain Chain, both bool)
	// Confirm says that a peer that was admitted has said now that our chain is
	// good. It says nothing of his: he may have shown another one meanwhile.
	Confirm(c network.Conn)
}

// Issuer issues certificates. Its errors are those of this package; all others
// reach the peer as ErrMalformed. It may block on the disk.
type Issuer interface {
	// Join exchanges a token whose signatures and proof are good.
	Join(from peer.ID, t Token) (Chain, error)
	// Renew exchanges a chain, unchecked, for one of the same role.
	Renew(from peer.ID, chain Chain) (Chain, error)
}

// Hello shows the certificates of both ends of a connection to one another. The
// request goes out with the stream's header: one round trip. An error that
// wraps RefusedError is the peer's, another that of this package is what c says
// of the peer's chain.
func Hello(ctx context.Context, conn network.Conn, c Checker) error {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, ServiceName), Timeout)
	defer cancel()
	st, err := conn.NewStream(ctx)
	if err != nil {
		return fmt.Errorf("open membership stream: %w", err)
	}
	err = st.SetProtocol(Protocol)
	if err == nil {
		err = reserve(st)
	}
	if err == nil {
		err = frame.Interruptible(ctx, st, Timeout, func() error { return hello(st, conn, c) })
	}
	return finish(st, err)
}

func hello(st network.Stream, conn network.Conn, c Checker) error {
	// Lazy: the header goes out with the first bytes.
	lazy := multistream.NewMSSelect(st, Protocol)
	in, out := frame.NewReader(lazy, maxMessage), frame.NewWriter(lazy, maxMessage)
	own := chainToProto(c.Chain())
	if own == nil {
		return ErrUnable
	}
	if err := out.Write(&pb.Request{Of: &pb.Request_Hello{Hello: &pb.Hello{Chain: own}}}); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	chain, err := response(in)
	if err != nil {
		return err
	}
	checked := c.Check(conn, chain)
	if checked == nil {
		c.Admit(conn, chain, true) // the peer's chain is also its yes to ours
	}
	if err := out.Write(&pb.Confirm{Status: statusOf(checked)}); err != nil && checked == nil {
		return fmt.Errorf("confirm hello: %w", err)
	}
	return checked
}

func response(in *frame.Reader) (Chain, error) {
	var m pb.Response
	if err := in.Read(&m); err != nil {
		return nil, fmt.Errorf("read membership answer: %w", err)
	}
	if err := errorOf(m.GetStatus()); err != nil {
		return nil, err
	}
	return chainFromProto(m.GetChain()), nil
}

// Join exchanges a join secret at a supernode for a certificate of this host.
func Join(ctx context.Context, h host.Host, to peer.ID, s Secret) (Chain, error) {
	request, err := s.join(h.ID())
	if err != nil {
		return nil, err
	}
	return ask(ctx, h, to, s.Swarm, request)
}

// Renew exchanges a chain of this host at a supernode for one that ends later.
func Renew(ctx context.Context, h host.Host, to, swarm peer.ID, chain Chain) (Chain, error) {
	return ask(ctx, h, to, swarm, &pb.Request{Of: &pb.Request_Renew{Renew: &pb.Renew{Chain: chainToProto(chain)}}})
}

// ask sends a request and returns the certificate that comes back, which must
// be this host's.
func ask(ctx context.Context, h host.Host, to, swarm peer.ID, request *pb.Request) (chain Chain, err error) {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, ServiceName), Timeout)
	defer cancel()
	st, err := h.NewStream(ctx, to, Protocol)
	if err != nil {
		return nil, fmt.Errorf("open membership stream to %s: %w", to, err)
	}
	if err = reserve(st); err == nil {
		err = frame.Interruptible(ctx, st, Timeout, func() error {
			if err := frame.NewWriter(st, maxMessage).Write(request); err != nil {
				return fmt.Errorf("ask for a certificate: %w", err)
			}
			chain, err = response(frame.NewReader(st, maxMessage))
			return err
		})
	}
	if err := finish(st, err); err != nil {
		return nil, err
	}
	cert, _, err := chain.Open(swarm)
	if err == nil && cert.Peer != h.ID() {
		err = fmt.Errorf("%w: %s issued it for %s", ErrMalformed, to, cert.Peer)
	}
	return chain, err
}

// Handle answers one stream. issuer is nil for a host that issues nothing. It
// closes the stream, or resets it where the exchange broke off. The error is why
// the peer was refused, or how the exchange broke off.
func Handle(st network.Stream, c Checker, issuer Issuer, swarm peer.ID) error {
	err := reserve(st)
	if err == nil {
		err = st.SetDeadline(time.Now().Add(Timeout))
	}
	if err == nil {
		err = answer(st, c, issuer, swarm)
	}
	return finish(st, err)
}

func answer(st network.Stream, c Checker, issuer Issuer, swarm peer.ID) error {
	in, out := frame.NewReader(st, maxMessage), frame.NewWriter(st, maxMessage)
	var m pb.Request
	if err := in.Read(&m); err != nil {
		return fmt.Errorf("read membership request: %w", err)
	}
	if h := m.GetHello(); h != nil {
		return answerHello(st.Conn(), in, out, c, chainFromProto(h.GetChain()))
	}
	chain, refused := issue(&m, st.Conn().RemotePeer(), issuer, swarm)
	res := &pb.Response{Status: statusOf(refused)}
	if refused == nil {
		res.Chain = chainToProto(chain)
	}
	if err := out.Write(res); err != nil {
		return fmt.Errorf("answer membership request: %w", err)
	}
	return refused
}

func issue(m *pb.Request, from peer.ID, issuer Issuer, swarm peer.ID) (Chain, error) {
	join, renew := m.GetJoin(), m.GetRenew()
	switch {
	case join == nil && renew == nil:
		return nil, malformed("request of an unknown kind")
	case issuer == nil:
		return nil, ErrUnable
	case renew != nil:
		return issuer.Renew(from, chainFromProto(renew.GetChain()))
	}
	t, err := openJoin(join, swarm, from)
	if err != nil {
		return nil, err
	}
	return issuer.Join(from, t)
}

func answerHello(conn network.Conn, in *frame.Reader, out *frame.Writer, c Checker, theirs Chain) error {
	own := chainToProto(c.Chain())
	refused := c.Check(conn, theirs)
	if refused == nil && own == nil {
		refused = ErrUnable
	}
	if refused != nil {
		if err := out.Write(&pb.Response{Status: statusOf(refused)}); err != nil {
			return fmt.Errorf("answer hello: %w", err)
		}
		return refused
	}
	c.Admit(conn, theirs, false)
	if err := out.Write(&pb.Response{Status: pb.Status_OK, Chain: own}); err != nil {
		return fmt.Errorf("answer hello: %w", err)
	}
	var m pb.Confirm
	if err := in.Read(&m); err != nil {
		return fmt.Errorf("read confirmation: %w", err)
	}
	if err := errorOf(m.GetStatus()); err != nil {
		return err
	}
	c.Confirm(conn)
	return nil
}

func reserve(st network.Stream) error {
	if err := st.Scope().SetService(ServiceName); err != nil {
		return fmt.Errorf("attach stream to service %s: %w", ServiceName, err)
	}
	return st.Scope().ReserveMemory(streamMemory, network.ReservationPriorityHigh)
}

// finish closes a stream whose last message was written, whatever it said, and
// resets any other.
func finish(st network.Stream, err error) error {
	if err == nil || known(err) {
		_ = st.Close()
	} else {
		_ = st.Reset()
	}
	return err
}
